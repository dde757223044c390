"""From one raw run to one derived run.

Enter: the documents of a raw run, one after another, in the worker. Leave: the documents of its
derived run, to every publisher, and a `RunReport`. Nothing raises out of here: the first error of
a run is kept, logged, written into the derived stop document, and reported.
"""

import json
import logging
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._version import __version__
from .config import PER_PIXEL, plan_settings
from .denoise import Denoiser, check_reconstruction
from .engine import Engine
from .errors import ConfigurationError, IntakeError, ModelError
from .geometry import ScanGeometry
from .intake.documents import ScanDocuments
from .intake.sinogram import FrameAccount, FrameStore, Scan
from .pipeline import Slab, SlabPipeline, find_rotation_centre
from .publish.documents import DerivedRun, derivation_of
from .recon.centre import CentreEstimate
from .recon.preprocess import Fields
from .report import ExitStatus, RunRecord, RunReport, StageFailed

logger = logging.getLogger(__name__)


class RunProcessor:
    """One raw run: made with its start document, spent after its stop document."""

    def __init__(self, engine: Engine, start_doc: dict[str, Any]) -> None:
        self._engine = engine
        self._raw_uid: str = start_doc["uid"]
        self._record = RunRecord(self._raw_uid)
        self._references_from: dict[str, Any] = {}
        self._settings, self._enabled = engine.settings, True
        with suppress(StageFailed), self._record.stage("intake"):
            plan = plan_settings(start_doc)
            self._enabled = plan.enabled
            self._settings = engine.settings.for_plan(plan, engine.plan_wins)
        scan = self._settings.scan
        self._store = FrameStore(scan)
        self._documents = ScanDocuments(scan, self._store.add, self._store.expect_shape)

    def __call__(self, name: str, doc: dict[str, Any]) -> RunReport | None:
        """Take one document; returns the report after the stop document of a tomography scan."""
        with suppress(StageFailed), self._record.stage("intake"):
            self._documents(name, doc)
        if name != "stop":
            return None
        try:
            if not self._enabled:
                logger.info("run %s: left alone, as its plan says", self._raw_uid)
                return None
            if self._documents.is_tomography:
                return self._finish()
            self._remember_references()
            return None
        finally:
            self._documents.close()

    def mark_backlog(self, reason: str) -> None:
        """Some documents were left out, and why."""
        self._record.fail(
            "intake",
            IntakeError(
                f"expected every document of the scan, but {reason}; the raw data are safe: replay "
                "the run to get its slices"
            ),
        )

    def _finish(self) -> RunReport:
        engine, record = self._engine, self._record
        denoiser = None
        with suppress(StageFailed), record.stage("model"):
            denoiser = self._fitting(engine.denoiser())
        derivation = derivation_of(
            self._raw_uid, self._settings.digest(), self._generator_digest(denoiser)
        )
        attempt, publishing, scale = 1, self._settings.publishing, PER_PIXEL
        with suppress(StageFailed), record.stage("publish"):
            publishing = publishing.for_run(self._documents.start_doc)
            binning = self._settings.reconstruction.preprocessing.binning
            scale = publishing.scale(self._documents.start_doc, binning)
            attempt, final_uid = engine.publishers.next_attempt(derivation, publishing.directory)
            if final_uid is not None and not engine.again:
                logger.info("run %s: derived run %s is there already", self._raw_uid, final_uid)
                return RunReport(self._raw_uid, final_uid, "success", already_done=True)

        scan = geometry = estimate = pipeline = None
        rows = (0, 0)
        with suppress(StageFailed):
            scan = self._complete_scan()
            with record.stage("reconstruct"):
                rows = _rows_within(self._settings.scan.rows, scan.shape[1])
            geometry, estimate = self._geometry(scan, rows)
            with record.stage("reconstruct"):
                pipeline = SlabPipeline(
                    geometry,
                    self._settings.reconstruction,
                    denoiser,
                    _fields(scan),
                    engine.resolved_device(),
                )
        emit = engine.publishers.broadcast()
        derived = DerivedRun(
            emit,
            self._documents.start_doc,
            derivation=derivation,
            attempt=attempt,
            metadata=self._provenance(geometry, pipeline, denoiser, estimate),
            config=publishing,
            scale=scale,
        )
        counts = _Counts()
        with suppress(StageFailed):
            with record.stage("publish"):
                derived.start()
            if scan is not None and pipeline is not None:
                self._slabs(scan, rows, pipeline, derived, counts)
        status = self._exit_status()
        frames = self._account()
        with suppress(StageFailed), record.stage("publish"):
            derived.stop(status, record.reason, frames.as_dict())
            emit.check()
        for why in emit.waiting:
            record.remark(f"the derived run waits in the spool, to be brought to its server: {why}")
        return RunReport(
            raw_uid=self._raw_uid,
            derived_uid=derived.uid if emit.reached_any else None,
            exit_status=self._exit_status(),
            reason=record.reason,
            frames=frames,
            seconds=dict(record.seconds),
            n_slices=counts.slices,
            n_failed_slices=counts.failed_slices,
            n_clamped=counts.clamped,
            rotation_centre=None if geometry is None else geometry.rotation_centre,
            centre_confidence=None if estimate is None else estimate.confidence,
            centre_methods={} if estimate is None else dict(estimate.methods),
            volume_path=derived.volume_path,
            lag_s=time.time() - self._documents.stop_doc.get("time", time.time()),
            first_slice_lag_s=(
                counts.first_slice_time - float(scan.times.max())
                if scan and counts.slices
                else None
            ),
            spooled=bool(emit.waiting),
        )

    def _generator_digest(self, denoiser: Denoiser | None) -> str:
        """What stands for the generator in the derivation.

        A generator that can't be used is another thing than none: what is published in its place
        must neither be taken for the final version without one, nor find that one and do nothing.
        """
        if denoiser is not None:
            return denoiser.sha256
        if self._engine.model is None:
            return "none"
        self._record.remark("not denoised: the reconstruction alone is published")
        return f"unusable: {self._engine.model}"

    # The stages --------------------------------------------------------------------------------

    def _fitting(self, denoiser: Denoiser | None) -> Denoiser | None:
        """The denoiser, once it is told whether it was trained on slices like these."""
        if denoiser is None:
            return None
        if mismatch := check_reconstruction(denoiser.card, self._settings.reconstruction):
            if self._settings.denoising.on_mismatch == "refuse":
                raise ModelError(f"{mismatch} (denoising.on_mismatch is 'refuse')")
            self._record.remark(mismatch)
        return denoiser

    def _complete_scan(self) -> Scan:
        """The frames of the run, once nothing was wrong with its documents."""
        if "intake" in self._record.failed_stages:
            raise StageFailed("intake")
        with self._record.stage("intake"):
            elsewhere, self._references_from = self._engine.reference_runs.elsewhere(
                self._documents.start_doc, self._store.has_references
            )
            scan = self._store.scan(self._documents.angles, self._promised(), elsewhere)
        account = scan.account
        status = self._documents.stop_doc.get("exit_status")
        coverage = np.rad2deg(scan.theta.max() - scan.theta.min())
        if status != "success":
            self._record.remark(
                f"the raw run ended as {status!r} after {account.used} of {account.expected} "
                f"projections, which cover {coverage:.1f} degrees; the volume is partial: "
                "expect missing-wedge artefacts, or repeat the scan"
            )
        elif account.missing:
            self._record.remark(
                f"expected {account.expected} projections, got {account.used}: {account.missing} "
                "missing; the volume was made without them"
            )
        for why, number in account.rejected.items():
            self._record.remark(
                f"{number} of {account.expected} projections rejected: {why}; the volume was made "
                "without them, look at the detector"
            )
        return scan

    def _geometry(
        self, scan: Scan, rows: tuple[int, int]
    ) -> tuple[ScanGeometry, CentreEstimate | None]:
        config, estimate = self._settings.reconstruction, None
        with self._record.stage("centre"):
            centre = config.rotation_centre
            if centre is None:
                estimate = find_rotation_centre(scan.read, scan.theta, _fields(scan), rows, config)
                centre = estimate.centre
            geometry = ScanGeometry(scan.theta, centre, scan.shape[2])
        if estimate is not None and not estimate.agreed and config.rotation_centre_method == "auto":
            self._record.remark(
                f"the rotation centre, {centre:.2f}, is uncertain (confidence "
                f"{estimate.confidence:.2f}): {estimate.reason}; look at the slices, and where "
                "edges are doubled give reconstruction.rotation_centre and replay the run"
            )
        return geometry, estimate

    def _slabs(
        self,
        scan: Scan,
        rows: tuple[int, int],
        pipeline: SlabPipeline,
        derived: DerivedRun,
        counts: "_Counts",
    ) -> None:
        """Reconstruct, denoise and publish slab by slab; a slab that fails is published as NaN.

        A slab is published when the slices after it that its denoising looks at are there.
        """
        record, windows = self._record, pipeline.windows
        with record.stage("reconstruct"):
            first, last = pipeline.preprocess.rows_within(*rows)
        counts.expected = last - first
        n = pipeline.geometry.n_columns
        quantities = ("reconstruction",) if windows is None else ("reconstruction", "denoised")
        with record.stage("publish"):
            derived.open_volume((last - first, n, n), quantities, scalars=("detector_row",))
        slabs = pipeline.slabs(first, last, scan.slabs)
        waiting: deque[_Waiting] = deque()

        def publish_the_rest() -> None:
            if windows is not None:
                windows.end()
            self._publish_ready(waiting, pipeline, derived, first, counts)

        while True:
            try:
                with record.stage("intake"):
                    slab = next(slabs, None)
            except StageFailed:
                publish_the_rest()
                raise
            if slab is None:
                return publish_the_rest()
            shape = (slab.last - slab.first, n, n)
            volumes = {name: np.full(shape, np.nan, np.float32) for name in quantities}
            slices = None
            with suppress(StageFailed), record.stage("reconstruct"):
                slices, n_clamped = slab.reconstruct()
                volumes["reconstruction"] = slices.cpu().numpy()
                counts.clamped += n_clamped
            waiting.append(_Waiting(slab, volumes, slices is not None))
            if windows is not None and slices is not None:
                windows.add(slices)
            elif windows is not None:
                windows.end()
            self._publish_ready(waiting, pipeline, derived, first, counts)

    def _publish_ready(
        self,
        waiting: "deque[_Waiting]",
        pipeline: SlabPipeline,
        derived: DerivedRun,
        first: int,
        counts: "_Counts",
    ) -> None:
        """Denoise and publish the slabs at the head of the queue whose neighbours are there."""
        record, windows = self._record, pipeline.windows
        while waiting and (windows is None or not waiting[0].reconstructed or windows.ready):
            done = waiting.popleft()
            failures = record.n_failures
            if windows is not None and done.reconstructed:
                with suppress(StageFailed), record.stage("denoise"):
                    done.volumes["denoised"] = windows.take().cpu().numpy()
            failed = not done.reconstructed or record.n_failures > failures
            rows = range(done.slab.first, done.slab.last)
            with record.stage("publish"):
                derived.write_slab(
                    done.slab.first - first,
                    done.volumes,
                    {"detector_row": [pipeline.preprocess.recorded_row(row) for row in rows]},
                )
            if not counts.slices:
                counts.first_slice_time = time.time()
            counts.slices += len(rows)
            counts.failed_slices += len(rows) * failed
            if self._engine.progress is not None:
                self._engine.progress(self._raw_uid, counts.slices, counts.expected)

    def _remember_references(self) -> None:
        """Keep darks and flats that were recorded in a run of their own for runs to come."""
        if self._store.has_references:
            with suppress(StageFailed), self._record.stage("intake"):
                self._engine.reference_runs.remember(self._raw_uid, self._store.references())
            logger.info("run %s: its darks and flats are kept for later runs", self._raw_uid)
        else:
            logger.info("run %s: not a tomography scan, left alone", self._raw_uid)

    # What is said of the run -------------------------------------------------------------------

    def _promised(self) -> int | None:
        """How many projections there should be: of a finished run those that it counted."""
        documents = self._documents
        counted = documents.stop_doc.get("num_events", {}).get(documents.projection_stream)
        if documents.stop_doc.get("exit_status") == "success" and counted is not None:
            return int(counted)
        return documents.declared_projections

    def _account(self) -> FrameAccount:
        return self._store.account(self._promised())

    def _exit_status(self) -> ExitStatus:
        if self._record.failure is not None:
            return "fail"
        raw = self._documents.stop_doc.get("exit_status")
        return "success" if raw == "success" else "abort"

    def _provenance(
        self,
        geometry: ScanGeometry | None,
        pipeline: SlabPipeline | None,
        denoiser: Denoiser | None,
        estimate: CentreEstimate | None,
    ) -> dict[str, Any]:
        """For the start document: what was done, with what, in which version."""
        md: dict[str, Any] = {
            "analysis": {"name": "tomogan_bluesky", "version": __version__},
            "configuration": json.dumps(self._settings.decisive()),
            **self._references_from,
            "slab_rows": self._settings.reconstruction.slab_rows,
        }
        binning = self._settings.reconstruction.preprocessing.binning
        pixel_size = self._documents.start_doc.get("pixel_size_um")
        if binning > 1 and isinstance(pixel_size, int | float):
            md["pixel_size_um"] = pixel_size * binning
        if geometry is not None:
            md["rotation_centre"] = geometry.rotation_centre
            md["theta_range_deg"] = [
                float(np.rad2deg(geometry.theta.min())),
                float(np.rad2deg(geometry.theta.max())),
            ]
        if estimate is not None:
            md["rotation_centre_confidence"] = estimate.confidence
            md["rotation_centre_methods"] = estimate.methods
        if pipeline is not None:
            md["slice_origin"] = list(pipeline.origin)
        if "model" in self._record.failed_stages:
            md["degraded"] = f"not denoised: {self._record.failure}"
        if denoiser is not None:
            md["model_sha256"] = denoiser.sha256
            md["model_card"] = denoiser.card.model_dump_json()
        return md


@dataclass
class _Waiting:
    """A slab that was reconstructed, or could not be, and was not published yet."""

    slab: Slab
    volumes: dict[str, np.ndarray]
    reconstructed: bool


@dataclass
class _Counts:
    expected: int = 0
    slices: int = 0
    failed_slices: int = 0
    clamped: int = 0
    first_slice_time: float = 0.0


def _fields(scan: Scan) -> Fields:
    references = scan.references
    return Fields(references.dark, references.flats, references.weights_at(scan.times))


def _rows_within(rows: tuple[int, int] | None, n_rows: int) -> tuple[int, int]:
    first, last = rows or (0, n_rows)
    if last > n_rows:
        raise ConfigurationError(
            f"scan.rows: expected rows of the detector, which has {n_rows}, got {first}:{last}; "
            "the last row is not included"
        )
    return first, last
