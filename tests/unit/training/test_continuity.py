import numpy as np
import pytest

from tomogan_bluesky.errors import ConfigurationError
from tomogan_bluesky.training.continuity import jumps


def test_only_what_changes_between_neighbours_counts():
    rng = np.random.default_rng(0)
    truth = rng.uniform(0, 1, (6, 32, 32))
    assert jumps(truth, truth) == 0
    assert jumps(truth + rng.normal(size=(32, 32)), truth) == pytest.approx(0, abs=1e-20)
    noisy = truth + 0.1 * rng.normal(size=truth.shape)
    assert jumps(noisy, truth) == pytest.approx(2 * 0.01, rel=0.1)  # range 1, two slices' noise
    assert jumps(5 * noisy, 5 * truth) == pytest.approx(jumps(noisy, truth))


def test_needs_two_slices_of_one_shape():
    for shapes in (((1, 8, 8), (1, 8, 8)), ((3, 8, 8), (2, 8, 8)), ((8, 8), (8, 8))):
        with pytest.raises(ConfigurationError, match="at least two slices"):
            jumps(*map(np.zeros, shapes))
