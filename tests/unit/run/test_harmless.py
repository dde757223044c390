"""Slices with hardly any noise are left as they are."""

import pytest
import torch
from generators import CALIBRATION, CARD

from tomogan_bluesky.recon.beam import Beam, simulate_scan
from tomogan_bluesky.recon.gridrec import Gridrec
from tomogan_bluesky.run.harmless import HarmlessDenoiser, denoised_share, suited
from tomogan_bluesky.training.metrics import field_of_view
from tomogan_bluesky.training.noise_profile import NoiseProfile, measure_noise, relative_noise
from tomogan_bluesky.training.pinned import PINNED_SETS, PinnedScans
from tomogan_bluesky.trust.noise import estimate_noise

PROFILE = NoiseProfile(gain=1, read_noise=3, flat_electrons=5e4, flat_pattern=0, blur_px=0)


class Doubling:
    """Makes of each slice its double."""

    sha256 = "0" * 64

    def __init__(self, **card):
        self.card = CARD.model_copy(update=card)
        self.calls = 0

    def __call__(self, slices, context=(0, 0)):
        self.calls += 1
        return 2 * slices[context[0] : len(slices) - context[1]]


@pytest.mark.parametrize(("share", "factor"), [(0.0, 1.0), (0.25, 1.25), (1.0, 2.0)])
def test_a_share_is_denoised(share, factor):
    slices = torch.rand(5, 8, 8)
    denoiser = HarmlessDenoiser(Doubling(), share)
    torch.testing.assert_close(denoiser(slices), factor * slices)
    torch.testing.assert_close(denoiser(slices, (1, 2)), factor * slices[1:3])


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_what_is_uncertain_is_what_is_published(share):
    """As far as slices are as they were given, it is their noise."""
    both = {"outputs": ("denoised", "uncertainty"), "calibration": CALIBRATION}

    class Sure(Doubling):
        def with_uncertainty(self, slices, context=(0, 0)):
            denoised = self(slices, context)
            return denoised, torch.full_like(denoised, 0.3)

    slices = 1 + 0.4 * torch.randn(5, 32, 32)
    slices[2:] /= 10  # less noise and less matter: the same noise for its contrast
    denoised, uncertainty = HarmlessDenoiser(Sure(**both), share).with_uncertainty(slices, (1, 1))
    torch.testing.assert_close(denoised, (1 + share) * slices[1:4])
    for slice_, found in zip(slices[1:4], uncertainty, strict=True):
        noise = float(estimate_noise(slice_[None]))
        expected = share * 0.3 + (1 - share) * 2.5 * noise
        torch.testing.assert_close(found, torch.full_like(slice_, expected))


def test_the_share_falls_from_the_least_noise_on():
    denoiser = Doubling(least_noise=0.02)
    shares = [denoised_share(denoiser, noise) for noise in (1.0, 0.02, 0.015, 0.01, 0.001)]
    assert shares == pytest.approx([1, 1, 0.5, 0, 0])
    assert denoised_share(Doubling(), 1e-9) == 1  # a card that does not say


def test_the_relative_noise_of_slices_is_in_proportion():
    """What is told from the photons is what slices have, for a family of samples."""

    def measured(size, dose):
        recipe = PINNED_SETS["256"].model_copy(
            update={"size": size, "n_angles": 3 * size // 2, "families": ("foam",)}
        )
        scans = PinnedScans(recipe, 1)
        make = Gridrec(scans.geometry)
        clean = make(scans.clean())[0]
        error = (make(scans.measured(dose))[0] - clean)[torch.from_numpy(field_of_view(size))]
        return float(error.std() / clean.quantile(0.99)), recipe.relative_noise(dose)

    ratios = [a / b for a, b in (measured(64, 1.0), measured(64, 0.25), measured(128, 1.0))]
    assert max(ratios) / min(ratios) < 1.4
    assert relative_noise(256, 4e4, 400) == 2 * relative_noise(256, 1.6e5, 400)
    assert relative_noise(128, 4 * 4e4, 400) == pytest.approx(relative_noise(512, 4e4, 400) / 8)


def test_the_photons_are_those_of_the_flats():
    beam = Beam(dose=0.5, seed=1)
    scan = simulate_scan("foam", 64, 12, beam, rows=8, n_references=12)
    profile = measure_noise(scan.flats, scan.darks)
    assert profile.flat_electrons == pytest.approx(beam.photons * 0.5, rel=0.1)


def test_what_is_said_of_a_scan_with_many_photons():
    noise = relative_noise(256, PROFILE.flat_electrons, 400)
    denoiser, remarks = suited(Doubling(least_noise=noise / 0.75), PROFILE, 256, 400)
    slices = torch.rand(1, 8, 8)
    torch.testing.assert_close(denoiser(slices), 1.5 * slices)
    (remark,) = remarks
    assert "50% denoised and 50% as reconstructed" in remark
    same = Doubling(least_noise=noise / 2, detector=PROFILE.model_dump())
    assert suited(same, PROFILE, 256, 400) == (same, [])
    other = PROFILE.model_copy(update={"gain": 3.0})
    denoiser, remarks = suited(same, other, 256, 400)
    assert denoiser is same
    assert "another detector: gain 3 counts" in remarks[0]
