"""What became of one raw run: collected while it is processed, then told to people and programs.

Whatever this module logs stands in the report of the run, too (see `logs.without_reports`).
"""

import logging
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import TypeAdapter

from .intake.scan import FrameAccount

logger = logging.getLogger(__name__)

ExitStatus = Literal["success", "abort", "fail"]


@dataclass(frozen=True)
class RunReport:
    """The outcome of one raw run, as `TomoGANCallback.wait` returns it.

    Attributes
    ----------
    raw_uid : str
    derived_uid : str or None
        The derived run; None where none could be published.
    exit_status : "success", "abort" or "fail"
        "abort": the raw run ended early, and what there was of it is reconstructed.
    reason : str
        The first error; for a success, what is still to be said (frames missing or rejected).
    frames : FrameAccount
    seconds : dict of str to float
        Time by stage: "live", "model", "intake", "centre", "reconstruct", "denoise", "check",
        "publish".
    n_slices, n_failed_slices : int
        Slices published, and those of them that hold NaN because their slab failed.
    n_clamped : int
        Transmissions that were raised to the smallest allowed one before the logarithm.
    rotation_centre : float or None
        Detector column of the axis, as used.
    centre_confidence : float or None
        In [0, 1], from 0.5 on if the methods agree; None where the centre was given.
    centre_methods : dict of str to float
        What each method has found.
    incremental : bool
        Whether the slices come from what was reconstructed while the scan was taken.
    why_batch : str
        Why they do not, and the whole scan was reconstructed in the end.
    n_previews : int
        Published while the scan was taken.
    memory_gib : float or None
        Predicted before the slabs of the whole scan were reconstructed; frames that came inside
        events are not counted.
    volume_path : Path or None
        The HDF5 file of the slices, where they are in one.
    lag_s : float or None
        From the raw run's stop document to the end of the derived run, by the clocks of both
        machines; for a replay it is the age of the scan. None where nothing was published.
    first_slice_lag_s : float or None
        From the last projection to the moment when the first slices were made and handed to the
        publishers, whose threads bring them to Tiled meanwhile; below zero where that was during
        the scan. When a client can read them is what ``benchmarks/live.py`` measures.
    already_done : bool
        A successful derived run of the same settings was there, and nothing was computed.
    checks : dict of str to float
        The largest number of each check of denoised slices (see `pipeline.checks`); what they mean
        where they are too large is in `reason`.
    spooled : bool
        A server was away: the derived run waits on disk, and is brought there when it is back.
    """

    raw_uid: str
    derived_uid: str | None
    exit_status: ExitStatus
    reason: str = ""
    frames: FrameAccount = field(default_factory=FrameAccount)
    seconds: dict[str, float] = field(default_factory=dict)
    n_slices: int = 0
    n_failed_slices: int = 0
    n_clamped: int = 0
    rotation_centre: float | None = None
    centre_confidence: float | None = None
    centre_methods: dict[str, float] = field(default_factory=dict)
    incremental: bool = False
    why_batch: str = ""
    n_previews: int = 0
    memory_gib: float | None = None
    volume_path: Path | None = None
    lag_s: float | None = None
    first_slice_lag_s: float | None = None
    already_done: bool = False
    checks: dict[str, float] = field(default_factory=dict)
    spooled: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **asdict(self),
            "volume_path": None if self.volume_path is None else str(self.volume_path),
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """What `as_dict` has made."""
        return TypeAdapter(cls).validate_python(content)


def without_result(raw_uid: str, reason: str) -> RunReport:
    """The report of a run that nothing could be made of; logged, as all that goes wrong is."""
    logger.error("run %s: %s", raw_uid, reason)
    return RunReport(raw_uid, None, "fail", reason)


class StageFailed(Exception):
    """A stage ended with an error, which is recorded; what depends on the stage can't go on."""


class RunRecord:
    """Collects the outcome of one raw run: its first error, its remarks, its times."""

    def __init__(self, raw_uid: str) -> None:
        self.raw_uid = raw_uid
        self.failure: str | None = None
        self.n_failures = 0
        self.failed_stages: set[str] = set()
        self.seconds: dict[str, float] = defaultdict(float)
        self._remarks: list[str] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; an error in it is kept if it is the first, logged, and becomes StageFailed.

        Raises
        ------
        StageFailed
        """
        with self.timed(name):
            try:
                yield
            except Exception as error:
                self.fail(name, error)
                raise StageFailed(name) from error

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Time something whose errors are not those of the run."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - started

    def fail(self, stage: str, error: Exception) -> None:
        """Keep the first error of the run, and log each with the uid and the stage."""
        self.n_failures += 1
        self.failed_stages.add(stage)
        text = f"{stage}: {error}" if str(error) else f"{stage}: {type(error).__name__}"
        if self.failure is None:
            self.failure = text
        logger.error("run %s: %s", self.raw_uid, text)
        logger.debug("run %s: where it happened", self.raw_uid, exc_info=error)

    def remark(self, text: str) -> None:
        """Something that a reader of the result must know and that is no failure."""
        self._remarks.append(text)
        logger.warning("run %s: %s", self.raw_uid, text)

    @property
    def reason(self) -> str:
        """For the stop document and the report: the first error, then the remarks."""
        return "; ".join([*([self.failure] if self.failure else []), *self._remarks])
