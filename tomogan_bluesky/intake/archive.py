"""Archived runs as documents again.

Enters: a run of a Databroker or Tiled catalog. Leave: its documents, with the frames as references
into the catalog. They are made from the arrays of the run's streams and from its ``seq_num``
column, so that a scan that was paused and rewound comes back as it was taken; the documents that a
catalog exports of such a run do not.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import AssetError, IntakeError
from .frames import StoredFrame

# Points that are handed over together.
_POINTS_A_PAGE = 256

Progress = Callable[[int, int], None]


class CatalogFrames:
    """The frames of an array of a catalog; a `FrameSource`.

    Parameters
    ----------
    array : array client of Tiled
        Of shape (point, row, column), or with axes between for the frames of a point.

    Attributes
    ----------
    frames_a_point : int
    """

    def __init__(self, array: Any) -> None:
        self._array = array
        self._shape = tuple(array.shape)
        self.frames_a_point = int(np.prod(self._shape[1:-2], dtype=int))

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self._array.dtype)

    @property
    def frame_shape(self) -> tuple[int, ...]:
        return self._shape[1:][-2:]

    def count(self, at_least: int) -> int:
        return self._shape[0] * self.frames_a_point

    def absent(self, indices: Sequence[int]) -> dict[int, str]:
        n = self.count(0)
        why = f"expected a frame in the catalog, got an array of {n} frames"
        return {index: why for index in indices if index >= n}

    def has(self, index: int) -> bool:
        return index < self.count(0)

    def read(self, indices: slice | list[int], rows: slice) -> np.ndarray:
        first, last = (
            (indices.start, indices.stop)
            if isinstance(indices, slice)
            else (min(indices), max(indices) + 1)
        )
        n = self.frames_a_point
        points = slice(first // n, -(-last // n))
        between = (slice(None),) * (len(self._shape) - 3)
        try:
            block = np.asarray(self._array[(points, *between, rows)])
        except Exception as error:  # whatever a server or the way to it may do
            raise AssetError(
                f"expected frames {first} to {last - 1} from the catalog, got "
                f"{type(error).__name__}: {error}; can the server read the run's files?"
            ) from error
        frames = block.reshape(-1, *block.shape[-2:])
        wanted = np.arange(first, last) if isinstance(indices, slice) else np.asarray(indices)
        return frames[wanted - points.start * n]

    def times(self, indices: slice) -> np.ndarray | None:
        return None

    @cached_property
    def resource(self) -> dict[str, Any] | None:
        """The HDF5 file that the frames are in, as a `stream_resource` document; None: no such."""
        sources = self._array.data_sources() or []
        if len(sources) != 1 or sources[0].mimetype != "application/x-hdf5":
            return None
        uris = [asset.data_uri for asset in sources[0].assets]
        if len(uris) != 1:
            return None
        parameters = dict(sources[0].parameters)
        return {
            "uid": uris[0],
            "data_key": "",
            "mimetype": sources[0].mimetype,
            "uri": uris[0],
            "parameters": parameters,
        }

    def close(self) -> None:
        """The catalog's client is somebody else's."""


def documents(run: Any, progress: Progress | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """The documents of an archived run: start, for each stream descriptor and event pages, stop.

    Parameters
    ----------
    run : BlueskyRun
        From a Tiled catalog. One on MongoDB keeps the documents as they were recorded, and gives
        them out as they are.
    progress : callable, optional
        Called with the points so far and the points in all.

    Yields
    ------
    name : str
    doc : dict
        As event-model has them, except that the frames in event pages are `StoredFrame`s, whatever
        they were when the run was acquired.

    Raises
    ------
    IntakeError
        A run whose arrays and events do not belong together.
    """
    if not any(s.name == "BlueskyRun" and s.version.startswith("3") for s in run.specs):
        yield from _as_recorded(run)
        return
    start = dict(run.metadata["start"])
    # Tiled keeps them at the node; what is derived must not be more public than the run.
    if tags := getattr(run, "access_tags", None):
        start["tiled_access_tags"] = list(tags)
    yield "start", start
    streams = [_Stream(name, node, start["uid"]) for name, node in _streams_of(run)]
    total, done = sum(stream.n_points for stream in streams), 0
    for stream in streams:
        yield "descriptor", stream.descriptor
        for first in range(0, stream.n_points, _POINTS_A_PAGE):
            last = min(first + _POINTS_A_PAGE, stream.n_points)
            yield "event_page", stream.page(first, last)
            done += last - first
            if progress is not None:
                progress(done, total)
    yield "stop", dict(run.metadata.get("stop") or _stop_for(start))


def _as_recorded(run: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The documents that a catalog keeps, with a stop document in any case."""
    name = ""
    for name, doc in run.documents():
        yield name, dict(doc)
    if name != "stop":
        yield "stop", _stop_for(run.metadata["start"])


def _streams_of(run: Any) -> Iterator[tuple[str, Any]]:
    """The streams of a run, by name, in one request; older catalogs keep them in a folder."""
    nodes = dict(run.base.items())
    folder = nodes.get("streams")
    if folder is not None and not _is_stream(folder):
        nodes = dict(folder.items())
    yield from ((name, node) for name, node in nodes.items() if _is_stream(node))


def _is_stream(node: Any) -> bool:
    return any(spec.name == "BlueskyEventStream" for spec in node.specs)


class _Stream:
    """One stream of an archived run, readable page by page.

    A catalog answers small requests in tens of milliseconds each, so there are few: one for what
    the stream consists of, one for each table of numbers, one for each array of them.
    """

    def __init__(self, name: str, node: Any, run_uid: str) -> None:
        from bluesky_tiled_plugins.exporters import build_descriptor_docs

        # The property of the client would ask the catalog for the run again, for its uid.
        archived = build_descriptor_docs(dict(node.metadata), name, run_start_uid=run_uid)[0]
        keys = archived["data_keys"]
        self.descriptor = {
            **archived,
            "data_keys": {
                key: {field: value for field, value in of_key.items() if field != "external"}
                for key, of_key in keys.items()
            },
        }
        self._frames: dict[str, CatalogFrames] = {}
        self._columns: dict[str, np.ndarray] = {}
        known = {*keys, "seq_num", "time", *(f"ts_{key}" for key in keys)}
        for part, client in node.base.items():
            if hasattr(client, "columns"):
                table = client.read([column for column in client.columns if column in known])
                self._columns |= {column: table[column].to_numpy() for column in table}
            elif part in known and sum(n > 1 for n in keys[part]["shape"] or ()) >= 2:
                self._frames[part] = CatalogFrames(client)
            elif part in known:
                self._columns[part] = np.asarray(client.read())
        self._stamped = [key for key in keys if f"ts_{key}" in self._columns]
        self.n_points = self._count()

    def _count(self) -> int:
        lengths = {name: len(values) for name, values in self._columns.items()}
        for name, frames in self._frames.items():
            lengths[name] = frames.count(0) // frames.frames_a_point
        if len(set(lengths.values())) > 1:
            raise IntakeError(
                f"stream {self.descriptor['name']!r}: expected as many frames as points, got "
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
        stamps = {name: columns.pop(f"ts_{name}").tolist() for name in self._stamped}
        data: dict[str, list[Any]] = {name: values.tolist() for name, values in columns.items()}
        for name, frames in self._frames.items():
            n = frames.frames_a_point
            data[name] = [[StoredFrame(frames, i * n + k) for k in range(n)] for i in count]
        return {
            "uid": [f"{self.descriptor['uid']}/{n}" for n in count],
            "descriptor": self.descriptor["uid"],
            "seq_num": seq_nums,
            "time": times,
            "data": data,
            "timestamps": dict.fromkeys(data, times) | stamps,
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
