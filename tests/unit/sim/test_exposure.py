from itertools import pairwise

import numpy as np
import pytest

from tomogan_bluesky.errors import ConfigurationError
from tomogan_bluesky.recon.beam import Beam
from tomogan_bluesky.sim.exposure import Exposure, Imperfections, Shots

ROWS, ANGLES, COLUMNS = 40, 5, 50
ANGLES_DEG = np.linspace(0, 180, ANGLES)


def exposure(integrals=None, photons=1e5, seed=3, dark=100.0, **imperfections):
    if integrals is None:
        integrals = np.random.default_rng(1).uniform(0, 2, (ROWS, ANGLES, COLUMNS))
    beam = Beam(photons=photons, dark=dark, seed=seed)
    return Exposure(integrals, ANGLES_DEG, beam, Imperfections(**imperfections))


def take(shots, angle=0.0, **options):
    return shots.take(shutter="open", sample="in", angle_deg=angle, **options)


def flat(shots):
    return shots.take(shutter="open", sample="out", angle_deg=0.0)


def dark(shots):
    return shots.take(shutter="closed", sample="out", angle_deg=0.0)


def test_a_frame_depends_on_what_it_is_and_not_on_the_order():
    keys = [("dark", 0), ("flat", 0), ("projection", 0), ("projection", 1), ("flat", 1)]
    first, second = exposure(), exposure()
    there = [first.frame(*key) for key in keys]
    back = [second.frame(*key) for key in reversed(keys)][::-1]
    for one, other in zip(there, back, strict=True):
        assert one.dtype == np.uint16
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "other", [{"repeat": 1}, {"part": 1}, {"index": 1}, {"repeat": 1, "dose": 0.25}]
)
def test_noise_of_different_frames_is_independent(other):
    """Pairs for training are worthless if the noise of one scan is found in the other."""
    flat_sample = exposure(np.ones((ROWS, ANGLES, COLUMNS)))
    mean = np.exp(-1.0) * flat_sample.beam.profile((ROWS, COLUMNS)) * 1e5
    noise = []
    for key in ({"index": 0}, {"index": 0} | other):
        counts = flat_sample.frame("projection", **key) / flat_sample.beam.gain
        noise.append(((counts - 100) / key.get("dose", 1) - mean).ravel())
    assert abs(np.corrcoef(noise)[0, 1]) < 4 / np.sqrt(ROWS * COLUMNS)


def test_flats_and_projections_of_one_number_have_noise_of_their_own():
    empty = exposure(np.zeros((ROWS, ANGLES, COLUMNS)))
    assert (empty.frame("flat", 0) != empty.frame("projection", 0)).any()


def test_seeds_give_other_photons():
    assert (exposure(seed=1).frame("dark", 0) != exposure(seed=2).frame("dark", 0)).any()


def test_correction_gives_the_line_integrals_back():
    bright = exposure(photons=1e9, dark=0)
    flat_frame = bright.frame("flat", 0).astype(float)
    for i in range(ANGLES):
        measured = -np.log(bright.frame("projection", i) / flat_frame)
        np.testing.assert_allclose(measured, bright.integrals[:, i], atol=5e-3)


def test_dose_is_exposure_time():
    shots = Shots(exposure(dark=0), full_exposure_s=0.2)
    full, tenth = (take(shots, exposure_s=s).mean() for s in (0.2, 0.02))
    assert tenth == pytest.approx(full / 10, rel=0.01)


def test_broken_pixels_are_a_share_and_stay_where_they_are():
    broken = exposure(dead_pixels=0.05, hot_pixels=0.02)
    frames = [broken.frame("dark", 0), broken.frame("flat", 0), broken.frame("projection", 2)]
    dead = [frame == 0 for frame in frames]
    hot = [frame == 65535 for frame in frames]
    for masks, share in ((dead, 0.05), (hot, 0.02)):
        assert masks[0].mean() == pytest.approx(share, abs=0.015)
        assert all((one == other).all() for one, other in pairwise(masks))


def test_ring_gain_is_of_the_projections_alone_and_the_same_in_all():
    options = {"integrals": np.zeros((ROWS, ANGLES, COLUMNS)), "photons": 1e9, "dark": 0}
    good, bad = exposure(**options), exposure(**options, ring_gain=0.03)
    np.testing.assert_array_equal(good.frame("flat", 0), bad.frame("flat", 0))
    first, last = (
        bad.frame("projection", i) / good.frame("projection", i).astype(float)
        for i in (0, ANGLES - 1)
    )
    assert first.std() == pytest.approx(0.03, rel=0.1)
    np.testing.assert_allclose(first, last, atol=1e-3)


def test_the_beam_drifts_during_a_scan_and_back_in_the_next():
    drifting = exposure(flat_drift=0.1, photons=1e9, dark=0)
    before, middle, after, later = (
        drifting.frame("flat", 0, elapsed=t).astype(float) for t in (0, 0.5, 1, 2)
    )
    np.testing.assert_array_equal(before, later)
    np.testing.assert_allclose(middle, (before + after) / 2, rtol=1e-3)
    assert after[0, 0] / before[0, 0] == pytest.approx(0.9, abs=1e-3)
    assert after[-1, -1] / before[-1, -1] == pytest.approx(1.1, abs=1e-3)


def test_flats_after_the_projections_see_the_beam_as_the_last_of_them():
    shots = Shots(exposure(flat_drift=0.1, photons=1e9, dark=0))
    before = flat(shots).astype(float)
    for angle in ANGLES_DEG:
        take(shots, angle)
    assert flat(shots)[-1, -1] / before[-1, -1] == pytest.approx(1.1, abs=1e-3)


def test_shots_number_darks_and_flats_and_know_projections_by_their_angle():
    shots, pure = Shots(exposure()), exposure()
    for i in range(2):
        np.testing.assert_array_equal(dark(shots), pure.frame("dark", i))
        np.testing.assert_array_equal(flat(shots), pure.frame("flat", i))
    np.testing.assert_array_equal(take(shots, 90.0), pure.frame("projection", 2))


def test_a_frame_taken_again_is_the_same_and_that_of_another_scan_is_not():
    shots = Shots(exposure())
    shots.new_scan()
    first, again = take(shots), take(shots)
    np.testing.assert_array_equal(first, again)
    for _ in range(2):  # darks and flats of a run of their own are staged too
        shots.new_scan()
        dark(shots)
    second = take(shots)
    assert (first != second).any()
    np.testing.assert_array_equal(second, exposure().frame("projection", 0, repeat=1, elapsed=1))


def test_refuses_what_was_not_simulated():
    with pytest.raises(ConfigurationError, match="one of the 5 angles.*got 12"):
        take(Shots(exposure()), 12.0)
    with pytest.raises(ConfigurationError, match=r"\(row, 5 angles, column\), got \(2, 4, 9\)"):
        exposure(np.zeros((2, 4, 9)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"flat_drift": 1.0},
        {"dead_pixels": -0.1},
        {"hot_pixels": -0.1},
        {"dead_pixels": 0.6, "hot_pixels": 0.6},
        {"ring_gain": 0.5},
    ],
)
def test_refuses_imperfections_that_do_not_exist(wrong):
    with pytest.raises(ConfigurationError, match="imperfections: expected"):
        Imperfections(**wrong)
