import numpy as np
import pytest

from tomogan_bluesky.errors import AnglesError
from tomogan_bluesky.geometry import ScanGeometry


def weights(theta):
    return ScanGeometry(theta, 15.5, 32).weights


HALF_TURN = np.arange(180) * np.pi / 180
GOLDEN = np.arange(233) * np.pi * (np.sqrt(5) - 1) / 2 % (2 * np.pi)


@pytest.mark.parametrize(
    "theta",
    [
        HALF_TURN,
        HALF_TURN - 4.0,
        -HALF_TURN,
        2 * HALF_TURN,
        np.arange(181) * 2 * np.pi / 181,
        np.repeat(HALF_TURN, 3),
        np.deg2rad(np.rad2deg(HALF_TURN)),
        HALF_TURN[:100],
        HALF_TURN[70:90] + 7,
        [0.3],
        [0.3, 0.3, 0.3 + np.pi],
    ],
)
def test_an_even_coverage_has_even_weights(theta):
    assert np.array_equal(weights(theta), np.full(len(theta), np.pi / len(theta)))


@pytest.mark.parametrize(
    "theta",
    [
        np.linspace(0, np.pi, 181),
        np.random.default_rng(0).uniform(-9, 9, 150),
        GOLDEN,
        HALF_TURN[np.r_[:60, 90:180]],
        np.linspace(0, 2.9, 40) ** 2 % 6,
    ],
)
def test_weights_belong_to_the_angles_and_add_up_to_half_a_turn(theta):
    base = weights(theta)
    assert base.dtype == np.float64
    assert base.sum() == pytest.approx(np.pi)
    assert (base > 0).all()
    order = np.random.default_rng(1).permutation(len(theta))
    np.testing.assert_allclose(weights(theta[order]), base[order], rtol=1e-9)
    half_turns = np.random.default_rng(2).integers(-3, 3, len(theta))
    np.testing.assert_allclose(weights(theta + np.pi * half_turns), base, rtol=1e-9)
    np.testing.assert_allclose(weights(theta + 0.7), base, rtol=1e-9)


def test_each_angle_gets_half_the_gap_to_its_neighbours():
    theta = np.pi * np.array([0.7, 0.0, 0.1, 0.4])
    np.testing.assert_allclose(weights(theta), np.pi * np.array([0.3, 0.2, 0.2, 0.3]))


def test_both_ends_of_the_half_turn_share_one_weight():
    got = weights(np.linspace(0, np.pi, 181))
    np.testing.assert_allclose(got[1:-1], np.pi / 180)
    np.testing.assert_allclose(got[[0, -1]], np.pi / 360)


def test_single_precision_is_good_enough():
    np.testing.assert_allclose(weights(np.float32(HALF_TURN)), np.pi / 180, rtol=1e-4)


def test_repeats_share_although_an_encoder_jitters():
    jitter = np.random.default_rng(0).uniform(-1, 1, 540) * 1e-4
    np.testing.assert_allclose(weights(np.repeat(HALF_TURN, 3) + jitter), np.pi / 540, rtol=0.02)


def shares(theta):
    return ScanGeometry(theta, 15.5, 32).shares


@pytest.mark.parametrize(
    ("theta", "expected"),
    [
        (HALF_TURN, np.ones(180)),
        (HALF_TURN[:70], np.ones(70)),
        (np.linspace(0, np.pi, 181), np.r_[0.5, np.ones(179), 0.5]),
        (
            np.linspace(0, 2 * np.pi, 361),
            np.r_[1 / 3, np.full(179, 0.5), 1 / 3, np.full(179, 0.5), 1 / 3],
        ),
    ],
)
def test_the_jitter_of_an_encoder_changes_no_share(theta, expected):
    """To the bit, so that what a projection counts is known before the others are there."""
    jitter = np.random.default_rng(0).uniform(-1, 1, len(theta)) * np.deg2rad(0.02)
    np.testing.assert_array_equal(shares(theta), expected)
    np.testing.assert_array_equal(shares(theta + jitter), expected)


def test_a_drift_of_the_steps_is_no_jitter():
    got = shares(np.cumsum(np.linspace(0.99, 1.01, 180)) * np.pi / 180)
    assert got[150] / got[30] == pytest.approx(1.0134, abs=0.002)


def test_a_missing_wedge_counts_as_one_step():
    present = np.r_[:60, 90:180]
    np.testing.assert_allclose(weights(HALF_TURN[present]), np.pi / 150)
    # A few lost frames are no wedge: their neighbours stand in.
    lost = np.r_[:60, 62:180]
    got = weights(HALF_TURN[lost]) * 180 / np.pi
    np.testing.assert_allclose(got[58:62], [1, 2, 2, 1])


def test_two_densities_are_no_wedge():
    got = weights(np.deg2rad(np.r_[0:90:0.1, 90:180]))
    np.testing.assert_allclose(np.rad2deg(got[10:890]), 0.1)
    np.testing.assert_allclose(np.rad2deg(got[910:980]), 1.0)


def test_refuses_degrees():
    with pytest.raises(AnglesError, match=r"numpy\.deg2rad"):
        weights(np.arange(180.0))
