"""What a network learns from: noisy slices and what they should have been.

Enters: a recipe for simulated scans. Leaves: `Pairs`, reconstructed by the same code as real
scans. Families, samples and noise are drawn from seeds; the held-out family is never among them.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, model_validator
from tqdm import tqdm

from ..config import FilterName
from ..denoise.windows import window_indices
from ..errors import ConfigurationError
from ..geometry import ScanGeometry
from ..recon.beam import Beam, line_integrals, volume_line_integrals
from ..recon.flatfield import attenuation, transmission
from ..recon.gridrec import Gridrec
from ..recon.phantoms import TRAINING_FAMILIES, make_phantom
from ..recon.volumes import VOLUME_FAMILIES, make_volume
from ..trust.noise import estimate_noise

logger = logging.getLogger(__name__)

_SLICES_A_SCAN = 4  # of one family and one geometry
_SLICES_A_VOLUME = 12  # enough to have slices with all of their neighbours
_MINIMUM_TRANSMISSION = 1e-6
_VERSION = 2  # grows when the same recipe makes other pairs: those of a cache are made anew then
_BRIGHT = 0.99  # the quantile of a target that stands for "dense matter"


@dataclass(frozen=True, eq=False)
class Pairs:
    """Slices of one size, each with one target and several noisy realisations.

    Attributes
    ----------
    noisy : torch.Tensor, float32, shape (slice, realisation, y, x)
        In 1/pixel.
    target : torch.Tensor, float32, shape (slice, y, x)
        In 1/pixel.
    dose : torch.Tensor, float32, shape (slice, realisation)
        Fraction of the full dose.
    noise : torch.Tensor, float32, shape (slice, realisation)
        Estimated standard deviation of the noise, in 1/pixel.
    contrast : torch.Tensor, float32, shape (slice,)
        Attenuation of dense matter in the target: what an error is large or small against.
    volume : torch.Tensor, int64, shape (slice,), or None
        Which volume each slice is of: adjacent slices of one volume are neighbours in the sample.
        None: no slice has neighbours.
    """

    noisy: torch.Tensor
    target: torch.Tensor
    dose: torch.Tensor
    noise: torch.Tensor
    contrast: torch.Tensor
    volume: torch.Tensor | None = None

    @classmethod
    def of(
        cls,
        noisy: torch.Tensor,
        target: torch.Tensor,
        dose: torch.Tensor,
        volume: torch.Tensor | None = None,
    ) -> Self:
        """Pairs from their images: the noise and the contrast are measured here.

        Raises
        ------
        ConfigurationError
            Shapes that do not belong together, values that are not finite, an empty target.
        """
        if noisy.ndim != 4 or noisy[:, 0].shape != target.shape or noisy.shape[:2] != dose.shape:
            raise ConfigurationError(
                "pairs: expected noisy (slice, realisation, y, x), target (slice, y, x) and dose "
                f"(slice, realisation); got {tuple(noisy.shape)}, {tuple(target.shape)} and "
                f"{tuple(dose.shape)}"
            )
        for kind, images in (("noisy", noisy), ("target", target)):
            bad = [i for i, image in enumerate(images) if not torch.isfinite(image).all()]
            if bad:
                raise ConfigurationError(
                    f"pairs: expected finite slices, but {len(bad)} of {len(images)} {kind} slices "
                    f"are not, the first of them slice {bad[0]}; find out where NaN comes from"
                )
        noise = torch.stack([estimate_noise(realisations) for realisations in noisy])
        contrast = torch.stack([t.abs().flatten().quantile(_BRIGHT) for t in target])
        if not ((contrast > 0).all() and (noise > 0).all()):
            raise ConfigurationError("pairs: a target is empty, or a noisy slice is without noise")
        return cls(noisy, target, dose, noise, contrast, volume)

    def __len__(self) -> int:
        return len(self.target)

    def neighbours(self, i: int, depth: int) -> list[int]:
        """The `depth` slices around slice i, within its volume, mirrored at the ends of it."""
        if self.volume is None:
            return [i] * depth
        there = torch.nonzero(self.volume == self.volume[i]).flatten().tolist()
        return [there[k] for k in window_indices(there.index(i), len(there), depth)]


class SimulatedScans(BaseModel):
    """A recipe: scans of one size, from random samples of the training families.

    Each realisation has fresh noise in projections, darks and flats, at a dose of its own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    """Columns of the detector."""
    n_angles: int
    n_slices: int
    realisations: int = 3
    doses: tuple[float, ...] | None = None
    """Dose of each realisation; None: random, uniform in its logarithm between `dose_range`."""
    dose_range: tuple[float, float] = (0.04, 5.0)
    families: tuple[str, ...] = TRAINING_FAMILIES
    """Those of `phantoms`, whose slices have no neighbours, or all of `volumes`, whose have."""
    filter: FilterName = "ramlak"
    seed: int = 0

    @model_validator(mode="after")
    def _flat_or_deep(self) -> Self:
        if 0 < len(set(self.families) & set(VOLUME_FAMILIES)) < len(set(self.families)):
            raise ValueError(f"families: expected flat ones or volumes, got both: {self.families}")
        return self

    @property
    def slices_a_scan(self) -> int:
        """Rows that are seen at once."""
        return _SLICES_A_VOLUME if self.families[0] in VOLUME_FAMILIES else _SLICES_A_SCAN

    def volumes(self) -> torch.Tensor | None:
        """Which volume each slice is of; None where slices have no neighbours."""
        if self.families[0] not in VOLUME_FAMILIES:
            return None
        return torch.arange(self.n_slices) // self.slices_a_scan

    def digest(self) -> str:
        """The same for the same recipe: names its file in the cache."""
        recipe = self.model_dump(mode="json") | {"version": _VERSION}
        text = json.dumps(recipe, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def training_scans(seed: int) -> tuple[SimulatedScans, ...]:
    """The recipes of the shipped model: mostly well sampled scans of small detectors, which train
    fast; some larger ones, and some with as few angles as hurried scans have."""
    shapes = ((256, 402, 400), (512, 804, 100), (192, 300, 100), (256, 181, 80))
    return tuple(
        SimulatedScans(size=size, n_angles=angles, n_slices=n, seed=1000 * seed + i)
        for i, (size, angles, n) in enumerate(shapes)
    )


def validation_scans(seed: int) -> SimulatedScans:
    """Samples of the training families that the training does not see, at doses 1, 1/4, 1/10."""
    return SimulatedScans(
        size=256,
        n_angles=402,
        n_slices=20,
        realisations=3,
        doses=(1.0, 0.25, 0.1),
        seed=1000 * seed + 999,
    )


def full_dose_photons(size: int) -> float:
    """Photons a pixel and projection of simulated scans at full dose.

    They grow with the columns, as they do where the same field is seen more finely with the same
    quality asked of each pixel.
    """
    return 5.5e4 * size / 256


def simulate_pairs(recipe: SimulatedScans, progress: bool = True) -> Pairs:
    """Simulate and reconstruct the scans of a recipe. Deterministic for a thread count.

    Raises
    ------
    ConfigurationError
        Other doses than realisations, or an unknown family.
    """
    if recipe.doses is not None and len(recipe.doses) != recipe.realisations:
        raise ConfigurationError(
            f"doses: expected one for each of the {recipe.realisations} realisations, got "
            f"{recipe.doses}"
        )
    rng = np.random.default_rng([recipe.seed, 3])
    step = recipe.slices_a_scan
    scans: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    with tqdm(
        total=recipe.n_slices,
        desc=f"simulating {recipe.size} columns, {recipe.n_angles} angles",
        unit="slice",
        disable=None if progress else True,
    ) as bar:
        for scan, first in enumerate(range(0, recipe.n_slices, step)):
            rows = min(step, recipe.n_slices - first)
            family = recipe.families[scan % len(recipe.families)]
            scans.append(_one_scan(recipe, family, rows, rng))
            bar.update(rows)
    noisy, target, dose = (torch.cat(parts) for parts in zip(*scans, strict=True))
    return Pairs.of(noisy, target, dose, recipe.volumes())


def _one_scan(
    recipe: SimulatedScans, family: str, rows: int, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    size = recipe.size
    theta = np.arange(recipe.n_angles) * (np.pi / recipe.n_angles)
    geometry = ScanGeometry(theta, (size - 1) / 2 + rng.uniform(-0.02, 0.02) * size, size)
    if family in VOLUME_FAMILIES:
        volume = make_volume(family, 2 * size, rng, 2 * rows)
        integrals, _ = volume_line_integrals(volume, geometry, largest=rng.uniform(1.0, 2.2))
    else:
        phantom = make_phantom(family, 2 * size, rng, rows)
        integrals, _ = line_integrals(phantom, geometry, largest=rng.uniform(1.0, 2.2))
    reconstruct = Gridrec(geometry, recipe.filter)
    if recipe.doses is None:
        lowest, highest = np.log(recipe.dose_range)
        doses = np.exp(rng.uniform(lowest, highest, recipe.realisations)).tolist()
    else:
        doses = list(recipe.doses)
    noisy = []
    for dose in doses:
        beam = Beam(full_dose_photons(size), dose, seed=int(rng.integers(2**32)))
        n_references = int(rng.choice([10, 20, 40]))
        frames = beam.projections(integrals.transpose(1, 0, 2)).transpose(1, 0, 2)
        dark, flat = (
            torch.from_numpy(draw(n_references, (rows, size)).mean(0, dtype=np.float32))
            for draw in (beam.darks, beam.flats)
        )
        sinograms, _ = attenuation(
            transmission(torch.from_numpy(np.ascontiguousarray(frames)), dark, flat),
            _MINIMUM_TRANSMISSION,
        )
        noisy.append(reconstruct(sinograms))
    target = reconstruct(torch.from_numpy(integrals))
    dose_table = torch.tensor(doses, dtype=torch.float32).expand(rows, -1)
    return torch.stack(noisy, dim=1), target, dose_table


def load_or_simulate(recipes: Iterable[SimulatedScans], cache: Path | None) -> list[Pairs]:
    """Pairs of each recipe, from files in `cache` where they were simulated before."""
    return [_cached(recipe, cache) if cache else simulate_pairs(recipe) for recipe in recipes]


def _cached(recipe: SimulatedScans, cache: Path) -> Pairs:
    path = cache / f"pairs-{recipe.digest()}.npz"
    if path.exists():
        logger.info("reading %s", path)
        with np.load(path) as arrays:
            noisy, target, dose = (torch.from_numpy(arrays[k]) for k in ("noisy", "target", "dose"))
        return Pairs.of(noisy, target, dose, recipe.volumes())
    pairs = simulate_pairs(recipe)
    cache.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.npz")
    np.savez(partial, noisy=pairs.noisy, target=pairs.target, dose=pairs.dose)
    partial.replace(path)
    return pairs
