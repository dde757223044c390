"""Whether all documents of a run arrived.

Enter: the documents of one run as they come over a network that may lose some. Leaves, with its
stop document: what is missing, in words.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

_OF_POINTS = ("event", "event_page", "stream_datum")


class Arrivals:
    """Counts the points of one run."""

    def __init__(self) -> None:
        self._stream_of: dict[str, str] = {}
        self._points: defaultdict[str, set[int]] = defaultdict(set)

    def note(self, name: str, doc: Mapping[str, Any]) -> None:
        """A document of the run came."""
        if name == "descriptor":
            self._stream_of[doc["uid"]] = doc["name"]
        # Of a stream whose descriptor was lost, nothing can be used.
        elif name in _OF_POINTS and (stream := self._stream_of.get(doc["descriptor"])):
            self._points[stream].update(_seq_nums(name, doc))

    def missing(self, stop_doc: Mapping[str, Any]) -> str:
        """What did not come of all that the stop document counts; "" where nothing is missing."""
        return ", ".join(
            f"{number - len(self._points[stream])} of {number} points of stream {stream!r}"
            for stream, number in stop_doc.get("num_events", {}).items()
            if len(self._points[stream]) < number
        )


def _seq_nums(name: str, doc: Mapping[str, Any]) -> Iterable[int]:
    if name == "event":
        return [doc["seq_num"]]
    if name == "event_page":
        return list(doc["seq_num"])
    return range(doc["seq_nums"]["start"], doc["seq_nums"]["stop"])
