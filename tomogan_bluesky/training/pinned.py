"""The test sets by which models are judged: pinned by their recipe, never trained on.

Enters: a recipe by name. Leave: slices at several doses with what they should have been. Nobody
needs to keep the pixels: the recipe makes the same ones again on any machine, to the rounding of
its arithmetic.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..config import FilterName
from ..errors import ConfigurationError
from ..geometry import ScanGeometry
from ..recon.beam import Beam
from ..recon.flatfield import attenuation, transmission
from ..recon.gridrec import Gridrec
from .pinned_recipes import PINNED_SETS, PinnedSet

__all__ = ["DOSES", "PINNED_SETS", "PinnedScans", "PinnedSet", "PinnedSlices", "pinned_slices"]

logger = logging.getLogger(__name__)

DOSES = (16.0, 4.0, 1.0, 0.5, 0.25, 0.1, 0.05)
"""Of each set: two above the full dose, at which a model must do no harm."""

# Streams of random numbers that no recipe of the training draws from.
_SAMPLES, _NOISE, _RINGS = 71, 72, 73
_REFERENCE = 0.0  # stands for the second scan at full dose among the seeds of the noise
_MINIMUM_TRANSMISSION = 1e-6


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
    adjacent : bool
        Whether the slices of a family are neighbours in one sample.
    margin : int
        Slices at both ends of each sample that are there as neighbours, and not scored.
    """

    families: tuple[str, ...]
    clean: np.ndarray
    full_dose: np.ndarray
    noisy: Mapping[float, np.ndarray]
    adjacent: bool = False
    margin: int = 0

    def __len__(self) -> int:
        return len(self.families)

    def samples(self) -> list[slice]:
        """What is to be denoised at once: the slices of a sample where they are neighbours, else
        each by itself."""
        if not self.adjacent:
            return [slice(i, i + 1) for i in range(len(self))]
        first = [i for i, f in enumerate(self.families) if i == 0 or f != self.families[i - 1]]
        return [slice(*ends) for ends in zip(first, [*first[1:], len(self)], strict=True)]

    def scored(self) -> list[slice]:
        """The samples without their margins."""
        return [slice(s.start + self.margin, s.stop - self.margin) for s in self.samples()]


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
            self._integrals.append(recipe.integrals(family, self.geometry, rng)[:rows])

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
    filter: FilterName | None = None,
) -> PinnedSlices:
    """The slices of a test set.

    Parameters
    ----------
    name : str
        One of `PINNED_SETS`.
    doses : tuple of float
        As fractions of the full dose.
    slices_a_family : int, optional
        Only the first that are scored of each family, for a quick look.
    cache : path, optional
        Folder that keeps slices between programs.
    filter : str, optional
        Of the reconstruction; None: that of the recipe.

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
    if filter is not None:
        recipe = recipe.model_copy(update={"filter": filter})
    rows = recipe.slices_a_family
    if slices_a_family is not None:
        rows = min(slices_a_family + 2 * recipe.margin, rows)
    families = tuple(family for family in recipe.families for _ in range(rows))
    source = _Source(recipe, rows, cache)
    noisy = {dose: source.get(f"dose-{dose:g}", dose) for dose in doses}
    clean, full = source.get("clean", None), source.get("full", 0.0)
    return PinnedSlices(families, clean, full, noisy, recipe.adjacent, recipe.margin)


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
