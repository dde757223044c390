import numpy as np
import pytest
import torch

from tomogan_bluesky.errors import RotationCentreError
from tomogan_bluesky.geometry import ScanGeometry
from tomogan_bluesky.recon.centre import centre_from_pair, opposed_pair
from tomogan_bluesky.recon.flatfield import attenuation, transmission


@pytest.mark.parametrize(
    ("theta_deg", "pair"),
    [
        (np.linspace(0, 180, 181), (0, 180)),
        (np.linspace(0, 180, 181) - 37.5, (0, 180)),
        (np.linspace(180, 0, 181), (0, 180)),
        (np.linspace(0, 360, 361), (0, 180)),
        (np.arange(0, 180, 0.25), (0, 719)),
        (np.concatenate((np.arange(0, 178), [180.1, 3.3])), (0, 178)),
        (np.array([0, 90, 45, 180]), (0, 3)),
        (np.array([350, 100, 170]), (0, 2)),
    ],
)
def test_finds_the_projections_half_a_turn_apart(theta_deg, pair):
    assert opposed_pair(np.deg2rad(theta_deg)) == pair


@pytest.mark.parametrize(
    ("theta_deg", "closest"),
    [
        (np.arange(0, 91, 1.0), "90 degrees apart"),
        (np.arange(0, 170, 10.0), "160 degrees apart"),
        (np.zeros(4), "0 degrees apart"),
        (np.zeros(1), "1 projection"),
    ],
)
def test_refuses_scans_without_such_a_pair(theta_deg, closest):
    with pytest.raises(RotationCentreError, match=closest):
        opposed_pair(np.deg2rad(theta_deg))


@pytest.mark.parametrize("n_columns", [128, 193])
@pytest.mark.parametrize("offset", [-22.4, -0.3, 0.0, 17.85])
@pytest.mark.parametrize("photons", [300, 1e9])
def test_finds_the_centre_of_noisy_scans(n_columns, offset, photons, make_blobs):
    centre = (n_columns - 1) / 2 + offset
    geometry = ScanGeometry(np.array([0, np.pi]), centre, n_columns)
    lines = make_blobs(radius=0.3 * n_columns, n=30).sinogram(geometry).numpy()
    lines = 1.5 * lines.repeat(4, axis=0) / lines.max()
    counts = np.random.default_rng(0).poisson(photons * np.exp(-lines))
    corrected = torch.from_numpy(np.maximum(counts, 0.5) / photons).float()
    assert centre_from_pair(corrected[:, 0], corrected[:, 1]) == pytest.approx(centre, abs=0.25)
    absorbed = -corrected.log()
    assert centre_from_pair(absorbed[:, 0], absorbed[:, 1]) == pytest.approx(centre, abs=0.25)
    # The other way round it is the same pair.
    assert centre_from_pair(absorbed[:, 1], absorbed[:, 0]) == pytest.approx(centre, abs=0.25)


@pytest.mark.parametrize("centre", [70.3, 96.0])
def test_empty_columns_do_not_correlate(centre, make_blobs):
    geometry = ScanGeometry(np.array([0, np.pi]), centre, 193)
    pin = make_blobs(radius=26, n=1)
    pin.blobs[:] = [[1.0, 2.0, 55.0, 0.0]]
    lines = pin.sinogram(geometry).repeat(3, 1, 1)
    assert centre_from_pair(lines[:, 0], lines[:, 1]) == pytest.approx(centre, abs=0.05)


@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("seed", range(5))
def test_refuses_noise(rows, seed):
    torch.manual_seed(seed)
    with pytest.raises(RotationCentreError, match="a correlation of"):
        centre_from_pair(*torch.randn(2, rows, 256))


@pytest.mark.parametrize("value", [0.0, 0.3333])
def test_refuses_empty_projections(value):
    with pytest.raises(RotationCentreError, match="a sample in the beam"):
        centre_from_pair(*torch.full((2, 4, 64), value))


def test_refuses_projections_that_do_not_fit_or_are_not_finite():
    with pytest.raises(RotationCentreError, match=r"\(4, 64\) and \(4, 63\)"):
        centre_from_pair(torch.zeros(4, 64), torch.zeros(4, 63))
    broken = torch.zeros(4, 64)
    broken[2, 9] = torch.nan
    with pytest.raises(RotationCentreError, match="second projection has nan at row 2, column 9"):
        centre_from_pair(torch.zeros(4, 64), broken)


def test_real_scan_agrees_with_what_others_find(tooth_counts):
    projections, dark, flat, theta = tooth_counts
    corrected = transmission(projections, dark, flat)
    line_integrals, _ = attenuation(corrected, 1e-6)
    first, second = opposed_pair(theta)
    for stack in (corrected, line_integrals):
        assert 295 <= centre_from_pair(stack[:, first], stack[:, second]) <= 296.5
