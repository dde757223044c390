"""The test sets by which models are judged: pinned by their recipe, never trained on.

Enters: a recipe by name. Leave: slices at several doses with what they should have been. The sets
``512`` and ``256`` show the five families of the training, ``512-foreign`` and ``256-foreign`` what
no model has seen: a sixth family, rings, blur and a drifting beam. Nobody needs to keep the pixels:
the recipe makes the same ones again on any machine, to the rounding of its arithmetic.
"""

import hashlib
import json
import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from ..config import FilterName
from ..errors import ConfigurationError
from ..geometry import ScanGeometry
from ..recon.beam import Beam, line_integrals
from ..recon.flatfield import attenuation, transmission
from ..recon.gridrec import Gridrec
from ..recon.phantoms import HELD_OUT_FAMILY, TRAINING_FAMILIES, make_phantom

logger = logging.getLogger(__name__)

DOSES = (16.0, 4.0, 1.0, 0.5, 0.25, 0.1, 0.05)
"""Of each set: two above the full dose, at which a model must do no harm."""

# Streams of random numbers that no recipe of the training draws from.
_SAMPLES, _NOISE, _RINGS = 71, 72, 73
_REFERENCE = 0.0  # stands for the second scan at full dose among the seeds of the noise
_MINIMUM_TRANSMISSION = 1e-6


class PinnedSet(BaseModel):
    """A recipe: slices of some families, scanned at several doses."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    size: int
    """Columns of the detector."""
    n_angles: int
    photons: float
    """Photons a pixel and projection of the open beam at full dose."""
    families: tuple[str, ...] = TRAINING_FAMILIES
    slices_a_family: int = 3
    largest: float = 2.0
    """The largest line integral of each family."""
    filter: FilterName = "ramlak"
    n_references: int = 20
    """Darks and flats of each scan, with the exposure of its projections."""
    ring_gain: float = 0.0
    """Standard deviation of what a pixel gains between the flats and the projections."""
    blur_px: float = 0.0
    """Standard deviation of the detector's blur, in pixels."""
    drift: float = 0.0
    """Share of its intensity that the beam loses from the first to the last projection."""
    seed: int = 2026

    @property
    def adjacent(self) -> bool:
        """Whether its slices are neighbours in one sample."""
        return self.families == (HELD_OUT_FAMILY,)

    def relative_noise(self, dose: float) -> float:
        """See `harmless.relative_noise`."""
        return self.size / math.sqrt(self.photons * dose * self.n_angles)

    def digest(self) -> str:
        """Hexadecimal sha256 of the recipe."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


_FOREIGN: Mapping[str, Any] = {
    "families": (HELD_OUT_FAMILY,),
    "slices_a_family": 12,
    "ring_gain": 0.001,
    "blur_px": 0.6,
    "drift": 0.02,
}

PINNED_SETS: Mapping[str, PinnedSet] = {
    "512": PinnedSet(size=512, n_angles=804, photons=1.1e5),
    "256": PinnedSet(size=256, n_angles=402, photons=5.5e4),
    "512-foreign": PinnedSet(size=512, n_angles=804, photons=1.1e5, **_FOREIGN),
    "256-foreign": PinnedSet(size=256, n_angles=402, photons=5.5e4, **_FOREIGN),
}


@dataclass(frozen=True, eq=False)
class PinnedSlices:
    """The slices of a test set. All arrays are float32, in 1/pixel.

    Attributes
    ----------
    families : tuple of str
        Of each slice.
    clean : array, shape (slice, y, x)
        Reconstruction without noise, rings and drift. It is as blurred as the scans: to undo that
        is not a denoiser's task.
    full_dose : array, shape (slice, y, x)
        A second scan at full dose, whose noise is that of no other: the best reference that an
        experiment can have.
    noisy : dict of float to array, shape (slice, y, x)
        By dose.
    """

    families: tuple[str, ...]
    clean: np.ndarray
    full_dose: np.ndarray
    noisy: Mapping[float, np.ndarray]

    def __len__(self) -> int:
        return len(self.families)


class PinnedScans:
    """The scans of a pinned set, drawn once; each dose of them is measured when it is asked for.

    Parameters
    ----------
    recipe : PinnedSet
    slices_a_family : int, optional
        Only the first of each family, for a quick look.
    """

    def __init__(self, recipe: PinnedSet, slices_a_family: int | None = None) -> None:
        self._recipe = recipe
        rows = min(slices_a_family or recipe.slices_a_family, recipe.slices_a_family)
        theta = np.arange(recipe.n_angles) * (np.pi / recipe.n_angles)
        self.geometry = ScanGeometry(theta, (recipe.size - 1) / 2 + 1.5, recipe.size)
        self.families = tuple(family for family in recipe.families for _ in range(rows))
        self._integrals = []
        for i, family in enumerate(recipe.families):
            rng = np.random.default_rng([recipe.seed, _SAMPLES, i])
            # All slices of a family are drawn, and the first ones kept: they are the same then.
            phantom = make_phantom(family, 2 * recipe.size, rng, recipe.slices_a_family)
            integrals, _ = line_integrals(phantom, self.geometry, recipe.largest)
            self._integrals.append(integrals[:rows])

    def clean(self) -> torch.Tensor:
        """Sinograms without noise, rings and drift, as blurred as all: (slice, angle, column)."""
        return torch.from_numpy(-np.log(self._intensity(np.concatenate(self._integrals)))).float()

    def _intensity(self, integrals: np.ndarray) -> np.ndarray:
        """Share of the beam that a detector without noise would see: float64."""
        intensity = np.exp(-integrals.astype(np.float64))
        return _blurred(intensity, self._recipe.blur_px) if self._recipe.blur_px else intensity

    def measured(self, dose: float) -> torch.Tensor:
        """Sinograms as measured at a dose, corrected: (slice, angle, column)."""
        return self._all(dose, dose)

    def second_full_dose(self) -> torch.Tensor:
        """Sinograms of another scan at full dose: (slice, angle, column)."""
        return self._all(1.0, _REFERENCE)

    def _all(self, dose: float, key: float) -> torch.Tensor:
        slices = [
            self._measured(integrals[None], dose, (family, row, round(1000 * key)))
            for family, rows in enumerate(self._integrals)
            for row, integrals in enumerate(rows)
        ]
        return torch.cat(slices)

    def _measured(
        self, integrals: np.ndarray, dose: float, key: tuple[int, int, int]
    ) -> torch.Tensor:
        recipe = self._recipe
        beam = Beam(recipe.photons, dose, seed=recipe.seed)
        noise = np.random.default_rng([recipe.seed, _NOISE, *key])
        rows, n_angles, size = integrals.shape
        profile = beam.profile((rows, size))[:, None]
        rings = np.random.default_rng([recipe.seed, _RINGS, *key[:2]])
        gain = rings.normal(1, recipe.ring_gain, size)
        fade = 1 - recipe.drift * np.linspace(0, 1, n_angles)[:, None]
        frames = _counts(beam, self._intensity(integrals) * profile * gain * fade, noise)
        shape = (recipe.n_references, rows, size)
        flats = _counts(beam, np.broadcast_to(profile[:, 0], shape), noise)
        darks = _counts(beam, np.zeros(shape), noise)
        dark, flat = (torch.from_numpy(f.mean(0, dtype=np.float32)) for f in (darks, flats))
        corrected = transmission(torch.from_numpy(frames), dark, flat)
        return attenuation(corrected, _MINIMUM_TRANSMISSION)[0]


def _blurred(lines: np.ndarray, sigma_px: float) -> np.ndarray:
    """Convolved with a Gaussian along the last axis, borders replicated."""
    half = int(np.ceil(4 * sigma_px))
    kernel = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * sigma_px**2))
    padded = np.pad(lines, [(0, 0)] * (lines.ndim - 1) + [(half, half)], mode="edge")
    shifted = (padded[..., i : i + lines.shape[-1]] for i in range(2 * half + 1))
    result: np.ndarray = sum(
        (w * s for w, s in zip(kernel / kernel.sum(), shifted, strict=True)), np.zeros_like(lines)
    )
    return result


def _counts(beam: Beam, intensity: np.ndarray, noise: np.random.Generator) -> np.ndarray:
    """Frames as `Beam.counts` has them, with Poisson's law by its quantiles.

    A sampler that rejects would turn a rounding difference between two machines into other noise
    from there on. So the electrons are the expansion of Cornish and Fisher at a normal variable,
    ``m + sqrt(m) z + (z² - 1)/6``, whose error is far below one electron for the hundreds that
    there are, and which changes by one where the rounding differs.
    """
    mean = beam.photons * beam.dose * intensity + beam.dark
    z = noise.standard_normal(intensity.shape)
    electrons = np.rint(mean + np.sqrt(mean) * z + (z**2 - 1) / 6)
    readout = noise.normal(0.0, beam.electronic, intensity.shape)
    return np.clip(np.rint(beam.gain * (electrons + readout)), 0, 65535).astype(np.uint16)


def pinned_slices(
    name: str,
    doses: tuple[float, ...] = DOSES,
    slices_a_family: int | None = None,
    cache: Path | None = None,
) -> PinnedSlices:
    """The slices of a test set.

    Parameters
    ----------
    name : str
        One of `PINNED_SETS`.
    doses : tuple of float
        As fractions of the full dose.
    slices_a_family : int, optional
        Only the first of each family, for a quick look.
    cache : path, optional
        Folder that keeps slices between programs.

    Raises
    ------
    ConfigurationError
        No such set, or a dose that is not positive.
    """
    if name not in PINNED_SETS:
        raise ConfigurationError(
            f"pinned set: expected one of {', '.join(PINNED_SETS)}; got {name!r}"
        )
    if not doses or min(doses) <= 0:
        raise ConfigurationError(f"doses: expected positive fractions of the full one, got {doses}")
    recipe = PINNED_SETS[name]
    rows = min(slices_a_family or recipe.slices_a_family, recipe.slices_a_family)
    families = tuple(family for family in recipe.families for _ in range(rows))
    source = _Source(recipe, rows, cache)
    noisy = {dose: source.get(f"dose-{dose:g}", dose) for dose in doses}
    return PinnedSlices(families, source.get("clean", None), source.get("full", 0.0), noisy)


class _Source:
    """Slices from the cache, or else measured and reconstructed."""

    def __init__(self, recipe: PinnedSet, rows: int, cache: Path | None) -> None:
        self._recipe, self._rows, self._cache = recipe, rows, cache
        self._scans: PinnedScans | None = None

    def get(self, name: str, dose: float | None) -> np.ndarray:
        """One stack; a dose of None stands for no noise, one of 0 for the second full dose."""
        path = None
        if self._cache is not None:
            key = f"pinned-{self._recipe.digest()[:16]}-{self._rows}-{name}.npy"
            path = self._cache / key
            if path.exists():
                return np.load(path)
        if self._scans is None:
            logger.info("drawing the samples of %d columns", self._recipe.size)
            self._scans = PinnedScans(self._recipe, self._rows)
        scans = self._scans
        if dose is None:
            sinograms = scans.clean()
        else:
            sinograms = scans.measured(dose) if dose else scans.second_full_dose()
        slices: np.ndarray = Gridrec(scans.geometry, self._recipe.filter)(sinograms).numpy()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(f".{os.getpid()}.npy")
            np.save(partial, slices)
            partial.replace(path)
        return slices
