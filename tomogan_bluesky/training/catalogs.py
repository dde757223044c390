"""Scans of a catalog, to learn from.

Enter: a Databroker or Tiled catalog and a query. Leave: reconstructed scans, read by the same
intake and reconstructed by the same pipeline as live ones. What was found and
cannot be used is listed with its reason.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import torch
from tiled.queries import Eq

from ..config import ReconstructionConfig, ScanConfig, Settings
from ..errors import MissingFramesError, NoScansError, TomoGANError
from ..geometry import ScanGeometry
from ..intake.archive import documents
from ..intake.documents import ScanDocuments
from ..intake.frame_store import FrameStore
from ..intake.reference_runs import ReferenceRuns
from ..pipeline.slabs import SlabPipeline, find_rotation_centre
from ..publish.identity import is_derived
from ..publish.query import DOSE_KEY, ScanQuery, raw_runs, start_of
from ..recon.preprocess import Fields
from .open_scan import OpenScan

logger = logging.getLogger(__name__)

_LOOKED_AT = 200  # runs of which a message says what they are


@dataclass(frozen=True)
class Rejection:
    """A run that was found and is not used, and why."""

    uid: str
    reason: str


@dataclass(frozen=True, eq=False)
class CatalogScan:
    """A reconstructed scan.

    Attributes
    ----------
    start : mapping
        Start document of its run.
    slices : torch.Tensor, float32, shape (slice, y, x)
        In 1/pixel, on the CPU.
    rotation_centre : float
        In pixels.
    """

    start: Mapping[str, Any]
    slices: torch.Tensor
    rotation_centre: float

    @classmethod
    def of(cls, scan: OpenScan) -> Self:
        """All slices of a scan. Raises TomoGANError where they cannot be reconstructed."""
        slices = torch.cat([slab for _, slab in scan.slices()])
        return cls(scan.start, slices, scan.rotation_centre)


class ScanReader:
    """Reads and reconstructs the scans of a catalog.

    Parameters
    ----------
    catalog : Tiled client
        As `databroker.catalog[...]`, `databroker.from_profile` and `tiled.client` give it.
    scan : ScanConfig, optional
    reconstruction : ReconstructionConfig, optional
    device : str
        Where scans are reconstructed.
    """

    def __init__(
        self,
        catalog: Any,
        scan: ScanConfig | None = None,
        reconstruction: ReconstructionConfig | None = None,
        device: str = "cpu",
    ) -> None:
        self.catalog = catalog
        self._scan = scan or ScanConfig()
        self.reconstruction = reconstruction or ReconstructionConfig()
        self._device = device
        self._references = ReferenceRuns(self._scan, self._find_run)

    def settings(self) -> dict[str, Any]:
        """What decides the pixels of a scan's slices, as plain data."""
        decisive = Settings(scan=self._scan, reconstruction=self.reconstruction).decisive()
        return {key: decisive[key] for key in ("scan", "reconstruction")}

    def read(self, run: Any, rotation_centre: float | None = None) -> CatalogScan:
        """Read and reconstruct one run. Parameters and errors are those of `open`."""
        with self.open(run, rotation_centre) as scan:
            return CatalogScan.of(scan)

    @contextmanager
    def open(self, run: Any, rotation_centre: float | None = None) -> Iterator[OpenScan]:
        """Read the documents of one run; its frames are read when they are asked for.

        Parameters
        ----------
        run : BlueskyRun
        rotation_centre : float, optional
            None: that of the configuration, else found.

        Raises
        ------
        TomoGANError
            No finished tomography scan, or one that cannot be read or reconstructed.
        """
        store = FrameStore(self._scan)
        reader = ScanDocuments(self._scan, store.add, store.expect_shape)
        try:
            for name, doc in documents(run):
                reader(name, doc)
            yield self._opened(reader, store, rotation_centre)
        finally:
            reader.close()

    def _opened(
        self, reader: ScanDocuments, store: FrameStore, rotation_centre: float | None
    ) -> OpenScan:
        start, config = reader.start_doc, self.reconstruction
        if (status := reader.stop_doc.get("exit_status")) != "success":
            raise MissingFramesError(f"expected a scan that was finished, got one of {status!r}")
        if not reader.is_tomography:
            raise MissingFramesError("expected a tomography scan, got a run that is none")
        elsewhere, _ = self._references.elsewhere(start, store.has_references)
        scan = store.scan(reader.angles, reader.declared_projections, elsewhere)
        references = scan.references
        fields = Fields(references.dark, references.flats, references.weights_at(scan.times))
        centre = config.rotation_centre if rotation_centre is None else rotation_centre
        _, n_rows, n_columns = scan.shape
        rows = self._scan.rows or (0, n_rows)
        if centre is None:
            centre = find_rotation_centre(scan.read, scan.theta, fields, rows, config).centre
        geometry = ScanGeometry(scan.theta, centre, n_columns)
        pipeline = SlabPipeline(geometry, config, None, fields, self._device)
        own = elsewhere is None and self._scan.flat == "frames"
        return OpenScan(
            start=start,
            rotation_centre=centre,
            rows=pipeline.preprocess.rows_within(*rows),
            dark=references.dark,
            flats=store.reference_frames("flat") if own else None,
            darks=store.reference_frames("dark") if own else None,
            pipeline=pipeline,
            config=config,
            device=self._device,
            read=scan.slabs,
        )

    def _find_run(self, uid: str) -> Any:
        found = list(self.catalog.search(Eq("start.uid", uid)).values())
        return found[0] if found else None


def find_runs(catalog: Any, query: ScanQuery, any_dose: bool = False) -> list[Any]:
    """The raw runs that answer a query, in the order of their time.

    Parameters
    ----------
    catalog : Tiled client
    query : ScanQuery
    any_dose : bool
        Whatever dose the query asks for.

    Raises
    ------
    NoScansError
        There are none, or nothing was asked. Says what the catalog holds.
    """
    if query == ScanQuery():
        raise NoScansError(
            "expected a query of some sample, plan, dose, time or other start key, got an empty "
            f"one; {_holdings(catalog)}"
        )
    raw = raw_runs(catalog, query, any_dose)
    if not raw:
        asked = query.model_dump(mode="json", exclude_defaults=True)
        raise NoScansError(
            f"expected raw runs of {', '.join(f'{k} {v!r}' for k, v in asked.items())}, got none; "
            f"{_holdings(catalog)}"
        )
    return raw


class Scans:
    """Scans one after another, each read and reconstructed when it is its turn.

    Attributes
    ----------
    rejected : list of Rejection
        Complete once all scans were taken.
    """

    def __init__(self, reader: ScanReader, runs: Sequence[Any]) -> None:
        self._reader = reader
        self._runs = runs
        self.rejected: list[Rejection] = []

    def __iter__(self) -> Iterator[CatalogScan]:
        self.rejected = []
        for run in self._runs:
            try:
                scan = self._reader.read(run)
            except TomoGANError as error:
                self.rejected.append(reject(uid_of(run), str(error)))
                continue
            yield scan


def scans(reader: ScanReader, query: ScanQuery) -> Scans:
    """The scans of a catalog that answer a query.

    Raises
    ------
    NoScansError
        See `find_runs`.
    """
    return Scans(reader, find_runs(reader.catalog, query))


def reject(uid: str, reason: str) -> Rejection:
    """Say that a run is not used."""
    logger.warning("run %s is left out: %s", uid, reason)
    return Rejection(uid, reason)


def uid_of(run: Any) -> str:
    """Uid of a run."""
    return str(start_of(run)["uid"])


def _holdings(catalog: Any) -> str:
    """What a catalog holds, for a message."""
    runs = [node for node in catalog.values().tail(_LOOKED_AT) if "start" in node.metadata]
    starts = [start for run in runs if not is_derived(start := start_of(run))]
    if not starts:
        return "the catalog holds no raw runs"
    times = [datetime.fromtimestamp(start["time"]).isoformat(" ", "minutes") for start in starts]

    def values(key: str) -> str:
        found = sorted({str(start[key]) for start in starts if key in start})
        return ", ".join(found) or "none named"

    samples = sorted({name for start in starts if (name := _sample(start))})
    return (
        f"the catalog's newest {len(starts)} raw runs are from {min(times)} to {max(times)}; "
        f"samples: {', '.join(samples) or 'none named'}; plans: {values('plan_name')}; "
        f"doses: {values(DOSE_KEY)}"
    )


def _sample(start: Mapping[str, Any]) -> str:
    sample = start.get("sample", start.get("sample_name"))
    return str(sample.get("name", "") if isinstance(sample, Mapping) else sample or "")
