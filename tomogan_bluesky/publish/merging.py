"""Documents that travel together take one request instead of many.

Enter: documents of a run, in their order. Leave: documents that say the same, as few as can be: of
the documents about data that follow each other, those of one stream become one page, and those of
one file one range.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import event_model
import numpy as np

Named = tuple[str, Mapping[str, Any]]

MOST_BYTES = 64 * 2**20
"""Of pixels in documents that travel together: they are in memory more than once on their way."""

_SMALL = 2048  # bytes that a document without pixels takes, or a little more


def size_of(doc: Mapping[str, Any]) -> int:
    """Bytes that a document takes, nearly; pixels to the byte."""
    return _SMALL + sum(map(_n_bytes, doc.get("data", {}).values()))


def merged(documents: Iterable[Named], most_bytes: int = MOST_BYTES) -> Iterator[Named]:
    """The same documents, merged where nothing is lost by it.

    Parameters
    ----------
    documents : iterable of (name, document)
        Of one run. Each stream keeps its order; streams may pass each other, as event-model allows.
    most_bytes : int
        What is merged at a time has no more pixels, unless a single document has.
    """
    waiting: dict[tuple[str, str], list[Named]] = {}
    n_bytes = 0
    for name, doc in documents:
        key = _mergeable(name, doc)
        if key is None or n_bytes + size_of(doc) > most_bytes:
            yield from _merge(waiting)
            waiting, n_bytes = {}, 0
        if key is None:
            yield name, doc
        else:
            waiting.setdefault(key, []).append((name, doc))
            n_bytes += size_of(doc)
    yield from _merge(waiting)


def _mergeable(name: str, doc: Mapping[str, Any]) -> tuple[str, str] | None:
    """What a document may be merged with others of; None where with none."""
    if name in ("event", "event_page"):
        return "event_page", doc["descriptor"]
    return (name, doc["stream_resource"]) if name == "stream_datum" else None


def _merge(waiting: Mapping[tuple[str, str], list[Named]]) -> Iterator[Named]:
    for (kind, _), documents in waiting.items():
        if len(documents) == 1:
            yield documents[0]
        elif kind == "event_page":
            yield kind, event_model.merge_event_pages(_page(*named) for named in documents)
        else:
            yield from ((kind, doc) for doc in _joined(doc for _, doc in documents))


def _page(name: str, doc: Any) -> Any:
    return doc if name == "event_page" else event_model.pack_event_page(doc)


def _joined(ranges: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The stream_datums of one file, those that follow each other without a gap as one."""
    last: Mapping[str, Any] | None = None
    for doc in ranges:
        if last is None:
            last = doc
        elif _follows(last, doc):
            spans = {
                key: {"start": last[key]["start"], "stop": doc[key]["stop"]}
                for key in ("indices", "seq_nums")
            }
            last = {**doc, **spans}
        else:
            yield last
            last = doc
    if last is not None:
        yield last


def _follows(last: Mapping[str, Any], doc: Mapping[str, Any]) -> bool:
    return doc["descriptor"] == last["descriptor"] and all(
        doc[key]["start"] == last[key]["stop"] for key in ("indices", "seq_nums")
    )


def _n_bytes(value: Any) -> int:
    if isinstance(value, np.ndarray):
        return value.nbytes
    return sum(map(_n_bytes, value)) if isinstance(value, list) else 8
