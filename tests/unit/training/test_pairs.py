import numpy as np
import pytest
import torch

from tomogan_bluesky.errors import ConfigurationError
from tomogan_bluesky.recon.phantoms import HELD_OUT_FAMILY
from tomogan_bluesky.recon.volumes import make_volume
from tomogan_bluesky.training import pairs as pairs_module
from tomogan_bluesky.training.pairs import (
    Pairs,
    SimulatedScans,
    load_or_simulate,
    simulate_pairs,
    training_scans,
    validation_scans,
)

RECIPE = SimulatedScans(size=32, n_angles=40, n_slices=6, realisations=2, seed=1)


def same(a: Pairs, b: Pairs) -> bool:
    return all(torch.equal(getattr(a, k), getattr(b, k)) for k in vars(a) if k != "volume")


def test_shapes_and_units():
    pairs = simulate_pairs(RECIPE)
    assert len(pairs) == 6
    assert pairs.noisy.shape == (6, 2, 32, 32)
    assert pairs.target.shape == (6, 32, 32)
    assert pairs.dose.shape == pairs.noise.shape == (6, 2)
    # Line integrals of 1 to 2.2 over at most 32 pixels, in 1/pixel.
    assert 0.02 < pairs.contrast.min() < pairs.contrast.max() < 0.4


def test_less_dose_is_more_noise_around_the_same_target():
    recipe = RECIPE.model_copy(update={"doses": (1.0, 0.25, 0.05), "realisations": 3})
    pairs = simulate_pairs(recipe)
    assert torch.equal(pairs.dose, torch.tensor([1.0, 0.25, 0.05]).expand(6, 3))
    error = (pairs.noisy - pairs.target[:, None])[..., 8:-8, 8:-8]
    deviation = error.square().mean((0, 2, 3)).sqrt()
    assert 1.7 < deviation[1] / deviation[0] < 2.6  # about sqrt(4)
    assert 1.7 < deviation[2] / deviation[1] < 3.2  # about sqrt(5), and the dark current
    assert error.mean((0, 2, 3)).abs().max() < 0.2 * deviation.min()


def test_doses_are_drawn_from_their_range():
    dose = simulate_pairs(RECIPE).dose
    assert RECIPE.dose_range[0] <= dose.min() < dose.max() <= RECIPE.dose_range[1]
    assert len(dose.unique()) > 2


def test_same_recipe_same_pairs_other_seed_other_samples():
    assert same(simulate_pairs(RECIPE), simulate_pairs(RECIPE))
    other = simulate_pairs(RECIPE.model_copy(update={"seed": 2}))
    assert not torch.allclose(other.target, simulate_pairs(RECIPE).target)


def test_cache_gives_the_same_pairs(tmp_path, monkeypatch):
    first = load_or_simulate([RECIPE], tmp_path / "cache")[0]
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [f"pairs-{RECIPE.digest()}.npz"]
    monkeypatch.setattr("tomogan_bluesky.training.pairs.simulate_pairs", None)
    assert same(load_or_simulate([RECIPE], tmp_path / "cache")[0], first)


@pytest.mark.parametrize(
    "change", [{"seed": 5}, {"size": 48}, {"filter": "hann"}, {"doses": (1.0, 0.5)}]
)
def test_another_recipe_is_another_file(change):
    assert RECIPE.model_copy(update=change).digest() != RECIPE.digest()


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_validation_and_held_out_samples_are_never_trained_on(seed):
    recipes = training_scans(seed)
    assert validation_scans(seed).seed not in {recipe.seed for recipe in recipes}
    assert all(HELD_OUT_FAMILY not in r.families for r in (*recipes, validation_scans(seed)))


def test_refuses_other_doses_than_realisations():
    with pytest.raises(ConfigurationError, match="each of the 2 realisations"):
        simulate_pairs(RECIPE.model_copy(update={"doses": (1.0,)}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n, t, d: (n[:, :, 1:], t, d), "expected noisy"),
        (lambda n, t, d: (n, t, d[:1]), "expected noisy"),
        (lambda n, t, d: (n * np.nan, t, d), "finite"),
        (lambda n, t, d: (n, 0 * t, d), "empty"),
        (lambda n, t, d: (0 * n, t, d), "without noise"),
    ],
)
def test_refuses_pairs_that_teach_nothing(change, message):
    noisy, target, dose = torch.rand(2, 3, 16, 16), torch.rand(2, 16, 16), torch.ones(2, 3)
    Pairs.of(noisy, target, dose)
    with pytest.raises(ConfigurationError, match=message):
        Pairs.of(*change(noisy, target, dose))


def test_rows_of_a_volume_are_as_far_apart_as_columns(monkeypatch):
    """Samples are twice as fine as the detector, in height too."""
    drawn = []

    def drawing(family, size, rng, rows):
        drawn.append((size, rows))
        return make_volume(family, size, rng, rows)

    monkeypatch.setattr(pairs_module, "make_volume", drawing)
    recipe = SimulatedScans(size=32, n_angles=20, n_slices=14, families=("foam3d",))
    assert simulate_pairs(recipe).target.shape == (14, 32, 32)
    assert drawn == [(64, 24), (64, 4)]


def test_slices_of_a_volume_are_neighbours():
    recipe = SimulatedScans(size=96, n_angles=40, n_slices=14, families=("foam3d", "shale3d"))
    pairs = simulate_pairs(recipe)
    assert pairs.volume.tolist() == [0] * 12 + [1] * 2
    assert pairs.neighbours(11, 3) == [10, 11, 10]
    assert pairs.neighbours(12, 3) == [13, 12, 13]
    sample = pairs.target[:12]
    near, far = (float((sample[step:] - sample[:-step]).square().mean()) for step in (1, 11))
    assert near < 0.5 * far
    with pytest.raises(ValueError, match="got both"):
        SimulatedScans(size=32, n_angles=20, n_slices=4, families=("foam3d", "shale"))
