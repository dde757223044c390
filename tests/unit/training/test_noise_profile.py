"""Photon transfer: what was put into simulated flats comes out of them."""

import numpy as np
import pytest
from scipy import ndimage

from tomogan_bluesky.errors import MissingFramesError
from tomogan_bluesky.recon.beam import Beam
from tomogan_bluesky.training.noise_profile import NoiseProfile, measure_noise, split_exposure

SHAPE = (64, 128)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_gain_read_noise_and_pattern_of_a_simulated_detector():
    beam = Beam(photons=1e5, dark=0, electronic=8.0, seed=3)
    profile = measure_noise(beam.flats(12, SHAPE), beam.darks(12, SHAPE))
    assert beam.gain == 0.5  # the detector would saturate otherwise
    assert profile.gain == pytest.approx(beam.gain, rel=0.03)
    assert profile.flat_electrons == pytest.approx(1e5, rel=0.05)
    assert profile.flat_pattern == pytest.approx(beam.profile(SHAPE).std(), rel=0.1)
    assert profile.blur_px == 0
    beam = Beam(photons=1e4, dark=100, electronic=8.0, seed=3)
    profile = measure_noise(beam.flats(12, SHAPE), beam.darks(12, SHAPE))
    assert profile.read_noise == pytest.approx(np.sqrt(8**2 + 100), rel=0.05)


def test_a_flickering_beam_is_not_the_detectors_noise(rng):
    level = 1e4 * rng.uniform(0.9, 1.1, (10, 1, 1))
    flats = rng.poisson(np.broadcast_to(level, (10, *SHAPE))) + 50.0
    darks = rng.normal(50, 3, (10, *SHAPE))
    assert measure_noise(flats, darks).gain == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("blur", [0.5, 0.8, 1.2])
def test_blur_is_found_and_the_gain_is_that_of_a_pixels_noise(rng, blur):
    electrons = rng.poisson(1e4, (10, *SHAPE)).astype(float)
    flats = 2.0 * ndimage.gaussian_filter(electrons, (0, blur, blur)) + 100
    darks = rng.normal(100, 2, (10, *SHAPE))
    profile = measure_noise(flats, darks)
    assert profile.blur_px == pytest.approx(blur, abs=0.06)
    assert profile.gain == pytest.approx(flats.var(0).mean() / 2e4, rel=0.15)


def test_a_detector_of_one_row_and_dead_pixels(rng):
    flats = rng.poisson(5000, (20, 1, 400)).astype(float)
    flats[:, :, ::50] = 0
    profile = measure_noise(flats, rng.normal(0, 5, (20, 1, 400)))
    assert profile.gain == pytest.approx(1, rel=0.1)


def test_halves_of_an_exposure_have_noise_of_their_own(rng):
    profile = NoiseProfile(gain=0.5, read_noise=4, flat_electrons=2e4, flat_pattern=0, blur_px=0)
    signal, dark = 2000.0, np.full((1, 1), 30, np.float32)
    electrons = rng.poisson(signal, (1, 400, 500)) + rng.normal(0, 4, (1, 400, 500))
    frames = 0.5 * electrons + 30
    low, rest = split_exposure(frames, dark, profile, 0.25, rng)
    for part, share in ((low, 0.25), (rest, 0.75)):
        found = (part - 30) / 0.5
        assert found.mean() == pytest.approx(signal, rel=0.01)
        # As if it had been exposed for that share: photons, and the whole read noise.
        assert found.var() == pytest.approx((share * signal + 16) / share**2, rel=0.02)
    correlation = np.corrcoef(low.ravel(), rest.ravel())[0, 1]
    assert abs(correlation) < 0.01
    whole = np.corrcoef(low.ravel(), frames.ravel())[0, 1]
    assert whole > 0.3  # why a scan is no reference for a part of it


def test_differences_are_said_in_words():
    one = NoiseProfile(gain=1, read_noise=5, flat_electrons=1e4, flat_pattern=0.1, blur_px=0.5)
    assert one.differences(one.model_copy(update={"gain": 1.1, "read_noise": 6})) == []
    other = one.model_copy(update={"gain": 2.0, "read_noise": 20, "blur_px": 1.0})
    gain, read, blur = one.differences(other)
    assert gain == "gain 2 counts an electron instead of 1"
    assert read == "read noise 20 electrons instead of 5"
    assert "1.00 px instead of 0.50" in blur


def test_refuses_frames_that_tell_nothing(rng):
    flats, darks = rng.poisson(900, (4, 8, 8)), rng.poisson(9, (4, 8, 8))
    for bad in ((flats[:1], darks), (flats, darks[:, :4]), (flats[0], darks[0])):
        with pytest.raises(MissingFramesError, match="expected 2 flats and 2 darks"):
            measure_noise(*bad)
    with pytest.raises(MissingFramesError, match="brighter and noisier"):
        measure_noise(darks, flats)
    with pytest.raises(MissingFramesError, match="brighter and noisier"):
        measure_noise(np.full((3, 8, 8), 900), np.zeros((3, 8, 8)))
