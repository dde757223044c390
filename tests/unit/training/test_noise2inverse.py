"""Splits of one scan."""

import numpy as np
import pytest
import torch

from tomogan_bluesky.errors import ConfigurationError
from tomogan_bluesky.recon.gridrec import Gridrec
from tomogan_bluesky.training.noise2inverse import (
    angular_splits,
    averaged_splits,
    others,
    split_pairs,
)
from tomogan_bluesky.training.pinned import PINNED_SETS, PinnedScans


@pytest.mark.parametrize("n_splits", [2, 3, 4])
def test_each_projection_is_in_one_split(n_splits):
    used = np.concatenate([np.arange(13)[part] for part in angular_splits(13, n_splits)])
    assert sorted(used) == list(range(13))


def test_noise_of_input_and_target_is_independent():
    recipe = PINNED_SETS["256"].model_copy(
        update={"size": 96, "n_angles": 160, "families": ("foam",)}
    )
    scans = PinnedScans(recipe, 1)
    measured, clean = scans.measured(0.25), scans.clean()
    errors = []
    for angles in angular_splits(160):
        geometry = type(scans.geometry)(
            scans.geometry.theta[angles], scans.geometry.rotation_centre, 96
        )
        make = Gridrec(geometry)
        errors.append((make(measured[:, angles]) - make(clean[:, angles]))[0, 24:-24, 24:-24])
    correlation = np.corrcoef(*(e.numpy().ravel() for e in errors))[0, 1]
    assert abs(correlation) < 0.06


@pytest.mark.parametrize("n_splits", [2, 4])
def test_a_split_is_the_target_of_the_others(n_splits):
    splits = torch.rand(n_splits, 3, 16, 16)
    pairs = split_pairs(splits, dose=0.5)
    assert len(pairs) == n_splits
    for k, group in enumerate(pairs):
        rest = [splits[j] for j in range(n_splits) if j != k]
        torch.testing.assert_close(group.noisy[:, 0], torch.stack(rest).mean(0))
        assert torch.equal(group.target, splits[k])
        assert group.dose.unique().item() == pytest.approx(0.5 * (n_splits - 1) / n_splits)


def test_averaged_splits_are_of_what_was_trained_on():
    splits = torch.rand(3, 2, 8, 8)
    seen = []

    def network(images):
        seen.append(images)
        return 2 * images

    result = averaged_splits(network, splits)
    torch.testing.assert_close(result, 2 * splits.mean(0))
    torch.testing.assert_close(torch.stack(seen), others(splits))


def test_refuses_what_cannot_be_split():
    for n_angles, n_splits in ((100, 1), (5, 3)):
        with pytest.raises(ConfigurationError, match="2 splits or more"):
            angular_splits(n_angles, n_splits)
    with pytest.raises(ConfigurationError, match="finite"):
        split_pairs(torch.full((2, 1, 8, 8), torch.nan))
