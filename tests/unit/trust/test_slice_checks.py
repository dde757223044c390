"""Each check fires on what it is there for, and is silent where all is as it should be."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from generators import CARD
from scipy import ndimage

from tomogan_bluesky.config import DEFAULT_MODEL, ReconstructionConfig, Settings
from tomogan_bluesky.denoise.denoiser import TorchScriptDenoiser
from tomogan_bluesky.denoise.refiltered import FilterChange
from tomogan_bluesky.models.generator import build_generator
from tomogan_bluesky.pipeline.checks import Measured, SliceChecks, evenly, measure
from tomogan_bluesky.recon.gridrec import Gridrec
from tomogan_bluesky.run.checking import slice_checks
from tomogan_bluesky.training.pairs import SimulatedScans, simulate_pairs
from tomogan_bluesky.training.pinned import PINNED_SETS, PinnedScans
from tomogan_bluesky.trust.consistency import Photons
from tomogan_bluesky.trust.familiarity import TRAITS, Familiarity, traits

DOSE, ANGLES = 0.25, 48


@dataclass
class Case:
    clean: torch.Tensor
    reconstruction: torch.Tensor
    denoised: torch.Tensor
    measured: Measured


@pytest.fixture(scope="module")
def case():
    """One slice of three families, the shipped model, and some of the projections."""
    recipe = PINNED_SETS["256"]
    recipe = recipe.model_copy(
        update={"size": 128, "n_angles": 201, "families": recipe.families[:3]}
    )
    scans = PinnedScans(recipe, 1)
    make = Gridrec(scans.geometry)
    sinograms = scans.measured(DOSE)
    slices = make(sinograms)
    denoiser = TorchScriptDenoiser(DEFAULT_MODEL)
    denoised = torch.cat([denoiser(s[None]) for s in slices])
    measured = measure(
        lambda angles, rows: sinograms[rows, angles].numpy(),
        lambda frames, row, angles: torch.from_numpy(frames)[0],
        lambda row: (row, row + 1),
        scans.geometry,
        Photons(recipe.photons * DOSE, 0.0, recipe.n_references),
        range(len(slices)),
    )
    return Case(make(scans.clean()), slices, denoised, measured)


def checked(case, denoised, reconstruction=None, card=CARD):
    checks = SliceChecks(card, range(len(denoised)), case.measured)
    before = case.reconstruction if reconstruction is None else reconstruction
    numbers = checks.slab(range(len(denoised)), before, denoised)
    return checks, {name: np.array(values) for name, values in numbers.items()}


def test_good_slices_pass(case):
    for good in (case.denoised, case.clean):
        checks, numbers = checked(case, good)
        assert checks.remarks() == []
        assert set(numbers) == {"chi2_reconstruction", "chi2_denoised", "strangest_spot"}
        assert (np.abs(numbers["chi2_denoised"] - 1) < 0.35).all()
        assert (numbers["chi2_reconstruction"] < numbers["chi2_denoised"]).all()
    # Without noise chi² is that of the noise alone, and a little for pixels that are no points.
    assert np.median(numbers["chi2_denoised"]) == pytest.approx(1.05, abs=0.15)


def test_a_slice_that_was_blurred_is_found(case):
    blurred = torch.from_numpy(ndimage.gaussian_filter(case.denoised.numpy(), (0, 1.5, 1.5)))
    checks, _ = checked(case, blurred)
    assert any("contradict their projections" in remark for remark in checks.remarks())


def test_a_slice_that_was_scaled_is_found(case):
    checks, _ = checked(case, 1.04 * case.denoised)
    assert "contradict their projections" in checks.remarks()[0]


def test_a_disc_that_was_made_up_is_found(case):
    """Of 2 pixels and a fifth of the contrast: chi² can't see it, and the spot stands out."""
    y, x = np.mgrid[:128, :128]
    disc = torch.from_numpy(np.hypot(y - 70, x - 58) <= 2).float()
    contrast = torch.stack([s.quantile(0.99) for s in case.clean.flatten(1)])
    checks, numbers = checked(case, case.denoised + 0.2 * contrast[:, None, None] * disc)
    assert (numbers["strangest_spot"] > 15).all()
    assert ["made up" in remark for remark in checks.remarks()] == [True]
    removed, _ = checked(case, case.denoised - 0.2 * contrast[:, None, None] * disc)
    assert "removed" in removed.remarks()[0]


def test_a_wrong_model_is_found(case):
    torch.manual_seed(0)
    wrong = build_generator("tomogan3").eval()
    with torch.no_grad():
        slices = torch.cat([wrong(s[None, None], torch.tensor([1e-3]))[0] for s in case.denoised])
    checks, _ = checked(case, slices)
    assert "contradict their projections" in checks.remarks()[0]


def test_slices_of_another_kind_are_found(case):
    """Smoothed, white noise, darker: nothing of that is what was learned from."""
    recipe = SimulatedScans(size=128, n_angles=201, n_slices=40, realisations=2, seed=5)
    seen = [traits(s) for s in simulate_pairs(recipe, progress=False).noisy.flatten(0, 1)]
    card = CARD.model_copy(update={"familiarity": Familiarity.of(seen)})
    checks, numbers = checked(case, case.denoised, card=card)
    assert (numbers["strangeness"] < card.familiarity.limit).all()
    assert checks.remarks() == []
    noise = torch.randn(case.clean.shape, generator=torch.Generator().manual_seed(0))
    level = 0.1 * case.clean.amax((1, 2), keepdim=True)
    strange = {
        "smooth": torch.from_numpy(ndimage.gaussian_filter(case.reconstruction.numpy(), (0, 1, 1))),
        "white": case.clean + level * noise,
        "no matter": level * noise,
    }
    for name, slices in strange.items():
        checks, numbers = checked(case, slices, slices, card)
        assert (numbers["strangeness"] > card.familiarity.limit).all(), name
        assert "are unlike those that model 'untrained' knows" in checks.remarks()[-1]
        assert any(trait in checks.remarks()[-1] for trait in (*TRAITS, "nothing but noise"))


def test_slices_of_a_smoother_filter_are_looked_at_as_the_model_knows_them(case):
    """As a run with such a filter is checked: those of hann are no other kind."""
    card = TorchScriptDenoiser(DEFAULT_MODEL).card
    settings = Settings(reconstruction=ReconstructionConfig(filter="hann"))
    checks = slice_checks(settings, card, None, None, None, (0, len(case.reconstruction)))
    smooth = FilterChange("hann", "ramlak").as_here(case.reconstruction)
    checks.slab(range(len(smooth)), smooth, smooth)
    assert checks.worst()["strangeness"] < card.familiarity.limit
    unaware = SliceChecks(card, checks.rows)
    unaware.slab(range(len(smooth)), smooth, smooth)
    assert unaware.worst()["strangeness"] > card.familiarity.limit


def test_traits_have_no_units(case):
    one, two = traits(case.reconstruction[0]), traits(1000 * case.reconstruction[0])
    np.testing.assert_allclose(one, two, rtol=1e-4)
    assert len(one) == len(TRAITS)
    assert not np.isfinite(traits(torch.zeros(64, 64))).all()


def test_what_is_not_checked_or_not_known_is_not_a_number(case):
    checks = SliceChecks(CARD, [1])
    numbers = checks.slab(range(3), case.reconstruction, case.denoised)
    assert np.isfinite(numbers["strangest_spot"]).tolist() == [False, True, False]
    assert list(numbers) == list(checks.worst()) == ["strangest_spot"]
    failed = torch.full_like(case.denoised, float("nan"))
    assert np.isnan(checks.slab(range(3), case.reconstruction, failed)["strangest_spot"]).all()


def test_rows_are_spread_over_all():
    assert evenly(10, 14, 99) == [10, 11, 12, 13]
    assert evenly(0, 100, 4) == [12, 37, 62, 87]
