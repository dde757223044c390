import numpy as np
import pytest
import torch

from tomogan_bluesky.errors import ConfigurationError
from tomogan_bluesky.geometry import ScanGeometry
from tomogan_bluesky.recon.beam import Beam, line_integrals, simulate_scan, volume_line_integrals
from tomogan_bluesky.recon.flatfield import attenuation, transmission
from tomogan_bluesky.recon.gridrec import Gridrec
from tomogan_bluesky.training.metrics import field_of_view


def half_turn(n_angles, centre, n_columns):
    return ScanGeometry(np.arange(n_angles) * np.pi / n_angles, centre, n_columns)


def corrected(frames, darks, flats):
    """Line integrals (row, angle, column) of frames (angle, row, column)."""
    dark, flat = (torch.from_numpy(f.mean(0, dtype=np.float32)) for f in (darks, flats))
    frames = torch.from_numpy(np.ascontiguousarray(frames.transpose(1, 0, 2)))
    return attenuation(transmission(frames, dark, flat), 1e-6)[0].numpy()


@pytest.mark.parametrize("photons", [2e4, 5e5])
def test_counts_are_poisson(photons):
    """Mean and variance of the counts follow from photons, dark current, readout and gain."""
    beam = Beam(photons=photons, dose=0.5, dark=100, electronic=7, seed=1)
    shape = (8, 64)
    frames = beam.projections(np.full((400, *shape), 1.0)).astype(np.float64)
    electrons = 0.5 * photons * np.exp(-1.0) * beam.profile(shape) + 100
    assert np.allclose(frames.mean(0), beam.gain * electrons, rtol=0.01)
    variance = beam.gain**2 * (electrons + 7**2) + 1 / 12  # rounding adds 1/12
    assert np.allclose(frames.var(0).mean(), variance.mean(), rtol=0.02)


def test_nothing_saturates_or_wraps():
    shape = (4, 32)
    for photons in (1e3, 5.5e4, 1e7):
        beam = Beam(photons=photons, dose=2.0)
        assert beam.flats(3, shape).max() < 65535
    dim = Beam(photons=10, dark=0, electronic=3)
    assert dim.darks(3, shape).max() < 100, "negative readouts wrapped around"


def test_same_seed_same_frames_and_fresh_noise_each_time():
    shape = (2, 16)
    first, second = (Beam(seed=3) for _ in range(2))
    flats = first.flats(2, shape)
    assert np.array_equal(flats, second.flats(2, shape))
    assert not np.array_equal(flats, first.flats(2, shape))
    assert not np.array_equal(first.profile(shape), Beam(seed=4).profile(shape))


@pytest.mark.parametrize("settings", [{"photons": 0}, {"dose": -1}, {"dark": -1}])
def test_refuses_beams_that_do_not_exist(settings):
    with pytest.raises(ConfigurationError, match="positive photons"):
        Beam(**settings)


def test_correction_gives_the_line_integrals_back():
    scan = simulate_scan("shale", 48, 60, Beam(photons=1e9, dark=0, seed=2), rows=2, seed=8)
    assert scan.projections.shape == (60, 2, 48)
    assert scan.projections.dtype == scan.flats.dtype == np.uint16
    measured = corrected(scan.projections, scan.darks, scan.flats)
    assert measured.shape == (2, 60, 48)
    assert measured.max() == pytest.approx(2.0, abs=0.01)
    # The mass of a slice is the same in each projection, and is that of the truth.
    mass = scan.truth.sum((1, 2))
    assert np.allclose(measured.sum(2), mass[:, None], rtol=0.005)


@pytest.mark.parametrize(("n", "centre"), [(96, 47.5), (96, 50.25), (97, 45.0)])
def test_truth_lies_where_the_reconstruction_finds_it(n, centre):
    """Reconstruction and truth have the same centre of mass and the same values."""
    geometry = half_turn(160, centre, n)
    phantom = np.zeros((1, 2 * n, 2 * n), np.float32)
    y, x = np.mgrid[: 2 * n, : 2 * n]
    phantom[0, np.hypot(y - 0.8 * n, x - 1.15 * n) < 0.3 * n] = 1
    integrals, truth = line_integrals(phantom, geometry)
    found = Gridrec(geometry)(torch.from_numpy(integrals)).numpy()[0] * field_of_view(n)
    middle = np.hypot(y[:n, :n] - 0.4 * n, x[:n, :n] - 0.575 * n) < 0.12 * n
    assert found[middle].mean() == pytest.approx(truth[0][middle].mean(), rel=2e-3)
    for axis in (0, 1):
        at = [(image.sum(1 - axis) @ np.arange(n)) / image.sum() for image in (found, truth[0])]
        assert at[0] == pytest.approx(at[1], abs=0.02)


def test_refuses_a_phantom_of_another_size():
    with pytest.raises(ConfigurationError, match=r"\(row, 64, 64\).*\(1, 32, 32\)"):
        line_integrals(np.ones((1, 32, 32), np.float32), half_turn(10, 15.5, 32))


def test_a_row_sees_the_mean_of_two_slices_of_a_volume():
    volume = np.random.default_rng(0).uniform(0, 1, (6, 64, 64)).astype(np.float32)
    geometry = half_turn(10, 15.5, 32)
    seen = volume_line_integrals(volume, geometry)
    for found, fine in zip(seen, line_integrals(volume, geometry), strict=True):
        assert found.shape == (3, *fine.shape[1:])
        assert np.allclose(found, (fine[::2] + fine[1::2]) / 2, rtol=1e-6)


def test_refuses_half_a_row():
    with pytest.raises(ConfigurationError, match="two slices a row, got 3"):
        volume_line_integrals(np.ones((3, 64, 64), np.float32), half_turn(10, 15.5, 32))
