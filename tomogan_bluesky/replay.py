"""Archived runs through the same callback as live ones.

Enters: a run of a Databroker or Tiled catalog, or an iterable of documents. Leave: its documents,
to the callback. The frames come from the arrays of the run's streams and the points from its
``seq_num`` column, slab of frames by slab, so that a scan that was paused and rewound comes back
as it was taken; the exported documents of such a run would not.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from .callback import TomoGANCallback
from .errors import IntakeError
from .report import RunReport

logger = logging.getLogger(__name__)

# Frames that are fetched from the catalog and handed over together.
_FRAMES_A_PAGE = 64

Documents = Iterable[tuple[str, Mapping[str, Any]]]
Progress = Callable[[int, int], None]


def replay(
    runs: Any, callback: TomoGANCallback, progress: Progress | None = None
) -> list[RunReport]:
    """Replay archived runs through a callback, and wait until they are worked off.

    Parameters
    ----------
    runs : BlueskyRun, iterable of (name, doc), or a list of these
        A run as a Databroker or Tiled catalog gives it, or its documents.
    callback : TomoGANCallback
    progress : callable, optional
        Called with the frames read so far and the frames in all.

    Returns
    -------
    list of RunReport

    Raises
    ------
    IntakeError
        A run whose arrays and events do not belong together.
    """
    reports = []
    for run in runs if isinstance(runs, list | tuple) else [runs]:
        for name, doc in documents(run, progress) if hasattr(run, "metadata") else run:
            callback(name, doc)
        reports += callback.wait()
    return reports


def documents(run: Any, progress: Progress | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """The documents of an archived run: start, and for each stream descriptor and event pages.

    Parameters
    ----------
    run : BlueskyRun
        From a Tiled catalog; layout 3.
    progress : callable, optional
        Called with the frames read so far and the frames in all.

    Yields
    ------
    name : str
    doc : dict
        As event-model has them; frames are arrays inside event pages, whatever they were when the
        run was acquired.
    """
    start = dict(run.metadata["start"])
    yield "start", start
    streams = [_Stream(run[name]) for name in run if hasattr(run[name], "descriptors")]
    total, done = sum(stream.n_points for stream in streams), 0
    for stream in streams:
        yield "descriptor", stream.descriptor
        for first in range(0, stream.n_points, _FRAMES_A_PAGE):
            last = min(first + _FRAMES_A_PAGE, stream.n_points)
            yield "event_page", stream.page(first, last)
            done += last - first
            if progress is not None:
                progress(done, total)
    yield "stop", dict(run.metadata.get("stop") or _stop_for(start))


class _Stream:
    """One stream of an archived run, readable page by page."""

    def __init__(self, node: Any) -> None:
        self._node = node
        archived = node.descriptors[0]
        keys = archived["data_keys"]
        self.descriptor = {
            **archived,
            "data_keys": {
                name: {field: value for field, value in key.items() if field != "external"}
                for name, key in keys.items()
            },
        }
        self._arrays = {
            name: node[name] for name, key in keys.items() if key["shape"] and name in node
        }
        self._columns = self._read_columns([name for name in keys if name not in self._arrays])
        self.n_points = self._count()

    def _read_columns(self, scalars: list[str]) -> dict[str, np.ndarray]:
        wanted = [name for name in [*scalars, "seq_num", "time"] if name in self._node]
        return {name: np.asarray(self._node[name].read()) for name in wanted}

    def _count(self) -> int:
        lengths = {name: len(array) for name, array in self._arrays.items()}
        if "seq_num" in self._columns:
            lengths["seq_num"] = len(self._columns["seq_num"])
        if len(set(lengths.values())) > 1:
            raise IntakeError(
                f"stream {self.descriptor['name']!r}: expected as many frames as events, got "
                + ", ".join(f"{n} of {name}" for name, n in lengths.items())
                + "; the run was not archived whole"
            )
        return max(lengths.values(), default=0)

    def page(self, first: int, last: int) -> dict[str, Any]:
        """Points [first, last) as an event page."""
        count = range(first, last)
        columns = {name: values[first:last] for name, values in self._columns.items()}
        seq_nums = [int(n) for n in columns.pop("seq_num", np.add(count, 1))]
        # Without a column of times, their order in the file is the order of their taking.
        times = [float(t) for t in columns.pop("time", count)]
        data = {name: values.tolist() for name, values in columns.items()}
        data |= {name: list(array[first:last]) for name, array in self._arrays.items()}
        return {
            "uid": [f"{self.descriptor['uid']}/{n}" for n in count],
            "descriptor": self.descriptor["uid"],
            "seq_num": seq_nums,
            "time": times,
            "data": data,
            "timestamps": dict.fromkeys(data, times),
            "filled": {},
        }


def _stop_for(start: Mapping[str, Any]) -> dict[str, Any]:
    """The stop document of a run that was archived without one: it was cut off."""
    return {
        "uid": f"{start['uid']}/stop",
        "run_start": start["uid"],
        "time": start["time"],
        "exit_status": "abort",
        "reason": "the run was archived without a stop document",
        "num_events": {},
    }
