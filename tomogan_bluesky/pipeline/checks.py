"""Checks of some denoised slices: may they be believed?

Enter: slices, before and after denoising, and what was measured of their rows. Leave: numbers of
each checked slice, to be published beside it, and remarks that say what they mean where they are
not as they should be.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ..denoise.refiltered import FilterChange
from ..geometry import ScanGeometry
from ..models.card import ModelCard
from ..trust.consistency import (
    LARGEST_EXCESS,
    LARGEST_SPOT,
    Consistency,
    Photons,
    strangest_spot,
)
from ..trust.familiarity import traits

_ANGLES = 48  # projections that slices are compared with: of 256 columns, chi² is known to 1 %


def evenly(first: int, last: int, most: int) -> list[int]:
    """At most so many of the numbers [first, last), evenly spread."""
    n = min(most, last - first)
    return [first + (2 * i + 1) * (last - first) // (2 * n) for i in range(n)]


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured of the rows that are checked.

    Attributes
    ----------
    geometry : ScanGeometry
        Of the projections that were chosen.
    photons : Photons
    attenuation : dict of int to float32 tensor, shape (angle, column)
        By row.
    """

    geometry: ScanGeometry
    photons: Photons
    attenuation: dict[int, torch.Tensor]


def measure(
    read: Callable[[list[int], slice], np.ndarray],
    correct: Callable[[np.ndarray, int, list[int]], torch.Tensor],
    recorded: Callable[[int], tuple[int, int]],
    geometry: ScanGeometry,
    photons: Photons,
    rows: Sequence[int],
) -> Measured:
    """Read what slices are to be compared with: some projections, one after another.

    Parameters
    ----------
    read : callable
        Takes indices of projections and rows, returns them as recorded, (row, angle, column).
    correct : callable
        Takes frames (row, angle, column), a row and indices of projections; gives the row's
        attenuation (angle, column).
    recorded : callable
        Takes a row, gives the recorded rows [first, last) that it is made of.
    geometry : ScanGeometry
        Of the scan, as reconstructed.
    photons : Photons
    rows : sequence of int
    """
    angles = evenly(0, geometry.n_angles, _ANGLES)
    spans = {row: recorded(row) for row in rows}
    top, bottom = min(a for a, _ in spans.values()), max(b for _, b in spans.values())
    frames: dict[int, list[np.ndarray]] = {row: [] for row in rows}
    for angle in angles:
        frame = read([angle], slice(top, bottom))
        for row, (first, last) in spans.items():
            frames[row].append(frame[first - top : last - top].copy())
    attenuation = {
        row: correct(np.concatenate(parts, 1), row, angles) for row, parts in frames.items()
    }
    chosen = ScanGeometry(geometry.theta[angles], geometry.rotation_centre, geometry.n_columns)
    return Measured(chosen, photons, attenuation)


@dataclass
class SliceChecks:
    """Checks slices of one scan, and remembers what it found.

    Parameters
    ----------
    card : ModelCard
        Of the model that denoises.
    rows : sequence of int
        Which are checked.
    measured : Measured or None
        None: the photons are not known, and chi² is not told.
    change : FilterChange or None
        To the slices that the model knows; None: they are these.
    """

    card: ModelCard
    rows: Sequence[int]
    measured: Measured | None = None
    change: FilterChange | None = None
    found: list[dict[str, float]] = field(default_factory=list)
    _strange: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._consistency: Consistency | None = None
        if self.measured is not None:
            self._consistency = Consistency(self.measured.geometry, self.measured.photons)

    @property
    def scalars(self) -> tuple[str, ...]:
        """Names of the numbers, as far as they can be told."""
        chi2 = () if self.measured is None else ("chi2_reconstruction", "chi2_denoised")
        strangeness = () if self.card.familiarity is None else ("strangeness",)
        return (*chi2, "strangest_spot", *strangeness)

    def slab(
        self, rows: range, reconstruction: torch.Tensor, denoised: torch.Tensor
    ) -> dict[str, list[float]]:
        """The `scalars` of each slice of a slab, shape (slice, y, x), on the CPU; NaN for slices
        that are not checked, or could not be denoised."""
        numbers = [
            self._check(row, before, after) if row in self.rows else {}
            for row, before, after in zip(rows, reconstruction, denoised, strict=True)
        ]
        return {name: [of.get(name, float("nan")) for of in numbers] for name in self.scalars}

    def _check(self, row: int, before: torch.Tensor, after: torch.Tensor) -> dict[str, float]:
        if not torch.isfinite(after).all():
            return {}
        of = {"strangest_spot": strangest_spot(before, after)}
        if self._consistency is not None and self.measured is not None:
            both = torch.stack([before, after])
            chi2 = self._consistency.chi2(both, self.measured.attenuation[row]).tolist()
            of |= {"chi2_reconstruction": chi2[0], "chi2_denoised": chi2[1]}
        known = self.card.familiarity
        if known is not None:
            as_learned = before if self.change is None else self.change.as_learned(before[None])[0]
            here = traits(as_learned)
            of["strangeness"] = known.strangeness(here)
            if of["strangeness"] > known.limit:
                self._strange.append(known.strangest(here))
        self.found.append(of)
        return of

    def worst(self) -> dict[str, float]:
        """The largest of each number."""
        return {name: max(of[name] for of in self.found) for name in self.scalars if self.found}

    def remarks(self) -> list[str]:
        """What a reader of the slices must know; nothing where all is as it should be."""
        n, said = len(self.found), []
        measured = self.found if self.measured is not None else []
        excess = [of["chi2_denoised"] - of["chi2_reconstruction"] for of in measured]
        if beyond := sum(e > LARGEST_EXCESS for e in excess):
            said.append(
                f"{beyond} of {n} checked slices contradict their projections once they are "
                f"denoised (chi² is larger by up to {max(excess):.2g}, and noise accounts for "
                f"{LARGEST_EXCESS:g}): structure was lost or changed in brightness; trust the "
                "reconstruction"
            )
        spots = [of["strangest_spot"] for of in self.found]
        if beyond := sum(s > LARGEST_SPOT for s in spots):
            said.append(
                f"in {beyond} of {n} checked slices denoising has changed a spot by more than "
                f"noise does (up to {max(spots):.0f} standard deviations; {LARGEST_SPOT:g} are "
                "usual): a detail was removed or made up; compare them with the reconstruction"
            )
        if self._strange:
            most = max(set(self._strange), key=self._strange.count)
            said.append(
                f"{len(self._strange)} of {n} checked slices are unlike those that model "
                f"{self.card.name!r} knows; they differ most in: {most}; its denoised slices and "
                "its uncertainty are not calibrated there: train or calibrate it with such scans"
            )
        return said
