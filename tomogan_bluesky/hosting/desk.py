"""What a worker process asks of the RunEngine's process, and what becomes of it there.

Enter: calls of the worker, its results, and word of its end. Leave: reports; documents of derived
runs, to clients and callables of this process; frames of archives that only this process can read.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any
from uuid import uuid4

from ..config import PublishingConfig
from ..errors import PublishError
from ..intake.archive import CatalogFrames, documents
from ..intake.frames import StoredFrame
from ..publish.broadcast import Broadcast
from ..publish.catalog import Attempt, is_complete
from ..publish.identity import ORIGINAL_RUN
from ..publish.publishers import Publishers
from ..publish.targets import Target
from ..report import RunReport, without_result
from ..worker.wire import Other

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]


class Desk:
    """What the worker process asks of this one; a `worker.owner.Owner`.

    Parameters
    ----------
    targets : sequence of Target
        Those that are strings are the worker's own affair.
    config : PublishingConfig
    progress, report : callables
    """

    def __init__(
        self,
        targets: Sequence[Target],
        config: PublishingConfig,
        progress: Progress | None,
        report: Callable[[RunReport], None],
    ) -> None:
        self._publishers = {
            index: Publishers(target, config)
            for index, target in enumerate(targets)
            if not isinstance(target, str)
        }
        self._progress, self._report = progress, report
        # By raw run, until it is finished: the derived runs that were published here, and the
        # frames that the worker may ask for.
        self._published: dict[str, list[_Published]] = {}
        self._frames: dict[str, dict[int, CatalogFrames]] = {}
        self._handles = count(1)
        self._now: dict[tuple[int, int], _Published] = {}  # by the worker's number for it
        self._odd: set[type] = set()

    def result(self, group: str, result: Any) -> None:
        self._forget(group)
        if result is not None:
            self._report(RunReport.from_dict(result))

    def lost(self, group: str, reason: str) -> None:
        self._forget(group)
        reason = f"worker: {reason}; the raw data are safe: replay the run to get its slices"
        self._report(without_result(group, reason))

    def interrupted(self, groups: list[str]) -> None:
        """Close the derived runs that were begun here: others will be made in their place."""
        for group in groups:
            for run in self._published.get(group, []):
                if run.exit_status is None:
                    run.exit_status = "fail"
                    self._close(run)

    def message(self, message: Any) -> None:
        if self._progress is not None:
            self._progress(*message)

    def call(self, method: str, args: list[Any]) -> Any:
        match method, args:
            case "publish", [index, number, name, doc]:
                return self._publish(index, number, name, doc)
            case "finish", [index, number]:
                return self._finish(index, number)
            case "attempts", [index, derivation]:
                return [asdict(attempt) for attempt in self._attempts(index, derivation)]
            case "documents", [index, uid]:
                return self._documents(index, uid)
            case "read", [handle, {"block": block}, rows]:
                return self._find(handle).read(slice(*block), slice(*rows))
            case "read", [handle, {"single": indices}, rows]:
                return self._find(handle).read(indices, slice(*rows))
        raise AssertionError(f"a worker of another version? It asked for {method!r}")

    def replace(self, group: str, value: Any) -> Any:
        if isinstance(value, StoredFrame):
            handle, about = self._handle(group, value.source)
            return Other([handle, value.index, about])
        if hasattr(value, "dtype") or isinstance(value, Other):
            return value
        if type(value) not in self._odd:
            self._odd.add(type(value))
            logger.warning(
                "run %s: expected plain values and arrays in documents, got a %s; its text is used",
                group,
                type(value).__name__,
            )
        return str(value)

    # Publishing --------------------------------------------------------------------------------

    def _publish(self, index: int, number: int, name: str, doc: dict[str, Any]) -> str | None:
        """Publish a document; returns why its run waits in the spool, where it does."""
        if name == "start":
            run = _Published(
                self._publishers[index].broadcast(),
                index,
                doc["uid"],
                doc["derivation"],
                doc["attempt"],
            )
            self._now[index, number] = run
            self._published.setdefault(doc[ORIGINAL_RUN], []).append(run)
        run = self._now[index, number]
        run.emit(name, doc)
        if name == "stop":
            run.exit_status, run.is_complete = doc["exit_status"], is_complete(doc)
            del self._now[index, number]
        run.emit.check()
        return next(iter(run.emit.waiting), None)

    def _finish(self, index: int, number: int) -> None:
        """Wait until the documents of a run have arrived."""
        emit = self._now[index, number].emit
        emit.finish()
        emit.check()

    def _attempts(self, index: int, derivation: str) -> list[Attempt]:
        # A callable remembers nothing, so we do, for as long as a worker may take a run up again.
        known = {
            run.uid: Attempt(run.uid, run.attempt, run.exit_status, run.is_complete)
            for runs in list(self._published.values())
            for run in runs
            if run.index == index and run.derivation == derivation
        }
        known |= {a.uid: a for a in self._publishers[index].attempts(derivation)}
        return list(known.values())

    def _close(self, run: "_Published") -> None:
        stop = {
            "uid": str(uuid4()),
            "time": time.time(),
            "run_start": run.uid,
            "exit_status": "fail",
            "reason": "the worker process ended while it made this run",
            "num_events": {},
        }
        try:
            run.emit("stop", stop)
            run.emit.check()
        except PublishError as error:
            logger.error("derived run %s could not be closed: %s", run.uid, error)

    # Frames ------------------------------------------------------------------------------------

    def _documents(self, index: int, uid: str) -> Iterable[Any] | None:
        run = self._publishers[index].find_run(uid)
        return None if run is None else [run.metadata.get("stop"), list(documents(run))]

    def _handle(self, group: str, source: Any) -> tuple[int, dict[str, Any]]:
        known = self._frames.setdefault(group, {})
        for handle, frames in known.items():
            if frames is source:
                return handle, describe(source)
        handle = next(self._handles)
        known[handle] = source
        return handle, describe(source)

    def _find(self, handle: int) -> CatalogFrames:
        for known in list(self._frames.values()):
            if handle in known:
                return known[handle]
        raise LookupError("the run whose frames are asked for has ended, or its worker was lost")

    def close(self) -> None:
        """Let go of what was made to publish."""
        for publishers in self._publishers.values():
            publishers.close()

    def _forget(self, group: str) -> None:
        self._published.pop(group, None)
        self._frames.pop(group, None)


@dataclass
class _Published:
    """A derived run on its way to one target."""

    emit: Broadcast
    index: int
    uid: str
    derivation: str
    attempt: int
    exit_status: str | None = None
    is_complete: bool = False


def describe(frames: CatalogFrames) -> dict[str, Any]:
    """What can be known of frames in a catalog without reading them."""
    return {
        "dtype": frames.dtype.str,
        "frame_shape": list(frames.frame_shape),
        "frames_a_point": frames.frames_a_point,
        "count": frames.count(0),
        "resource": frames.resource,
    }
