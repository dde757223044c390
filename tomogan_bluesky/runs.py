"""The runs that are going on, on the worker's side.

Enter: the documents of all runs, in the order in which they were emitted, and word of a run some
of whose documents could not be taken. Leave: a `RunReport` for each tomography scan that ended.
"""

from typing import Any

from .engine import Engine
from .processing import RunProcessor
from .report import RunReport
from .routing import Routing


class Runs:
    """Hands each document to its run; the same in a thread and in a process.

    Called with (name, document); returns the report after the stop document of a scan. Documents of
    runs whose start was not seen are left alone.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._runs: dict[str, RunProcessor] = {}
        self._routing = Routing()
        self._given_up: dict[str, str] = {}  # before their start document came

    def __call__(self, name: str, doc: dict[str, Any]) -> RunReport | None:
        if name == "start":
            started = self._runs[doc["uid"]] = RunProcessor(self._engine, doc)
            if doc["uid"] in self._given_up:
                started.mark_backlog(self._given_up.pop(doc["uid"]))
        raw_uid = self._routing.run_of(name, doc)
        if name == "stop":
            self._routing.forget(raw_uid)
        run = self._runs.pop(raw_uid, None) if name == "stop" else self._runs.get(raw_uid)
        return None if run is None else run(name, doc)

    def give_up(self, raw_uid: str, reason: str) -> None:
        """Documents of a run were left out, and why: its derived run will say so and fail."""
        if raw_uid in self._runs:
            self._runs[raw_uid].mark_backlog(reason)
        else:
            self._given_up[raw_uid] = reason

    @property
    def open(self) -> tuple[str, ...]:
        """Uids of the raw runs whose stop document has not come."""
        return tuple(self._runs)
