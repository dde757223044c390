"""Slab by slab, from a pipeline to a derived run.

Enter: a pipeline, and a way to read the slabs of its scan. Leave: slices, published in the order of
their rows, and how many of them failed.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch

from ..pipeline.checks import SliceChecks
from ..pipeline.slabs import Slab, SlabPipeline
from ..publish.documents import DerivedRun
from ..report import RunRecord, StageFailed
from .engine import Progress


@dataclass
class SliceCounts:
    """Slices to come, published, and failed, transmissions that were clamped, and when the first
    slices were handed to the publishers, in seconds since 1970."""

    expected: int = 0
    slices: int = 0
    failed_slices: int = 0
    clamped: int = 0
    first_slice_time: float = 0.0


@dataclass
class _Waiting:
    """A slab that was reconstructed, or could not be, and was not published yet."""

    slab: Slab
    volumes: dict[str, np.ndarray]
    reconstructed: bool


class VolumePublisher:
    """Reconstructs, denoises and publishes the slabs of one scan.

    A slab that fails is published as NaN.

    Parameters
    ----------
    pipeline : SlabPipeline
    derived : DerivedRun
        Started.
    record : RunRecord
        Keeps the first error, and the times.
    counts : SliceCounts
        Counts on, whatever happens.
    progress : callable, optional
        See `Engine`.
    checks : SliceChecks, optional
        Of some denoised slices; their numbers are published beside each slice.
    """

    def __init__(
        self,
        pipeline: SlabPipeline,
        derived: DerivedRun,
        record: RunRecord,
        counts: SliceCounts,
        progress: Progress | None = None,
        checks: SliceChecks | None = None,
    ) -> None:
        self._checks = checks
        self._pipeline = pipeline
        self._derived = derived
        self._record = record
        self._counts = counts
        self._progress = progress
        self._first = 0
        self._waiting: deque[_Waiting] = deque()

    def __call__(
        self,
        rows: tuple[int, int],
        read: Callable[[list[tuple[int, int]]], Iterator[np.ndarray]],
    ) -> None:
        """Publish all slabs, each when the slices after it that its denoising looks at are there.

        Parameters
        ----------
        rows : tuple of int
            Recorded rows [first, last).
        read : callable
            See `SlabPipeline.slabs`.

        Raises
        ------
        StageFailed
            Frames can't be read, or slices not be published.
        """
        record, windows = self._record, self._pipeline.windows
        with record.stage("reconstruct"):
            first, last = self._pipeline.preprocess.rows_within(*rows)
        self._first, self._counts.expected = first, last - first
        n = self._pipeline.geometry.n_columns
        # A viewer shows the last one first.
        denoised = () if windows is None else windows.quantities[::-1]
        quantities = ("reconstruction", *denoised)
        with record.stage("publish"):
            scalars = ("detector_row", *(() if self._checks is None else self._checks.scalars))
            self._derived.open_volume((last - first, n, n), quantities, scalars)
        slabs = self._pipeline.slabs(first, last, read)
        while True:
            try:
                with record.stage("intake"):
                    slab = next(slabs, None)
            except StageFailed:
                self._publish_the_rest()
                raise
            if slab is None:
                return self._publish_the_rest()
            shape = (slab.last - slab.first, n, n)
            volumes = {name: np.full(shape, np.nan, np.float32) for name in quantities}
            slices = None
            with suppress(StageFailed), record.stage("reconstruct"):
                slices, n_clamped = slab.reconstruct()
                volumes["reconstruction"] = slices.cpu().numpy()
                self._counts.clamped += n_clamped
            self._waiting.append(_Waiting(slab, volumes, slices is not None))
            if windows is not None and slices is not None:
                windows.add(slices)
            elif windows is not None:
                windows.end()
            self._publish_ready()

    def _publish_the_rest(self) -> None:
        if self._pipeline.windows is not None:
            self._pipeline.windows.end()
        self._publish_ready()

    def _publish_ready(self) -> None:
        """Denoise and publish the slabs at the head of the queue whose neighbours are there."""
        record, windows, waiting = self._record, self._pipeline.windows, self._waiting
        while waiting and (windows is None or not waiting[0].reconstructed or windows.ready):
            done = waiting.popleft()
            failures = record.n_failures
            if windows is not None and done.reconstructed:
                with suppress(StageFailed), record.stage("denoise"):
                    made = windows.take()
                    done.volumes |= {name: array.cpu().numpy() for name, array in made.items()}
            failed = not done.reconstructed or record.n_failures > failures
            rows = range(done.slab.first, done.slab.last)
            recorded = [self._pipeline.preprocess.recorded_row(row) for row in rows]
            found = self._check(rows, done.volumes)
            with record.stage("publish"):
                self._derived.write_slab(
                    done.slab.first - self._first, done.volumes, {"detector_row": recorded, **found}
                )
            if not self._counts.slices:
                self._counts.first_slice_time = time.time()
            self._counts.slices += len(rows)
            self._counts.failed_slices += len(rows) * failed
            if self._progress is not None:
                self._progress(record.raw_uid, self._counts.slices, self._counts.expected)

    def _check(self, rows: range, volumes: dict[str, np.ndarray]) -> dict[str, list[float]]:
        """Numbers of each slice; a check that fails costs them and nothing else."""
        if self._checks is None:
            return {}
        unknown = {name: [float("nan")] * len(rows) for name in self._checks.scalars}
        before, after = (torch.from_numpy(volumes[n]) for n in ("reconstruction", "denoised"))
        try:
            with self._record.timed("check"):
                return self._checks.slab(rows, before, after)
        except Exception as error:
            self._record.remark(f"slices {rows.start}:{rows.stop} could not be checked: {error}")
            return unknown
