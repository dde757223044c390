"""Intervals hold what they promise, for slices that nobody has seen, and at edges too."""

import numpy as np
import pytest
import torch

from tomogan_bluesky.trust.calibration import (
    FACTORS,
    Misses,
    calibrate,
    misses,
    noise_for_contrast,
)

KINDS = {"all": slice(None), "edges": slice(0, 100), "flat": slice(100, None)}


def drawn(rng, n, edge=1.0, noise=(0.1, 0.1), units=None):
    """Slices of 1000 pixels whose errors are Gaussian; those of edges larger than foretold."""
    found = []
    for i in range(n):
        scale = np.exp(rng.normal(0, 0.1))  # slices differ
        ratio = np.abs(rng.normal(0, scale, 1000))
        ratio[:100] *= edge
        masks = {k: np.isin(np.arange(1000), np.arange(1000)[s]) for k, s in KINDS.items()}
        of = misses(ratio, masks)
        found.append(Misses(i if units is None else i % units, rng.uniform(*noise), of, of))
    return found


def test_misses_are_the_share_beyond_each_factor():
    found = misses(np.array([0.05, 1.0, 40.0, 2.0]), {"all": np.ones(4, bool)})["all"]
    assert found[0] == 0.75
    assert found[-1] == 0.25
    assert found[np.searchsorted(FACTORS, 1.5)] == 0.5


def test_new_slices_are_covered_as_promised():
    rng = np.random.default_rng(0)
    factor = calibrate(drawn(rng, 60), 0.9, 1).factors[0]
    at = np.argmin(np.abs(FACTORS - factor))
    missed = np.mean([m.of_scale["all"][at] for m in drawn(rng, 300)])
    assert 0.06 < missed < 0.1
    assert 1.645 < factor < 2.0  # of a Gaussian, and a little more for what was not seen


def test_edges_decide_where_they_are_worse():
    rng = np.random.default_rng(1)
    even, uneven = (calibrate(drawn(rng, 60, edge), 0.9, 1).factors[0] for edge in (1.0, 2.0))
    assert uneven == pytest.approx(2 * even, rel=0.05)


def test_ranges_of_noise_have_factors_of_their_own():
    rng = np.random.default_rng(2)
    quiet, loud = drawn(rng, 40, 1.0, (0.01, 0.02)), drawn(rng, 40, 3.0, (0.1, 0.2))
    found = calibrate(quiet + loud, 0.9, 2)
    assert 0.02 < found.noise[0] < 0.1
    assert found.units == (40, 40)
    assert found.factor(0.005) == found.factors[0] < found.factors[1] == found.factor(float("inf"))


def test_fewer_ranges_rather_than_too_few_units():
    found = calibrate(drawn(np.random.default_rng(3), 40, noise=(0.01, 0.2)), 0.9, 5)
    assert len(found.factors) == 4
    assert min(found.units) >= 10


def test_slices_of_one_volume_are_one_unit(caplog):
    many = drawn(np.random.default_rng(4), 60)
    few = drawn(np.random.default_rng(4), 60, units=12)
    assert calibrate(few, 0.9, 5).units == (12,) * 5 or sum(calibrate(few, 0.9, 5).units) >= 10
    assert calibrate(few, 0.9, 1).factors[0] > calibrate(many, 0.9, 1).factors[0]
    calibrate(drawn(np.random.default_rng(4), 60, units=2), 0.9)
    assert "no promise" in caplog.text


def test_noise_for_contrast_has_no_units():
    image = torch.rand(300, 301)
    assert noise_for_contrast(image, 0.1) == pytest.approx(noise_for_contrast(7 * image, 0.7))
    assert noise_for_contrast(torch.zeros(8, 8), 0.1) == float("inf")
