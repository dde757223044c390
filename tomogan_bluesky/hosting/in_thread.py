"""Runs that are processed on a thread of the RunEngine's process.

Enter: documents. Leave: reports. Weaker than `in_process`: what takes this process down takes the
scan down, and computation shares the interpreter with the RunEngine.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..config import Settings
from ..denoise.denoiser import Denoiser
from ..publish.publishers import Publishers
from ..report import RunReport
from ..run.engine import Engine, Progress
from ..worker.state import WorkerState
from ..worker.thread import ThreadWorker
from .runs import Runs

# Documents that wait for the worker. A scan of 10,000 projections fits many times over; the bound
# is there so that a worker that hangs for hours does not take the memory of the beamline.
_QUEUE_LIMIT = 100_000


class InThread:
    """See `callback.Workplace`.

    Parameters
    ----------
    publishers, model, settings, plan_wins, device, again, progress
        As in `Engine`.
    report : callable
        Called with each `RunReport`.
    """

    def __init__(
        self,
        publishers: Publishers,
        model: str | Path | Denoiser | None,
        settings: Settings,
        *,
        plan_wins: bool,
        device: str,
        again: bool,
        progress: Progress | None,
        report: Callable[[RunReport], None],
    ) -> None:
        self.pid = None
        self._taken_bytes = self._handled_bytes = 0  # each written by one thread
        self._publishers = publishers
        self._runs = Runs(Engine(publishers, model, settings, plan_wins, device, again, progress))
        self._report = report
        self._worker = ThreadWorker(self._handle, "worker", _QUEUE_LIMIT, self._runs.close)

    def put(
        self, raw_uid: str, name: str, doc: dict[str, Any], n_bytes: int, *, must: bool, last: bool
    ) -> bool:
        taken = self._worker.put((raw_uid, name, doc, n_bytes), must=must, last=last)
        if taken:
            self._taken_bytes += n_bytes
        return taken

    def give_up(self, raw_uid: str, reason: str) -> None:
        self._worker.put((raw_uid, None, reason, 0), must=True)

    def keep(self, raw_uid: str, array: Any) -> Any:
        return array.copy()

    def join(self, timeout: float | None) -> bool:
        return self._worker.join(timeout)

    def close(self, timeout: float | None) -> bool:
        ended = self._worker.close(timeout)
        if ended:
            self._publishers.close()
        return ended

    @property
    def state(self) -> WorkerState:
        return WorkerState(self._worker.waiting, self._taken_bytes - self._handled_bytes)

    def _handle(self, item: tuple[str, str | None, Any, int]) -> None:
        raw_uid, name, content, n_bytes = item
        self._handled_bytes += n_bytes
        if name is None:
            self._runs.give_up(raw_uid, content)
            return
        report = self._runs(name, content)
        if report is not None:
            self._report(report)
