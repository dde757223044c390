"""Scans of one sample at full dose and at lower ones.

Enter: the scans of a catalog that answer a query. Leave: pairs of a low-dose and a full-dose scan,
as `paired_dose_scan` records them. Runs without a partner are listed with the reason.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import NoScansError, TomoGANError
from ..publish.query import DOSE_KEY, ScanQuery, start_of
from .catalogs import CatalogScan, Rejection, ScanReader, find_runs, reject, uid_of
from .open_scan import OpenScan
from .pairs import Pairs

PAIR_KEY = "paired_scan"
"""Start key that scans of one sample at several doses share."""


@dataclass(frozen=True)
class PairedRuns:
    """A full-dose run, and the low-dose runs of the same sample."""

    full: Any
    low: list[Any]


class PairedScans:
    """Pairs of a low-dose and a full-dose scan, read and reconstructed when it is their turn.

    Both are reconstructed about the axis that is found in the full-dose scan, so that they lie on
    each other.

    Parameters
    ----------
    reader : ScanReader
    groups : list of PairedRuns
    unmatched : list of Rejection
        Runs without a partner.

    Attributes
    ----------
    unmatched : list of Rejection
        The same; and, once all pairs were taken, those that could not be read.
    """

    def __init__(
        self, reader: ScanReader, groups: list[PairedRuns], unmatched: list[Rejection]
    ) -> None:
        self._reader = reader
        self._groups = groups
        self.unmatched = list(unmatched)

    def __len__(self) -> int:
        return sum(len(group.low) for group in self._groups)

    def __iter__(self) -> Iterator[tuple[CatalogScan, CatalogScan]]:
        """(low dose, full dose)."""
        for low, full in self.opened():
            try:
                pair = CatalogScan.of(low), CatalogScan.of(full)
            except TomoGANError as error:
                self.drop(low.start["uid"], str(error))
                continue
            yield pair

    @property
    def groups(self) -> list[PairedRuns]:
        """The runs themselves."""
        return list(self._groups)

    def opened(
        self, groups: Sequence[PairedRuns] | None = None
    ) -> Iterator[tuple[OpenScan, OpenScan]]:
        """(low dose, full dose), to be reconstructed slab by slab before the next ones.

        Parameters
        ----------
        groups : sequence of PairedRuns, optional
            None: all.
        """
        for group in self._groups if groups is None else groups:
            try:
                with self._reader.open(group.full) as full:
                    yield from self._opened_low(group, full)
            except TomoGANError as error:
                self.drop(uid_of(group.full), str(error))
                for run in group.low:
                    self.drop(
                        uid_of(run), f"its full-dose scan {uid_of(group.full)} cannot be used"
                    )

    def _opened_low(self, group: PairedRuns, full: OpenScan) -> Iterator[tuple[OpenScan, OpenScan]]:
        for run in group.low:
            try:
                with self._reader.open(run, full.rotation_centre) as low:
                    if low.shape == full.shape:
                        yield low, full
                        continue
                    self.drop(
                        uid_of(run),
                        f"expected slices of shape {full.shape}, as in the full-dose scan "
                        f"{uid_of(group.full)}, got {low.shape}",
                    )
            except TomoGANError as error:
                self.drop(uid_of(run), str(error))

    def drop(self, uid: str, reason: str) -> None:
        """Say that a run is not used."""
        if uid not in {rejection.uid for rejection in self.unmatched}:
            self.unmatched.append(reject(uid, reason))


def paired_scans(reader: ScanReader, query: ScanQuery) -> PairedScans:
    """Low-dose and full-dose scans that belong together, by their start keys.

    Scans of a pair share the value of `PAIR_KEY`; the one whose `DOSE_KEY` is 1 is the full-dose
    scan. Of several of one dose the newest counts.

    Raises
    ------
    NoScansError
        Nothing answers the query, or nothing of that is a pair. Says why of each run.
    """
    unmatched: list[Rejection] = []
    by_dose: dict[str, dict[float, Any]] = {}
    for run in find_runs(reader.catalog, query, any_dose=True):
        start = start_of(run)
        dose = start.get(DOSE_KEY)
        if not start.get(PAIR_KEY) or not isinstance(dose, int | float):
            unmatched.append(
                reject(uid_of(run), f"it has no start keys {PAIR_KEY!r} and {DOSE_KEY!r}")
            )
            continue
        runs = by_dose.setdefault(str(start[PAIR_KEY]), {})
        if (earlier := runs.get(dose)) is not None:  # a run without streams is false
            unmatched.append(
                reject(uid_of(earlier), f"run {start['uid']} is of the same dose and newer")
            )
        runs[dose] = run
    groups: list[PairedRuns] = []
    for runs in by_dose.values():
        full = runs.pop(1, None)
        low = [run for dose, run in runs.items() if query.dose in (None, dose)]
        if full is None:
            reason = "there is no full-dose scan (dose 1) to pair it with"
            unmatched += [reject(uid_of(run), reason) for run in low]
        elif low:
            groups.append(PairedRuns(full, low))
        else:
            unmatched.append(reject(uid_of(full), "there is no low-dose scan to pair it with"))
    if not groups:
        raise NoScansError(
            "expected scans of one sample at full dose and at a lower one, linked by the start "
            f"keys {PAIR_KEY!r} and {DOSE_KEY!r}, got none: "
            + "; ".join(f"{r.uid}: {r.reason}" for r in unmatched)
        )
    return PairedScans(reader, groups, unmatched)


def training_pairs(paired: PairedScans) -> Iterator[Pairs]:
    """Paired scans as a training takes them: one realisation each, the full dose as target."""
    for low, full in paired:
        dose = torch.full((len(low.slices), 1), float(low.start[DOSE_KEY]))
        yield Pairs.of(low.slices[:, None], full.slices, dose)
