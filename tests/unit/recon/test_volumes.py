import numpy as np
import pytest

from tomogan_bluesky.errors import ConfigurationError
from tomogan_bluesky.recon.volumes import VOLUME_FAMILIES, make_volume


@pytest.mark.parametrize("family", VOLUME_FAMILIES)
def test_neighbours_are_alike_and_distant_slices_are_not(family):
    volume = make_volume(family, 64, np.random.default_rng(1), 12)
    assert volume.shape == (12, 64, 64)
    assert volume.dtype == np.float32
    assert 0 <= volume.min() < 0.5 < volume.max() <= 1.8
    y, x = (np.indices((64, 64)) - 31.5) / 32
    assert not volume[:, y**2 + x**2 > 0.95**2].any()
    inside = volume[:, y**2 + x**2 < 0.7**2]
    steps = [np.mean((inside[k:] - inside[: 12 - k]) ** 2) for k in (1, 2, 8)]
    assert 0 < steps[0] < steps[1] < steps[2]
    assert steps[0] < 0.5 * steps[2]


def test_same_seed_same_sample():
    one, same, other = (make_volume("foam3d", 32, np.random.default_rng(s), 3) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_refuses_unknown_families_and_nothing():
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigurationError, match="foam3d, .*got 'foam'"):
        make_volume("foam", 32, rng, 2)
    with pytest.raises(ConfigurationError, match="rows=0"):
        make_volume("foam3d", 32, rng, 0)
