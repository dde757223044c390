"""From one raw run to one derived run.

Enter: the documents of a raw run, one after another, in the worker. Leave: the documents of its
derived run, to every publisher, and a `RunReport`. Nothing raises out of here: the first error of
a run is kept, logged, written into the derived stop document, and reported.
"""

import logging
import time
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ..config import plan_settings
from ..denoise.denoiser import Denoiser
from ..errors import IntakeError, InUseError, MissingFramesError
from ..geometry import ScanGeometry
from ..intake.documents import Frame, ScanDocuments
from ..intake.references import References
from ..intake.sinogram import FrameAccount, FrameStore, Scan
from ..pipeline.checks import SliceChecks
from ..pipeline.slabs import SlabPipeline, find_rotation_centre, rows_within
from ..recon.centre import CentreEstimate
from ..recon.preprocess import Fields
from ..report import ExitStatus, RunRecord, RunReport, StageFailed, without_result
from ..training.noise_profile import NoiseProfile, measure_noise
from ..trust.consistency import Photons
from .checking import slice_checks
from .derivation import Derivation
from .engine import Engine
from .harmless import suited
from .live import LiveScan
from .previews import PreviewSchedule
from .provenance import of_geometry, provenance
from .volumes import SliceCounts, VolumePublisher

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
        self._documents = ScanDocuments(scan, self._on_frame, self._store.expect_shape)
        self._derivation = Derivation(engine, self._settings, self._record, start_doc)
        self._live = LiveScan(
            self._settings,
            self._store,
            self._documents,
            self._references_so_far,
            engine.centres.get,
            engine.resolved_device,
        )
        self._schedule = PreviewSchedule(self._settings.live)
        self._started_with: dict[str, Any] | None = None
        self._n_previews: int | None = 0
        self._memory_gib: float | None = None

    def __call__(self, name: str, doc: dict[str, Any]) -> RunReport | None:
        """Take one document; returns the report after the stop document of a tomography scan."""
        with self._schedule.work():
            with suppress(StageFailed), self._record.stage("intake"):
                self._documents(name, doc)
            if name != "stop":
                if self._enabled and "intake" not in self._record.failed_stages:
                    with self._record.stage("live"):  # raises nothing
                        self._live.advance()
                        self._preview()
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

    def _on_frame(self, frame: Frame) -> None:
        self._store.add(frame)
        self._live.arrived(frame)

    def _preview(self) -> None:
        """Publish a preview, if one is due. One that fails is the last: the slices come anyway."""
        n_arrived, derivation = self._live.n_arrived, self._derivation
        if self._n_previews is None or not self._schedule.due(n_arrived):
            return
        try:
            with self._schedule.preview(n_arrived):
                if self._started_with is None:
                    derivation.load()
                    derivation.look_up(self._store.has_references)
                    if derivation.final_uid is not None:
                        self._n_previews = None
                        return
                    metadata = self._provenance(None, None, None)
                    rows = [*map(self._live.recorded_row, self._live.preview_rows)]
                    derivation.make({**metadata, "preview_rows": rows}).start()
                    self._started_with = metadata
                slices, centre = self._live.preview()
                arrays = {"reconstruction": slices.cpu().numpy()}
                denoiser = derivation.denoiser
                if denoiser is not None:  # each as the only slice: they are not neighbours
                    arrays["denoised"] = torch.cat([*map(denoiser, slices.split(1))]).cpu().numpy()
                assert derivation.run is not None
                numbers = {"n_projections": n_arrived, "rotation_centre": centre}
                assert derivation.emit is not None
                derivation.run.preview(arrays, numbers)
                derivation.emit.finish()  # its time counts: what takes long comes less often
                self._n_previews += 1
        except Exception as error:
            logger.warning("run %s: no more previews: %s", self._raw_uid, error)
            self._n_previews = None

    def _finish(self) -> RunReport:
        engine, record, derivation = self._engine, self._record, self._derivation
        if self._started_with is None:
            with suppress(StageFailed), record.stage("model"):
                derivation.load()
            with suppress(StageFailed), record.stage("publish"):
                try:
                    derivation.look_up(self._store.has_references)
                except InUseError as error:
                    return without_result(self._raw_uid, f"publish: {error}")
            if derivation.final_uid is not None:
                uid = derivation.final_uid
                logger.info("run %s: derived run %s is there already", self._raw_uid, uid)
                return RunReport(self._raw_uid, uid, "success", already_done=True)

        scan = geometry = estimate = pipeline = checks = None
        rows = (0, 0)
        with suppress(StageFailed):
            scan = self._complete_scan()
            with record.stage("reconstruct"):
                rows = rows_within(self._settings.scan.rows, scan.shape[1])
            geometry, estimate = self._geometry(scan, rows)
            pipeline = self._pipeline(scan, geometry)
            if not pipeline.is_early:
                scan = self._within_memory(scan, pipeline, rows)
        metadata, conclusions = self._provenance(geometry, pipeline, estimate), None
        if self._started_with is None:
            derived = derivation.make(metadata)
        else:
            assert derivation.run is not None
            derived, known = derivation.run, self._started_with
            conclusions = {key: md for key, md in metadata.items() if known.get(key) != md}
        emit = derivation.emit
        assert emit is not None
        counts = SliceCounts()
        with suppress(StageFailed):
            if self._started_with is None:
                with record.stage("publish"):
                    derived.start()
            if scan is not None and pipeline is not None:
                checks = self._slice_checks(scan, pipeline, rows)
                publish = VolumePublisher(
                    pipeline, derived, record, counts, engine.progress, checks
                )
                try:
                    publish(rows, scan.slabs)
                finally:
                    for remark in pipeline.remarks + ([] if checks is None else checks.remarks()):
                        record.remark(remark)
        status = self._exit_status()
        frames = self._account()
        with suppress(StageFailed), record.stage("publish"):
            derived.stop(status, record.reason, frames.as_dict(), conclusions)
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
            centre_methods=_by_name(estimate),
            incremental=pipeline is not None and not self._live.why_not,
            why_batch=self._live.why_not,
            n_previews=self._n_previews or 0,
            memory_gib=self._memory_gib,
            volume_path=derived.volume_path,
            checks={} if checks is None else checks.worst(),
            lag_s=time.time() - self._documents.stop_doc.get("time", time.time()),
            first_slice_lag_s=(
                counts.first_slice_time - float(scan.times.max())
                if scan and counts.slices
                else None
            ),
            spooled=bool(emit.waiting),
        )

    # The stages --------------------------------------------------------------------------------

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
        if estimate is not None and estimate.agreed:
            self._engine.centres[geometry.n_columns] = centre
        if estimate is not None and not estimate.agreed and config.rotation_centre_method == "auto":
            self._record.remark(
                f"the rotation centre, {centre:.2f}, is uncertain (confidence "
                f"{estimate.confidence:.2f}): {estimate.reason}; look at the slices, and where "
                "edges are doubled give reconstruction.rotation_centre and replay the run"
            )
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
                self._suited(geometry),
                _fields(scan),
                self._engine.resolved_device(),
                early,
                live.n_clamped,
                self._settings.denoising.uncertainty,
            )

    def _within_memory(self, scan: Scan, pipeline: SlabPipeline, rows: tuple[int, int]) -> Scan:
        """The scan, to be read in as large blocks as there is memory for."""
        with self._record.stage("reconstruct"):
            plan = pipeline.keep_within(
                self._settings.scan.memory_gib,
                scan.shape,
                scan.projections[0].dtype,
                pipeline.preprocess.rows_within(*rows),
                scan.in_files,
            )
        self._memory_gib = plan.total_gib
        logger.info(
            "run %s: %.2f GiB in slabs of %d rows", self._raw_uid, plan.total_gib, plan.slab_rows
        )
        return replace(scan, frames_bytes=plan.frames_bytes)

    def _suited(self, geometry: ScanGeometry) -> Denoiser | None:
        """The denoiser for this run's detector and photons, where its flats and darks tell."""
        denoiser = self._derivation.denoiser
        if denoiser is None or self._profile is None:
            return denoiser
        denoiser, remarks = suited(denoiser, self._profile, geometry.n_columns, geometry.n_angles)
        for remark in remarks:
            self._record.remark(remark)
        return denoiser

    @cached_property
    def _profile(self) -> NoiseProfile | None:
        """The noise of the detector, where the run's own flats and darks tell."""
        if not self._store.has_references:
            return None
        try:
            frames = (self._store.reference_frames(kind) for kind in ("flat", "dark"))
            return measure_noise(*frames)
        except MissingFramesError as error:
            logger.debug("run %s: its detector's noise is not known: %s", self._raw_uid, error)
            return None

    def _slice_checks(
        self, scan: Scan, pipeline: SlabPipeline, rows: tuple[int, int]
    ) -> SliceChecks | None:
        """Checks of some slices; where they can't be made the run goes on without."""
        denoiser, profile, photons = self._derivation.denoiser, self._profile, None
        if denoiser is None or self._settings.denoising.check_slices == 0:
            return None
        try:
            with self._record.timed("check"):
                if profile is not None:
                    n_flats = len(self._store.reference_frames("flat"))
                    photons = Photons(profile.flat_electrons, profile.read_noise, n_flats)
                first_last = pipeline.preprocess.rows_within(*rows)
                return slice_checks(
                    self._settings, denoiser.card, photons, scan, pipeline, first_last
                )
        except Exception as error:
            self._record.remark(f"the denoised slices could not be checked: {error}")
            return None

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
        estimate: CentreEstimate | None,
    ) -> dict[str, Any]:
        """For the start document, as far as it is known."""
        md = provenance(self._settings, self._documents.start_doc, self._derivation.denoiser)
        md |= self._references_from
        if geometry is not None:
            md |= of_geometry(geometry, estimate)
        if pipeline is not None:
            md["slice_origin"] = list(pipeline.origin)
        if "model" in self._record.failed_stages:
            md["degraded"] = f"not denoised: {self._record.failure}"
        return md


def _by_name(estimate: CentreEstimate | None) -> dict[str, float]:
    return {} if estimate is None else {str(name): at for name, at in estimate.methods.items()}


def _fields(scan: Scan) -> Fields:
    references = scan.references
    return Fields(references.dark, references.flats, references.weights_at(scan.times))
