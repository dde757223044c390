"""The pinned sets: what must not move, and what they are."""

import numpy as np
import pytest

from tomogan_bluesky.errors import ConfigurationError
from tomogan_bluesky.recon.phantoms import HELD_OUT_FAMILY, TRAINING_FAMILIES
from tomogan_bluesky.recon.volumes import VOLUME_FAMILIES
from tomogan_bluesky.training.metrics import psnr
from tomogan_bluesky.training.pinned import (
    DOSES,
    PINNED_SETS,
    PinnedScans,
    pinned_slices,
)

# Figures in the documentation are of these recipes: a new one needs a new name.
DIGESTS = {
    "512": "dd7f8732bdb8b52fa803ffd5698285edb5708d9647b440b739e2cc7a04d46732",
    "256": "b9f5eb1e6255b87ba8a996f2120d7a83758d0f1e556ebf14fc232f46be74b0c7",
    "512-foreign": "64c5f3934c5207590269e91a595a2d87fd156553d67582486045b6623336a38d",
    "256-foreign": "b601fdae6b81f54c3a1d696bef878b6cb2534d7f625447d74de6063f4423c30d",
    "512-volumes": "8cd8df196bb142acdfc51bb339ee84941f82c5985853f8ab5f92661c4151b2f3",
    "256-volumes": "0f21ae57fd61ea19f79971211e7ab6b96ce876b500abda3ce6a3fdc38d696538",
}

# Of the first slice of two families: pixels (100, 128), (128, 90) and (170, 150) in 1/pixel.
PIXELS = {
    ("256", "foam"): {
        "clean": [0.0010013, 0.0121354, 0.0072588],
        "full": [0.0009095, 0.0120075, 0.0068911],
        "quarter": [0.0005308, 0.0121228, 0.0073981],
    },
    ("256", "fibres"): {
        "clean": [0.0079619, 0.0031622, 0.007169],
        "full": [0.0082261, 0.002414, 0.0076567],
        "quarter": [0.0074428, 0.00248, 0.0092873],
    },
    ("256-foreign", "battery"): {
        "clean": [0.0039092, 0.0080575, 0.0126678],
        "full": [0.0037998, 0.0079168, 0.0124989],
        "quarter": [0.0034051, 0.0080527, 0.013183],
    },
}

# Of the middle slice of three families of "256-volumes", made small: pixels (25, 32), (32, 22) and
# (42, 37), without noise and at a quarter of the dose.
VOLUME_PIXELS = (
    ("spheres3d", [-0.0031933, 0.0073645, 0.0665838], [-0.0046144, 0.0075947, 0.0673363]),
    ("porous3d", [0.0361823, 0.0357582, 0.0371454], [0.0366487, 0.0385279, 0.0394763]),
    ("battery", [0.0227119, 0.0420642, 0.0360952], [0.0222821, 0.0445733, 0.0372944]),
)


@pytest.fixture(scope="module")
def sets():
    return {name: pinned_slices(name, (1.0, 0.25), 1) for name in ("256", "256-foreign")}


def test_recipes_do_not_move():
    assert {name: recipe.digest() for name, recipe in PINNED_SETS.items()} == DIGESTS


def test_recipes_are_what_the_goals_were_set_for():
    for size, angles, photons in ((512, 804, 1.1e5), (256, 402, 5.5e4)):
        recipe = PINNED_SETS[str(size)]
        assert (recipe.size, recipe.n_angles, recipe.photons) == (size, angles, photons)
        assert recipe.largest == 2.0
        assert recipe.families == TRAINING_FAMILIES
        assert len(recipe.families) * recipe.slices_a_family >= 12
        assert recipe.ring_gain == recipe.blur_px == recipe.drift == 0
        foreign = PINNED_SETS[f"{size}-foreign"]
        assert foreign.families == (HELD_OUT_FAMILY,)
        assert min(foreign.ring_gain, foreign.blur_px, foreign.drift) > 0
        volumes = PINNED_SETS[f"{size}-volumes"]
        same = ("size", "n_angles", "photons", "largest", "ring_gain", "blur_px", "drift")
        assert all(getattr(volumes, name) == getattr(recipe, name) for name in same)
        assert volumes.families == (*VOLUME_FAMILIES, HELD_OUT_FAMILY)
    assert {16.0, 4.0, 1.0, 0.5, 0.25, 0.1, 0.05} == set(DOSES)


@pytest.mark.parametrize(("name", "family"), PIXELS)
def test_pixels_do_not_move(sets, name, family):
    slices = sets[name]
    i = slices.families.index(family)
    contrast = slices.clean[i].max()
    stacks = {"clean": slices.clean, "full": slices.full_dose, "quarter": slices.noisy[0.25]}
    for kind, expected in PIXELS[name, family].items():
        found = [stacks[kind][i, y, x] for y, x in ((100, 128), (128, 90), (170, 150))]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * contrast)


def test_doses_and_scans_have_noise_of_their_own(sets):
    slices = sets["256"]
    noise = [(a - slices.clean)[:, 64:-64, 64:-64].ravel() for a in slices.noisy.values()]
    noise.append((slices.full_dose - slices.clean)[:, 64:-64, 64:-64].ravel())
    assert np.abs(np.corrcoef(noise) - np.eye(3)).max() < 0.05
    full, quarter, second = (n.std() for n in noise)
    assert quarter / full == pytest.approx(2, rel=0.1)
    assert second == pytest.approx(full, rel=0.05)


def test_a_part_of_a_set_is_the_same_slices(sets):
    """So a quick look is a look at the same."""
    recipe = PINNED_SETS["256"]
    two = PinnedScans(recipe.model_copy(update={"families": ("foam",)}), 2)
    one = PinnedScans(recipe.model_copy(update={"families": ("foam",)}), 1)
    assert two.families == ("foam", "foam")
    np.testing.assert_array_equal(two.measured(0.25)[:1], one.measured(0.25))
    np.testing.assert_array_equal(two.second_full_dose()[:1], one.second_full_dose())


def test_the_foreign_set_has_faults_that_the_reference_has_not():
    recipe = PINNED_SETS["256-foreign"].model_copy(update={"size": 64, "n_angles": 90})
    scans = PinnedScans(recipe, 1)
    bright = scans.measured(16.0)
    error = (bright - scans.clean())[0].numpy()
    columns = error.mean(0)
    assert columns.std() > 0.5 * recipe.ring_gain  # stripes: the same at all angles
    rows = error.mean(1)
    assert rows[-1] - rows[0] == pytest.approx(recipe.drift, rel=0.2)  # fades: seems to absorb


@pytest.fixture(scope="module")
def volumes():
    small = {"small": PINNED_SETS["256-volumes"].model_copy(update={"size": 64, "n_angles": 100})}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tomogan_bluesky.training.pinned.PINNED_SETS", small)
        return pinned_slices("small", (0.25,))


def test_slices_of_volumes_are_neighbours_and_their_ends_are_not_scored(volumes):
    assert len(volumes) == 25
    parts = list(zip(volumes.samples(), volumes.scored(), strict=True))
    assert len(parts) == 5
    for whole, middle in parts:
        assert len(set(volumes.families[whole])) == 1
        assert (whole.stop - whole.start, middle.stop - middle.start) == (5, 3)
        assert middle.start == whole.start + 1
        stack = volumes.clean[whole]
        apart = [np.square(stack[k:] - stack[: 5 - k]).mean() for k in (1, 2, 4)]
        assert 0 < apart[0] < apart[1] < apart[2]  # the further away, the less alike


def test_pixels_of_volumes_do_not_move(volumes):
    for family, clean, quarter in VOLUME_PIXELS:
        i = volumes.families.index(family) + 2
        for stack, expected in ((volumes.clean, clean), (volumes.noisy[0.25], quarter)):
            found = [stack[i, y, x] for y, x in ((25, 32), (32, 22), (42, 37))]
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * stack[i].max())


def test_cache_gives_the_same_slices(tmp_path, monkeypatch):
    small = {"tiny": PINNED_SETS["256"].model_copy(update={"size": 32, "n_angles": 40})}
    monkeypatch.setattr("tomogan_bluesky.training.pinned.PINNED_SETS", small)
    first = pinned_slices("tiny", (1.0, 0.5), 1, tmp_path)
    monkeypatch.setattr("tomogan_bluesky.training.pinned.PinnedScans", None)
    again = pinned_slices("tiny", (1.0, 0.5), 1, tmp_path)
    for dose in (1.0, 0.5):
        np.testing.assert_array_equal(first.noisy[dose], again.noisy[dose])
    np.testing.assert_array_equal(first.clean, again.clean)
    assert psnr(first.full_dose[0], first.clean[0]) > 20


def test_refuses_what_is_no_set_and_no_dose():
    with pytest.raises(ConfigurationError, match="expected one of 512, 256"):
        pinned_slices("1024")
    with pytest.raises(ConfigurationError, match="positive"):
        pinned_slices("256", (0.0,))
