"""The recipes of the pinned test sets: what is in them must not move.

Enters: nothing. Leaves: `PINNED_SETS`. The sets ``512`` and ``256`` show the five families of the
training; ``512-foreign`` and ``256-foreign`` what no model has seen: a sixth family, rings, blur
and a drifting beam; ``512-volumes`` and ``256-volumes`` neighbouring slices, of which models that
look at several can make more.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from ..config import FilterName
from ..geometry import ScanGeometry
from ..recon.beam import line_integrals, volume_line_integrals
from ..recon.phantoms import HELD_OUT_FAMILY, TRAINING_FAMILIES, make_phantom
from ..recon.volumes import VOLUME_FAMILIES, make_volume


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
        """Whether the slices of a family are neighbours in one sample."""
        return self.families == (HELD_OUT_FAMILY,)

    @property
    def margin(self) -> int:
        """Slices at both ends of each sample that are there as neighbours, and not scored."""
        return 0

    def integrals(
        self, family: str, geometry: ScanGeometry, rng: np.random.Generator
    ) -> np.ndarray:
        """Line integrals of a family's slices: (slice, angle, column)."""
        phantom = make_phantom(family, 2 * self.size, rng, self.slices_a_family)
        return line_integrals(phantom, geometry, self.largest)[0]

    def relative_noise(self, dose: float) -> float:
        """See `harmless.relative_noise`."""
        return self.size / math.sqrt(self.photons * dose * self.n_angles)

    def digest(self) -> str:
        """Hexadecimal sha256 of the recipe."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


class PinnedVolumes(PinnedSet):
    """A recipe of neighbouring slices, as far apart as the pixels of the detector.

    The families are the four of `recon.volumes`, two of them textured, and the battery, which no
    model was trained on.
    """

    families: tuple[str, ...] = (*VOLUME_FAMILIES, HELD_OUT_FAMILY)
    slices_a_family: int = 5
    unscored: int = 1
    """Of each end of a sample: at the end of a volume there are neighbours on one side alone."""

    @property
    def adjacent(self) -> bool:
        return True

    @property
    def margin(self) -> int:
        return self.unscored

    def integrals(
        self, family: str, geometry: ScanGeometry, rng: np.random.Generator
    ) -> np.ndarray:
        draw = make_phantom if family == HELD_OUT_FAMILY else make_volume
        volume = draw(family, 2 * self.size, rng, 2 * self.slices_a_family)
        return volume_line_integrals(volume, geometry, self.largest)[0]


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
    "512-volumes": PinnedVolumes(size=512, n_angles=804, photons=1.1e5),
    "256-volumes": PinnedVolumes(size=256, n_angles=402, photons=5.5e4),
}
