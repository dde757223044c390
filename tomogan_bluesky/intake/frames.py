"""Frames that are not read yet.

Enter: sources of frames, whatever they are kept in, and indices. Leave: rows of pixels, read by the
block when they are needed, so that memory holds slabs and not the scan.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

# Little beside the memory of a worker, and much beside what a request to a catalog costs.
BLOCK_BYTES = 1 << 25


class FrameSource(Protocol):
    """A stack of frames somewhere, each identified by its index.

    Attributes
    ----------
    dtype : numpy.dtype
    frame_shape : tuple of int
        Of one frame: (row, column); empty where the values are numbers.
    """

    @property
    def dtype(self) -> np.dtype: ...

    @property
    def frame_shape(self) -> tuple[int, ...]: ...

    def count(self, at_least: int) -> int:
        """Number of frames there are; waits for a file that is being written to hold more."""
        ...

    def absent(self, indices: Sequence[int]) -> dict[int, str]:
        """Those of some frames that are not there, and why; waits for what is being written."""
        ...

    def has(self, index: int) -> bool:
        """Whether a frame is there now; does not wait for it."""
        ...

    def read(self, indices: slice | list[int], rows: slice) -> np.ndarray:
        """Rows of some frames: (frame, row, column)."""
        ...

    def times(self, indices: slice) -> np.ndarray | None:
        """When some frames were taken, seconds since 1970; None where that is not recorded."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


@dataclass(frozen=True, eq=False)
class StoredFrame:
    """One frame of a source, not read yet."""

    source: FrameSource
    index: int

    @property
    def dtype(self) -> np.dtype:
        return self.source.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.frame_shape


def read_rows(frames: Iterable[np.ndarray | StoredFrame], rows: slice) -> np.ndarray:
    """Rows of many frames.

    Frames that follow on in one source are read at once and as they come. Otherwise each source is
    read in the order of its frames, in blocks, of which one at a time is in memory beside the rest.

    Parameters
    ----------
    frames : one or more arrays (row, column) or StoredFrame
    rows : slice

    Returns
    -------
    array, shape (frame, row, column)
    """
    frames = list(frames)
    of_source: dict[int, list[tuple[int, int]]] = {}
    sources: dict[int, FrameSource] = {}
    for place, frame in enumerate(frames):
        if isinstance(frame, StoredFrame):
            sources[id(frame.source)] = frame.source
            of_source.setdefault(id(frame.source), []).append((frame.index, place))
    if len(sources) == 1:
        ((key, stored),) = of_source.items()
        wanted = _as_slice([index for index, _ in stored])
        if len(stored) == len(frames) and isinstance(wanted, slice):
            return sources[key].read(wanted, rows)

    n_rows = len(range(*rows.indices(frames[0].shape[0])))
    # Of a type that holds the values of all: it may change in mid-run.
    dtypes = {frame.dtype for frame in frames if not isinstance(frame, StoredFrame)}
    dtype = np.result_type(*dtypes, *(source.dtype for source in sources.values()))
    block = np.empty((len(frames), n_rows, frames[0].shape[1]), dtype)
    for place, frame in enumerate(frames):
        if not isinstance(frame, StoredFrame):
            block[place] = frame[rows]
    n_together = max(BLOCK_BYTES // (block[:1].nbytes or 1), 1)
    for key, stored in of_source.items():
        stored.sort()
        for first in range(0, len(stored), n_together):
            indices, places = zip(*stored[first : first + n_together], strict=True)
            block[_as_slice(places)] = sources[key].read(_as_slice(indices), rows)
    return block


def _as_slice(indices: Sequence[int]) -> slice | list[int]:
    """Indices that follow on as a slice: the fastest way to read and to write."""
    if list(indices) == list(range(indices[0], indices[0] + len(indices))):
        return slice(indices[0], indices[-1] + 1)
    return list(indices)
