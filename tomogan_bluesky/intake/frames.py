"""Frames that are not read yet.

Enter: sources of frames, whatever they are kept in, and indices. Leave: rows of pixels, read by the
block when they are needed, so that memory holds slabs and not the scan.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


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
    """Rows of many frames, each source being read once, by the block where indices follow on.

    Parameters
    ----------
    frames : iterable of arrays (row, column) or StoredFrame
    rows : slice

    Returns
    -------
    array, shape (frame, row, column)
    """
    frames = list(frames)
    places: dict[int, list[int]] = {}
    for place, frame in enumerate(frames):
        if isinstance(frame, StoredFrame):
            places.setdefault(id(frame.source), []).append(place)
    if not places:
        return np.stack([np.asarray(frame)[rows] for frame in frames])
    first = next(frame for frame in frames if isinstance(frame, StoredFrame))
    n_rows = len(range(*rows.indices(first.shape[0])))
    block = np.empty((len(frames), n_rows, first.shape[1]), first.dtype)
    for place, frame in enumerate(frames):
        if not isinstance(frame, StoredFrame):
            block[place] = frame[rows]
    for group in places.values():
        stored = [frame for place in group if isinstance(frame := frames[place], StoredFrame)]
        order = np.argsort([frame.index for frame in stored], kind="stable")
        indices = [stored[i].index for i in order]
        consecutive = indices == list(range(indices[0], indices[0] + len(indices)))
        wanted = slice(indices[0], indices[-1] + 1) if consecutive else indices
        block[[group[i] for i in order]] = stored[0].source.read(wanted, rows)
    return block
