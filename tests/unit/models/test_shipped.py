"""What the shipped model promises, on a family of samples that it was never trained on."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import ndimage

from tomogan_bluesky.config import DEFAULT_MODEL, ReconstructionConfig
from tomogan_bluesky.denoise.denoiser import TorchScriptDenoiser, check_reconstruction
from tomogan_bluesky.recon.beam import Beam, simulate_scan
from tomogan_bluesky.recon.flatfield import attenuation, transmission
from tomogan_bluesky.recon.gridrec import Gridrec
from tomogan_bluesky.recon.phantoms import HELD_OUT_FAMILY
from tomogan_bluesky.training.metrics import edge_f1, psnr, ssim


@dataclass
class Case:
    truth: np.ndarray
    reconstruction: np.ndarray
    denoised: np.ndarray


def case(dose, seed, rows=3):
    """The middle one of some adjacent slices."""
    beam = Beam(dose=dose, seed=seed)
    scan = simulate_scan(HELD_OUT_FAMILY, 256, 361, beam, seed=seed, rows=rows)
    dark, flat = (torch.from_numpy(f.mean(0, dtype=np.float32)) for f in (scan.darks, scan.flats))
    frames = torch.from_numpy(np.ascontiguousarray(scan.projections.transpose(1, 0, 2)))
    sinograms, _ = attenuation(transmission(frames, dark, flat), 1e-6)
    slices = Gridrec(scan.geometry)(sinograms)
    denoised = TorchScriptDenoiser(DEFAULT_MODEL)(slices)
    return Case(*(np.asarray(volume[rows // 2]) for volume in (scan.truth, slices, denoised)))


# Floors below what was measured here: 4.31 dB over the reconstruction and 1.47 over filters at
# least; in a scan of one row, whose slice has no neighbours, 4.02 and 1.22.
@pytest.mark.parametrize("seed", [101, 102, 103])
@pytest.mark.parametrize(("rows", "decibels"), [(3, 1.4), (1, 1.1)])
def test_quarter_dose_beats_the_reconstruction_and_classical_filters(seed, rows, decibels):
    low = case(0.25, seed, rows)
    filtered = [
        *(ndimage.gaussian_filter(low.reconstruction, s) for s in (0.5, 0.75, 1.0, 1.25, 1.5)),
        *(ndimage.median_filter(low.reconstruction, n) for n in (3, 5)),
    ]
    for score, over_reconstruction, over_filters in (
        (psnr, 3.5, decibels),
        (ssim, 0.04, 0.015),
        (edge_f1, 0.02, 0.05),
    ):
        before, after = (score(a, low.truth) for a in (low.reconstruction, low.denoised))
        assert after > before + over_reconstruction
        assert after > max(score(f, low.truth) for f in filtered) + over_filters


@pytest.mark.parametrize("seed", [101, 102, 103])
def test_full_dose_is_not_harmed(seed):
    full = case(1.0, seed)
    for score in (psnr, ssim, edge_f1):
        assert score(full.denoised, full.truth) >= score(full.reconstruction, full.truth)


def test_mass_is_kept():
    """The mean attenuation of the sample is a measurement: denoising must not change it."""
    low = case(0.25, 101)
    assert low.denoised.sum() == pytest.approx(low.reconstruction.sum(), rel=0.005)


def test_it_was_trained_on_what_the_default_reconstruction_makes():
    card = TorchScriptDenoiser(DEFAULT_MODEL).card
    assert check_reconstruction(card, ReconstructionConfig()) is None
    assert "battery" not in card.model_dump_json()
    assert card.training_command.startswith("tomogan-bluesky train --simulated --steps ")
