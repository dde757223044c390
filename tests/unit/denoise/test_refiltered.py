"""Slices of a smoother filter than a model has learned from."""

import numpy as np
import pytest
import torch
from generators import CARD

from tomogan_bluesky.config import DEFAULT_MODEL, ReconstructionConfig
from tomogan_bluesky.denoise.denoiser import TorchScriptDenoiser, check_reconstruction
from tomogan_bluesky.denoise.refiltered import FilterChange, RefilteredDenoiser, refiltered
from tomogan_bluesky.recon.gridrec import Gridrec
from tomogan_bluesky.training.metrics import field_of_view, psnr
from tomogan_bluesky.training.pinned import PINNED_SETS, PinnedScans
from tomogan_bluesky.trust.familiarity import traits

SMOOTH = ("shepp", "cosine", "hann", "hamming", "parzen", "butterworth")
N = 192


@pytest.fixture(scope="module")
def scan():
    """Geometry, sinograms at a quarter of the dose, and sinograms without noise."""
    families = ("shale", "fibres")
    recipe = {"size": N, "n_angles": 300, "photons": 4e4, "families": families}
    scans = PinnedScans(PINNED_SETS["256"].model_copy(update=recipe), 1)
    return scans.geometry, scans.measured(0.25), scans.clean()


class Idle:
    """A denoiser that returns what it is given."""

    card = CARD
    sha256 = "idle"

    def __call__(self, slices):
        return slices.clone()


def inside(image):
    return np.asarray(image)[..., field_of_view(N)]


def apart(image, other):
    return np.linalg.norm(inside(image) - inside(other)) / np.linalg.norm(inside(other))


@pytest.mark.parametrize("name", SMOOTH)
def test_slices_of_one_filter_become_those_of_the_other(scan, name):
    geometry, sinograms, _ = scan
    change = FilterChange(name, "ramlak")
    sharp, smooth = (Gridrec(geometry, filter)(sinograms) for filter in ("ramlak", name))
    assert apart(smooth, sharp) > 0.02
    # Slices end at their borders, and a window sees them repeated there: parzen's has long tails.
    assert apart(change.as_here(sharp), smooth) < (0.01 if name == "parzen" else 3e-3)
    # What is gone next to the highest frequency can't come back: it is noise for the most part.
    assert apart(change.as_learned(smooth), sharp) < (0.3 if name == "parzen" else 0.08)


def test_a_window_that_ends_at_zero_is_divided_by(scan):
    """A model of hann knows nothing of the highest frequency; parzen's has nothing there either."""
    geometry, sinograms, _ = scan
    change = FilterChange("parzen", "hann")
    hann, parzen = (Gridrec(geometry, filter)(sinograms) for filter in ("hann", "parzen"))
    assert apart(change.as_here(hann), parzen) < 0.01
    assert torch.isfinite(change.as_here(hann)).all()
    assert apart(change.as_learned(parzen), hann) < 0.05


@pytest.mark.parametrize("name", SMOOTH)
def test_what_a_denoiser_leaves_alone_stays(scan, name):
    geometry, sinograms, _ = scan
    slices = Gridrec(geometry, name)(sinograms)
    left = refiltered(Idle(), ReconstructionConfig(filter=name))(slices)
    assert left.dtype == torch.float32
    assert apart(left, slices) < 3e-3


def test_a_slice_does_not_depend_on_those_beside_it(scan):
    change = FilterChange("hann", "ramlak")
    slices = Gridrec(scan[0])(scan[1])
    for way in (change.as_here, change.as_learned):
        together = way(slices)
        assert torch.equal(together, torch.cat([way(s[None]) for s in slices]))


def test_none_is_needed_or_there_is_none():
    for same in ({}, {"filter": "none"}, {"method": "fbp", "filter": "hann"}, {"method": "sirt"}):
        assert FilterChange.between(CARD, ReconstructionConfig(**same)) is None
    smooth = CARD.reconstruction.model_copy(update={"filter": "hann"})
    card = CARD.model_copy(update={"reconstruction": smooth})
    # What the window of the training has taken away, the network does not know.
    assert FilterChange.between(card, ReconstructionConfig(filter="ramlak")) is None
    assert FilterChange.between(card, ReconstructionConfig(filter="parzen")) is not None
    assert "expect worse" in check_reconstruction(card, ReconstructionConfig(filter="ramlak"))
    idle = Idle()
    assert refiltered(idle, ReconstructionConfig()) is idle


@pytest.mark.parametrize(("name", "decibels"), [("shepp", 0.2), ("hann", 1.5), ("parzen", 0.8)])
def test_the_shipped_model_gains_with_every_filter(scan, name, decibels):
    """Over the same slices denoised as if they were those that it knows; floors below what was
    measured: see docs/reference/performance.md."""
    geometry, sinograms, clean = scan
    model, gridrec = TorchScriptDenoiser(DEFAULT_MODEL), Gridrec(geometry, name)
    slices, truth = gridrec(sinograms), gridrec(clean).numpy()
    denoiser = refiltered(model, ReconstructionConfig(filter=name))
    assert isinstance(denoiser, RefilteredDenoiser)
    each = slices.split(1)  # they are no neighbours
    denoised, half_width = map(torch.cat, zip(*map(denoiser.with_uncertainty, each), strict=True))
    assert torch.equal(denoised[:1], denoiser(each[0]))
    unaware = torch.cat([*map(model, each)])
    known, unknown = (
        np.mean([psnr(a, b) for a, b in zip(made.numpy(), truth, strict=True)])
        for made in (denoised, unaware)
    )
    assert known > unknown + decibels
    # At least as many errors are within the half-widths as the card promises.
    held = np.abs(denoised.numpy() - truth) <= half_width.numpy()
    assert inside(held).mean() > model.card.calibration.coverage
    # And the slices are those that the model was calibrated with.
    seen = FilterChange(name, "ramlak").as_learned(slices)
    familiar = model.card.familiarity
    assert all(familiar.strangeness(traits(s)) < familiar.limit for s in seen)
