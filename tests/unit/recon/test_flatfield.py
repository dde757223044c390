import logging

import numpy as np
import pytest
import torch

from tomogan_bluesky.errors import ReconstructionError
from tomogan_bluesky.recon.flatfield import MINIMUM_BEAM, attenuation, transmission

FIELDS = torch.full((3, 5), 10.0), torch.full((3, 5), 110.0)


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.uint16, torch.int16, torch.int32, torch.float32, torch.float64]
)
def test_counts_of_any_type_become_the_share_of_the_beam(dtype):
    counts = torch.full((3, 4, 5), 60).to(dtype)
    counts[1, 2, 3] = 5  # below the dark field: must not wrap around
    corrected = transmission(counts, *FIELDS)
    wanted = torch.full((3, 4, 5), 0.5)
    wanted[1, 2, 3] = -0.05
    torch.testing.assert_close(corrected, wanted)
    assert corrected.dtype == torch.float32


def test_leaves_its_input_alone():
    counts = torch.full((3, 4, 5), 60.0)
    line_integrals, _ = attenuation(transmission(counts, *FIELDS), 1e-6)
    assert (counts == 60).all()
    before = line_integrals.clone()
    attenuation(line_integrals, 1e-6)
    assert torch.equal(line_integrals, before)


def test_dead_pixels_are_counted_and_stay_finite(caplog):
    dark, flat = (field.clone() for field in FIELDS)
    flat[1, 4] = flat[2, 0] = 10
    with caplog.at_level(logging.WARNING):
        corrected = transmission(torch.full((3, 4, 5), 11.0), dark, flat)
    assert corrected.isfinite().all()
    assert corrected[1, 0, 4] == pytest.approx(1 / MINIMUM_BEAM)
    assert "2 of 15 pixels" in caplog.text
    assert "row 1, column 4" in caplog.text


@pytest.mark.parametrize("flat", [0.0, 10.0, 3.0])
def test_a_flat_field_without_beam_is_refused(flat):
    with pytest.raises(ReconstructionError, match="15 of 15 pixels are not.*shutter.*mixed up"):
        transmission(torch.full((3, 4, 5), 60.0), FIELDS[0], torch.full((3, 5), flat))


def test_attenuation_inverts_the_law_of_absorption():
    line_integrals = torch.rand(2, 3, 4)
    got, n_clamped = attenuation(torch.exp(-line_integrals), 1e-6)
    torch.testing.assert_close(got, line_integrals, rtol=1e-5, atol=1e-6)
    assert n_clamped == 0


def test_what_has_no_logarithm_is_raised_to_the_minimum_and_counted():
    got, n_clamped = attenuation(torch.tensor([[[-1.0, 0.0, 1e-3, 2.0]]]), 1e-3)
    assert n_clamped == 2
    minimum = torch.tensor(1e-3)
    assert torch.equal(got[0, 0, :3], -minimum.log().expand(3))


def test_refuses_shapes_that_do_not_fit():
    dark, flat = FIELDS
    with pytest.raises(ReconstructionError, match=r"projections \(4, 2, 5\) and dark \(3, 5\)"):
        transmission(torch.zeros(4, 2, 5), dark, flat)
    with pytest.raises(ReconstructionError, match=r"flat \(3, 4\)"):
        transmission(torch.zeros(3, 2, 5), dark, flat[:, :4])
    with pytest.raises(ReconstructionError, match=r"projections \(3, 5\)"):
        transmission(torch.zeros(3, 5), dark, flat)


def test_says_where_values_are_not_finite():
    dark, flat = (field.clone() for field in FIELDS)
    counts = torch.zeros(3, 4, 5)
    counts[2, 1, 4] = torch.nan
    with pytest.raises(ReconstructionError, match="projections.*nan at row 2, angle 1, column 4"):
        transmission(counts, dark, flat)
    with pytest.raises(ReconstructionError, match="transmission.*nan at row 2, angle 1, column 4"):
        attenuation(counts, 1e-6)
    flat[0, 3] = torch.inf
    with pytest.raises(ReconstructionError, match="flat.*inf at row 0, column 3"):
        transmission(torch.zeros(3, 4, 5), dark, flat)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_bits_do_not_depend_on_the_rows_beside(n_threads, one_or_more_threads):
    one_or_more_threads(n_threads)
    counts = torch.randint(0, 60000, (9, 61, 97), dtype=torch.int32)
    dark, flat = torch.rand(9, 97) * 100, 50000 + 100 * torch.rand(9, 97)
    together, _ = attenuation(transmission(counts, dark, flat), 1e-6)
    for row in range(9):
        part = slice(row, row + 1)
        alone, _ = attenuation(transmission(counts[part], dark[part], flat[part]), 1e-6)
        assert torch.equal(alone, together[part])


def test_real_scan_is_corrected_as_by_tomopy(tooth_counts, shared_data):
    projections, dark, flat, _ = tooth_counts
    corrected = transmission(projections[:1], dark[:1], flat[:1])
    with np.load(shared_data("tomopy_1.15.2_tooth_preprocessing.npz")) as file:
        np.testing.assert_allclose(corrected[0], file["transmission"], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(
            attenuation(corrected, 1e-6)[0][0], file["attenuation"], rtol=1e-5, atol=1e-6
        )
