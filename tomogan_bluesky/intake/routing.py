"""Which run a document belongs to.

Enters: each document of any number of runs. Leaves: the uid of its raw run.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

STRUCTURAL = ("start", "descriptor", "resource", "stream_resource", "stop")
"""Documents that hold a run together. They are few and without pixels, and never refused."""

# For each kind of document, the key that leads to its run: directly, or through another document.
_PARENT = {
    "descriptor": "run_start",
    "resource": "run_start",
    "stream_resource": "run_start",
    "stop": "run_start",
    "event": "descriptor",
    "event_page": "descriptor",
    "datum": "resource",
    "datum_page": "resource",
    "stream_datum": "descriptor",
}


class Routing:
    """Leads from a document to its run; remembers what it needs until `forget`."""

    def __init__(self) -> None:
        self._run_of: dict[str, str] = {}
        self._uids: defaultdict[str, list[str]] = defaultdict(list)

    def run_of(self, name: str, doc: Mapping[str, Any]) -> str:
        """Uid of the raw run of a document; "" where that can't be said."""
        if name == "start":
            return str(doc["uid"])
        parent = doc.get(_PARENT.get(name, ""), "")
        run = self._run_of.get(parent, parent)
        if name in ("descriptor", "resource", "stream_resource"):
            self._run_of[doc["uid"]] = run
            self._uids[run].append(doc["uid"])
        return str(run)

    def forget(self, raw_uid: str) -> None:
        """Let go of all documents of a run: it has ended."""
        for uid in self._uids.pop(raw_uid, ()):
            self._run_of.pop(uid, None)
