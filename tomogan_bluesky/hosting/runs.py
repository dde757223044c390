"""The runs that are going on, on the worker's side.

Enter: the documents of all runs, in the order in which they were emitted, and word of a run some
of whose documents could not be taken. Leave: a `RunReport` for each tomography scan that ended.
"""

import logging
from typing import Any

from ..errors import TomoGANError
from ..intake.archive import documents
from ..intake.routing import Routing
from ..report import RunReport
from ..run.engine import Engine
from ..run.processing import RunProcessor

logger = logging.getLogger(__name__)

_CLOSED = (
    "the callback was closed, or its program ended, before the stop document of the scan came; the "
    "raw data are safe: replay the run to get its slices"
)


class Runs:
    """Hands each document to its run; the same in a thread and in a process.

    Called with (name, document); returns the report after the stop document of a scan. Documents of
    runs whose start was not seen are left alone. A run some of whose documents were left out is
    replayed, if a catalog that is published to has it by then; if not, its derived run fails.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._runs: dict[str, RunProcessor] = {}
        self._routing = Routing()
        self._given_up: dict[str, str] = {}  # runs some of whose documents were left out, and why

    def __call__(self, name: str, doc: dict[str, Any]) -> RunReport | None:
        if name == "start" and doc["uid"] not in self._runs:  # a transport may deliver it twice
            started = self._runs[doc["uid"]] = RunProcessor(self._engine, doc)
            if doc["uid"] in self._given_up:
                started.mark_backlog(self._given_up[doc["uid"]])
        raw_uid = self._routing.run_of(name, doc)
        if name != "stop":
            run = self._runs.get(raw_uid)
            return None if run is None else run(name, doc)
        self._routing.forget(raw_uid)
        why = self._given_up.pop(raw_uid, None)
        last = self._runs.pop(raw_uid, None)
        report = None if last is None else last(name, doc)
        if why is None or last is None:
            return report
        return self._replayed(raw_uid) or report

    def give_up(self, raw_uid: str, reason: str) -> None:
        """Documents of a run were left out, and why; may come before its start document."""
        self._given_up[raw_uid] = reason
        if raw_uid in self._runs:
            self._runs[raw_uid].mark_backlog(reason)

    def close(self) -> None:
        """No more documents will come: end what was begun of the runs that are still open."""
        for run in self._runs.values():
            run.close(_CLOSED)
        self._runs.clear()

    def _replayed(self, raw_uid: str) -> RunReport | None:
        """The report of a run that was taken from a catalog; None where none has all of it."""
        report = None
        try:
            run = self._engine.publishers.find_run(raw_uid)
            if run is None or not run.metadata.get("stop"):
                return None
            logger.warning("run %s: replayed from the catalog, for it did not come whole", raw_uid)
            archived = RunProcessor(self._engine, dict(run.metadata["start"]))
            for name, doc in documents(run):
                report = archived(name, doc)
        except TomoGANError as error:
            logger.error("run %s: could not be replayed from the catalog: %s", raw_uid, error)
        return report
