import numpy as np
import pytest

from tomogan_bluesky.errors import ConfigurationError
from tomogan_bluesky.recon.phantoms import (
    FIELD_RADIUS,
    HELD_OUT_FAMILY,
    TRAINING_FAMILIES,
    make_phantom,
)

FAMILIES = (*TRAINING_FAMILIES, HELD_OUT_FAMILY)


def draw(family, size=64, rows=2, seed=5):
    return make_phantom(family, size, np.random.default_rng(seed), rows)


@pytest.mark.parametrize("family", FAMILIES)
def test_sample_lies_inside_the_circle_and_the_range(family):
    size = 65
    phantom = draw(family, size)
    assert phantom.shape == (2, size, size)
    assert phantom.dtype == np.float32
    assert phantom.min() >= 0
    assert phantom.max() <= 1.8
    axis = (np.arange(size) - (size - 1) / 2) * 2 / size
    outside = np.hypot(axis[:, None], axis) > FIELD_RADIUS + 2 / size
    assert (phantom[:, outside] == 0).all()
    assert (phantom > 0.05).mean() > 0.1, "there is hardly anything in the sample"


@pytest.mark.parametrize("family", ["shale", "fibres"])
def test_strong_textures_stay_in_the_range(family):
    phantom = draw(family, rows=60)
    assert phantom.min() >= 0
    assert phantom.max() <= 1.8


@pytest.mark.parametrize("family", FAMILIES)
def test_same_seed_same_sample(family):
    assert np.array_equal(draw(family), draw(family))
    assert not np.array_equal(draw(family), draw(family, seed=6))


def test_held_out_family_is_never_trained_on():
    assert HELD_OUT_FAMILY not in TRAINING_FAMILIES


def test_rows_of_the_held_out_family_are_neighbours_in_one_object():
    phantom = draw(HELD_OUT_FAMILY, size=128, rows=16)
    spread = phantom.std()
    near, far = (np.abs(phantom[n:] - phantom[:-n]).mean() / spread for n in (1, 12))
    assert 0 < near < 0.7 * far


@pytest.mark.parametrize("family", TRAINING_FAMILIES)
def test_rows_of_a_training_family_are_independent(family):
    first, second = draw(family)
    assert np.abs(first - second).mean() > 0.05


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cheese", 64), "foam, shale.*cheese"),
        (("foam", 4), "size=4"),
        (("foam", 64, 0), "rows=0"),
    ],
)
def test_refuses_what_it_can_not_draw(arguments, message):
    family, size, *rows = arguments
    with pytest.raises(ConfigurationError, match=message):
        make_phantom(family, size, np.random.default_rng(0), *rows)
