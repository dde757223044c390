"""From one raw run to one derived run.

Enter: the documents of a raw run, one after another, in the worker. Leave: the documents of its
derived run, to every publisher, and a `RunReport`. Nothing raises out of here: the first error of
a run is kept, logged, written into the derived stop document, and reported.
"""

import logging
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from ..config import plan_settings
from ..errors import IntakeError, InUseError
from ..geometry import ScanGeometry
from ..intake.documents import Frame, ScanDocuments
from ..intake.frame_store import FrameStore
from ..intake.references import References
from ..intake.scan import FrameAccount, Scan
from ..pipeline.checks import SliceChecks
from ..pipeline.slabs import SlabPipeline, find_rotation_centre, rows_within
from ..publish.documents import DerivedRun
from ..recon.centre import CentreEstimate
from ..recon.preprocess import Fields
from ..report import ExitStatus, RunRecord, RunReport, StageFailed, without_result
from .derivation import Derivation
from .engine import Engine
from .live import LiveScan
from .previews import Previews, PreviewSchedule
from .provenance import of_geometry, provenance
from .run_model import RunModel
from .telling import exit_status, promised_projections, remark_on_centre, remarks_on_frames
from .volumes import SliceCounts, VolumePublisher

logger = logging.getLogger(__name__)

_OTHER_REFERENCES = (
    "the darks and flats of the scan turned out to be others than those, in files, that its "
    "previews were made with; the previews have a derived run of their own"
)


@dataclass
class _Made:
    """What was made of a run so far; None: it was not reached, or failed."""

    scan: Scan | None = None
    rows: tuple[int, int] = (0, 0)
    geometry: ScanGeometry | None = None
    estimate: CentreEstimate | None = None
    pipeline: SlabPipeline | None = None
    memory_gib: float | None = None
    checks: SliceChecks | None = None


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
        self._documents = ScanDocuments(scan, self._on_frame, self._store.expect_shape)
        self._derivation = Derivation(engine, self._settings, self._record, start_doc)
        self._model = RunModel(self._settings, self._store, self._derivation, self._record)
        self._live = LiveScan(
            self._settings,
            self._store,
            self._documents,
            self._references_so_far,
            engine.centres.get,
            engine.resolved_device,
        )
        self._schedule = PreviewSchedule(self._settings.live)
        self._previews = Previews(
            self._schedule, self._live, self._derivation, lambda: self._provenance(_Made())
        )

    def __call__(self, name: str, doc: dict[str, Any]) -> RunReport | None:
        """Take one document; returns the report after the stop document of a tomography scan."""
        with self._schedule.work():
            with suppress(StageFailed), self._record.stage("intake"):
                self._documents(name, doc)
            if name != "stop":
                if self._enabled and "intake" not in self._record.failed_stages:
                    with self._record.stage("live"):  # raises nothing
                        self._live.advance()
                        self._previews.advance(self._store.has_references)
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

    def close(self, reason: str) -> None:
        """No more documents will come, and why: end the derived run, if a preview has begun it."""
        if self._enabled:
            self._record.remark(reason)
            if self._previews.has_started:
                self._stop(exit_status(self._documents, self._record.failure))
        self._documents.close()

    def _on_frame(self, frame: Frame) -> None:
        self._store.add(frame)
        self._live.arrived(frame)

    def _finish(self) -> RunReport:
        """Everything that is left to do once the run has ended."""
        if self._previews.has_started and self._derivation.is_other(self._store.has_references):
            self._record.remark(_OTHER_REFERENCES)
            self._stop("abort")
            self._previews.forget()
        if not self._previews.has_started and (report := self._look_up()) is not None:
            return report
        made = _Made()
        with suppress(StageFailed):
            self._prepare(made)
        derived, conclusions = self._derived_run(made)
        counts = SliceCounts()
        with suppress(StageFailed):
            if not self._previews.has_started:
                with self._record.stage("publish"):
                    derived.start()
            self._publish(made, derived, counts)
        frames = self._stop(exit_status(self._documents, self._record.failure), conclusions)
        return self._report(made, derived, frames, counts)

    def _look_up(self) -> RunReport | None:
        """The report of a run that needs no work, or that another process works on."""
        derivation = self._derivation
        with suppress(StageFailed), self._record.stage("model"):
            derivation.load()
        with suppress(StageFailed), self._record.stage("publish"):
            try:
                derivation.look_up(self._store.has_references)
            except InUseError as error:
                return without_result(self._raw_uid, f"publish: {error}")
        if (uid := derivation.final_uid) is None:
            return None
        logger.info("run %s: derived run %s is there already", self._raw_uid, uid)
        return RunReport(self._raw_uid, uid, "success", already_done=True)

    def _derived_run(self, made: _Made) -> tuple[DerivedRun, dict[str, Any] | None]:
        """The derived run, and what its stop document has to say that its start could not."""
        metadata = self._provenance(made)
        if not self._previews.has_started:
            return self._derivation.make(metadata), None
        derived, known = self._derivation.run, self._previews.started_with
        assert derived is not None
        return derived, {key: md for key, md in metadata.items() if known.get(key) != md}

    def _stop(self, status: ExitStatus, conclusions: dict[str, Any] | None = None) -> FrameAccount:
        """End the derived run; returns what has become of the projections."""
        derived, emit = self._derivation.run, self._derivation.emit
        assert derived is not None
        assert emit is not None
        frames = self._store.account(promised_projections(self._documents))
        with suppress(StageFailed), self._record.stage("publish"):
            derived.stop(status, self._record.reason, frames.as_dict(), conclusions)
            emit.check()
        for why in emit.waiting:
            self._record.remark(
                f"the derived run waits in the spool, to be brought to its server: {why}"
            )
        return frames

    def _report(
        self,
        made: _Made,
        derived: DerivedRun,
        frames: FrameAccount,
        counts: SliceCounts,
    ) -> RunReport:
        estimate, scan, record = made.estimate, made.scan, self._record
        emit = self._derivation.emit
        assert emit is not None
        return RunReport(
            raw_uid=self._raw_uid,
            derived_uid=derived.uid if emit.reached_any else None,
            exit_status=exit_status(self._documents, record.failure),
            reason=record.reason,
            frames=frames,
            seconds=dict(record.seconds),
            n_slices=counts.slices,
            n_failed_slices=counts.failed_slices,
            n_clamped=counts.clamped,
            rotation_centre=None if made.geometry is None else made.geometry.rotation_centre,
            centre_confidence=None if estimate is None else estimate.confidence,
            centre_methods=_by_name(estimate),
            incremental=made.pipeline is not None and not self._live.why_not,
            why_batch=self._live.why_not,
            n_previews=self._previews.n_published,
            memory_gib=made.memory_gib,
            volume_path=derived.volume_path,
            checks={} if made.checks is None else made.checks.worst(),
            lag_s=time.time() - self._documents.stop_doc.get("time", time.time()),
            first_slice_lag_s=(
                counts.first_slice_time - float(scan.times.max())
                if scan and counts.slices
                else None
            ),
            spooled=bool(emit.waiting),
        )

    # The stages --------------------------------------------------------------------------------

    def _prepare(self, made: _Made) -> None:
        """All that is to be known before the first slab; what fails leaves the rest unknown."""
        scan = made.scan = self._complete_scan()
        with self._record.stage("reconstruct"):
            made.rows = rows_within(self._settings.scan.rows, scan.shape[1])
        geometry, made.estimate = self._geometry(scan, made.rows)
        made.geometry = geometry
        pipeline = made.pipeline = self._pipeline(scan, geometry)
        if not pipeline.is_early:
            made.scan, made.memory_gib = self._within_memory(scan, pipeline, made.rows)

    def _publish(self, made: _Made, derived: DerivedRun, counts: SliceCounts) -> None:
        """Reconstruct, denoise and publish the slabs, as far as their scan could be prepared."""
        scan, pipeline, record = made.scan, made.pipeline, self._record
        if scan is None or pipeline is None:
            return
        checks = made.checks = self._model.checks(scan, pipeline, made.rows)
        publish = VolumePublisher(pipeline, derived, record, counts, self._engine.progress, checks)
        try:
            publish(made.rows, scan.slabs)
        finally:
            for remark in pipeline.remarks + ([] if checks is None else checks.remarks()):
                record.remark(remark)

    def _complete_scan(self) -> Scan:
        """The frames of the run, once nothing was wrong with its documents."""
        if "intake" in self._record.failed_stages:
            raise StageFailed("intake")
        with self._record.stage("intake"):
            elsewhere, self._references_from = self._engine.reference_runs.elsewhere(
                self._documents.start_doc, self._store.has_references
            )
            scan = self._store.scan(
                self._documents.angles, promised_projections(self._documents), elsewhere
            )
        for remark in remarks_on_frames(scan, self._documents.stop_doc.get("exit_status")):
            self._record.remark(remark)
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
        if estimate is not None and estimate.agreed:
            self._engine.centres[geometry.n_columns] = centre
        if estimate is not None and not estimate.agreed and config.rotation_centre_method == "auto":
            self._record.remark(remark_on_centre(estimate))
        return geometry, estimate

    def _pipeline(self, scan: Scan, geometry: ScanGeometry) -> SlabPipeline:
        """The way from frames to slices, or from what was reconstructed while they came."""
        live = self._live
        with self._record.stage("reconstruct"):
            early = live.result(scan, geometry)
            if early is None:
                logger.info("run %s: reconstructed in the end: %s", self._raw_uid, live.why_not)
            return SlabPipeline(
                geometry,
                self._settings.reconstruction,
                self._model.denoiser(geometry),
                _fields(scan),
                self._engine.resolved_device(),
                early,
                live.n_clamped,
                self._settings.denoising.uncertainty,
            )

    def _within_memory(
        self, scan: Scan, pipeline: SlabPipeline, rows: tuple[int, int]
    ) -> tuple[Scan, float]:
        """The scan, to be read in as large blocks as there is memory for, and how much that is."""
        with self._record.stage("reconstruct"):
            plan = pipeline.keep_within(
                self._settings.scan.memory_gib,
                scan.shape,
                scan.projections[0].dtype,
                pipeline.preprocess.rows_within(*rows),
                scan.in_files,
            )
        logger.info(
            "run %s: %.2f GiB in slabs of %d rows", self._raw_uid, plan.total_gib, plan.slab_rows
        )
        return replace(scan, frames_bytes=plan.frames_bytes), plan.total_gib

    def _references_so_far(self) -> References | None:
        has_own = self._store.has_references
        elsewhere, self._references_from = self._engine.reference_runs.elsewhere(
            self._documents.start_doc, has_own
        )
        if elsewhere is None and (has_own or self._settings.scan.flat == "none"):
            return self._store.references()
        return elsewhere

    def _remember_references(self) -> None:
        """Keep darks and flats that were recorded in a run of their own for runs to come."""
        if self._store.has_references:
            with suppress(StageFailed), self._record.stage("intake"):
                self._engine.reference_runs.remember(self._raw_uid, self._store.references())
            logger.info("run %s: its darks and flats are kept for later runs", self._raw_uid)
        elif others := self._documents.passed_over:
            logger.warning(
                "run %s: left alone: expected darks and flats under the data key %r, as "
                "scan.image_key says, got %s",
                self._raw_uid,
                self._settings.scan.image_key,
                ", ".join(sorted(set(others))),
            )
        else:
            logger.info("run %s: not a tomography scan, left alone", self._raw_uid)

    def _provenance(self, made: _Made) -> dict[str, Any]:
        """For the start document, as far as it is known."""
        md = provenance(self._settings, self._documents.start_doc, self._derivation.denoiser)
        md |= self._references_from
        if made.geometry is not None:
            md |= of_geometry(made.geometry, made.estimate)
        if made.pipeline is not None:
            md["slice_origin"] = list(made.pipeline.origin)
        if "model" in self._record.failed_stages:
            md["degraded"] = f"not denoised: {self._record.failure}"
        return md


def _by_name(estimate: CentreEstimate | None) -> dict[str, float]:
    return {} if estimate is None else {str(name): at for name, at in estimate.methods.items()}


def _fields(scan: Scan) -> Fields:
    references = scan.references
    return Fields(references.dark, references.flats, references.weights_at(scan.times))
