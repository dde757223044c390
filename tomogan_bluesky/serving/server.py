"""The loop of `tomogan-bluesky serve`: documents from sources to the callback, run by run.

Enter: sources. Leave: the documents of runs that are ours, to the callback, and a report of each
scan. One thread does all of it, so that a run which came live is worked off before anybody looks
in a catalog whether it was.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..callback import TomoGANCallback
from ..intake.archive import documents
from ..intake.routing import Routing
from ..publish.identity import is_derived
from ..report import RunReport
from ..worker.state import WorkerState
from .arrivals import Arrivals
from .inbox import ArchivedRun, Document, Inbox, Source

logger = logging.getLogger(__name__)

_TICK_S = 0.5

# A run that a catalog has whole, and whose stop document has not come over the network for that
# long, has lost it on the way.
_LATE_S = 5.0


@dataclass(frozen=True)
class Share:
    """The part of the runs that one of several servers works off: number `index` of `of`."""

    index: int = 1
    of: int = 1

    def has(self, raw_uid: str) -> bool:
        """Whether a run belongs to it: the same in every process, and spread evenly."""
        digest = hashlib.sha256(raw_uid.encode()).digest()
        return int.from_bytes(digest[:8], "big") % self.of == self.index - 1


class Server:
    """Hands documents of sources to a callback until it is told to end.

    Parameters
    ----------
    callback : TomoGANCallback
        Closed by its owner.
    sources : sequence of Source
    share : Share
    inbox_bytes : int
        Of documents that wait.
    on_report : callable
        Called with the `RunReport` of each scan.
    on_tick : callable
        Called with the server, some times a second at most and at least every half second.

    Attributes
    ----------
    inbox : Inbox
    sources : tuple of Source
    """

    def __init__(
        self,
        callback: TomoGANCallback,
        sources: Sequence[Source],
        *,
        share: Share = Share(),
        inbox_bytes: int = 2**32,
        on_report: Callable[[RunReport], None],
        on_tick: Callable[["Server"], None] = lambda server: None,
    ) -> None:
        self.inbox = Inbox(inbox_bytes)
        self.sources = tuple(sources)
        self._callback = callback
        self._share = share
        self._on_report, self._on_tick = on_report, on_tick
        self._routing = Routing()
        self._open: dict[str, tuple[Source, Arrivals]] = {}
        # Runs that a catalog has whole and that are open here, and when to stop waiting for them.
        self._late: dict[str, tuple[float, ArchivedRun]] = {}
        self._succeeded: set[str] = set()  # so that a catalog need not be read to see it
        self._ending = threading.Event()
        self._hurry = threading.Event()

    @property
    def open_runs(self) -> tuple[str, ...]:
        """Uids of the runs whose stop document has not come."""
        return tuple(self._open)

    @property
    def worker_state(self) -> WorkerState:
        """What the worker behind it is at."""
        return self._callback.worker_state

    def end(self) -> None:
        """End after the run at hand; called a second time, without it. For signal handlers."""
        if self._ending.is_set():
            self._hurry.set()
        self._ending.set()

    def run(self) -> None:
        """Serve until `end` is called."""
        try:
            for source in self.sources:
                source.start(self.inbox)
            while not self._ending.is_set():
                item = self.inbox.get(_TICK_S)
                if isinstance(item, Document):
                    self._document(item)
                elif isinstance(item, ArchivedRun):
                    self._archived(item)
                self._give_up_late()
                self._on_tick(self)
        finally:
            self.inbox.close()
            for source in self.sources:
                source.close()
            for uid in self._open:
                logger.warning("run %s: handed over before its stop document came", uid)

    # Documents, live ---------------------------------------------------------------------------

    def _document(self, item: Document) -> None:
        name, doc = item.name, item.doc
        if name == "start":
            self._started(item.source, doc)
            return
        uid = self._routing.run_of(name, doc)
        if name == "stop":
            self._routing.forget(uid)
        source, arrivals = self._open.get(uid, (None, None))
        if source is not item.source or arrivals is None:
            if name == "stop":
                self._unknown(item.source, uid)
            return
        if name != "stop":
            arrivals.note(name, doc)
            self._callback(name, doc)
            return
        if missing := arrivals.missing(doc):
            # What came of it is a scan that was cut off, and no final version.
            doc = {
                **doc,
                "exit_status": "abort",
                "reason": f"lost on the way to the server: {missing}",
            }
            logger.error(
                "run %s: lost on the way: %s; its volume will be partial until it is replayed",
                uid,
                missing,
            )
        self._end_of(uid, doc)

    def _started(self, source: Source, start_doc: dict[str, Any]) -> None:
        uid = start_doc["uid"]
        if uid in self._open:
            return
        if is_derived(start_doc) or not self._share.has(uid):
            source.finished(uid, True)
            return
        self._open[uid] = (source, Arrivals())
        self._callback("start", start_doc)

    def _unknown(self, source: Source, raw_uid: str) -> None:
        if self._share.has(raw_uid) and raw_uid not in self._succeeded:
            logger.warning(
                "run %s: it began before this server or its connection, and is left out; replay "
                "it, or watch its catalog with --tiled",
                raw_uid,
            )
        source.finished(raw_uid, True)

    def _end_of(self, raw_uid: str, stop_doc: dict[str, Any]) -> None:
        source, _ = self._open.pop(raw_uid)
        self._callback("stop", stop_doc)
        source.finished(raw_uid, self._work_off())
        if raw_uid in self._late:  # does nothing where the live one became the final version
            self._archived(self._late.pop(raw_uid)[1])

    # Runs of a catalog -------------------------------------------------------------------------

    def _archived(self, item: ArchivedRun) -> None:
        uid = item.raw_uid
        if uid in self._succeeded or not self._share.has(uid):
            item.source.finished(uid, True)
            return
        if uid in self._open:  # live, which comes first
            self._late.setdefault(uid, (time.monotonic() + _LATE_S, item))
            return
        try:
            pairs: Iterable[tuple[str, dict[str, Any]]] = documents(item.run)
            for name, doc in pairs:
                self._callback(name, doc)
        except Exception as error:  # whatever a catalog or the way to it may do
            logger.error("run %s: could not be read from its catalog: %s", uid, error)
            self._callback("stop", _lost_stop(uid, f"could not be read from its catalog: {error}"))
            self._work_off()
            item.source.finished(uid, False)
        else:
            item.source.finished(uid, self._work_off())

    def _give_up_late(self) -> None:
        """End live runs whose stop document was lost, so that the catalog's are worked off."""
        for uid, (deadline, _) in list(self._late.items()):
            if time.monotonic() > deadline:
                self._end_of(
                    uid, _lost_stop(uid, "lost on the way to the server: the stop document")
                )

    def _work_off(self) -> bool:
        """Wait for the runs that ended.

        Returns
        -------
        bool
            False where one of them came to nothing that anybody could see (no catalog could be
            reached), or we were told not to wait.
        """
        while not self._hurry.is_set():
            try:
                reports = self._callback.wait(_TICK_S)
            except TimeoutError:
                self._on_tick(self)
                continue
            for report in reports:
                if report.exit_status == "success":
                    self._succeeded.add(report.raw_uid)
                self._on_report(report)
            return all(report.derived_uid is not None for report in reports)
        return False


def _lost_stop(raw_uid: str, reason: str) -> dict[str, Any]:
    return {
        "uid": f"{raw_uid}/stop",
        "run_start": raw_uid,
        "time": time.time(),
        "exit_status": "abort",
        "reason": reason,
        "num_events": {},
    }
