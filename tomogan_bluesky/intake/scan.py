"""A scan as the reconstruction takes it: its frames in order, and the account of every one of them.

Enters: what a `FrameStore` has collected. Leave: slabs of detector rows, as they were recorded.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .frames import StoredFrame, read_rows
from .references import References

_GIB = 1 << 30


@dataclass(frozen=True)
class FrameAccount:
    """Where every expected projection went; the parts add up to `expected`.

    Attributes
    ----------
    expected : int
        Points that the scan promised or took, plus frames that were taken again.
    used, superseded, missing : int
        Frames in the reconstruction; replaced by a later one of the same point; never seen.
    rejected : dict of str to int
        Frames that came but cannot be used, by reason.
    """

    expected: int = 0
    used: int = 0
    superseded: int = 0
    missing: int = 0
    rejected: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parts = self.used + self.superseded + self.missing + sum(self.rejected.values())
        if parts != self.expected:
            raise AssertionError(f"frames are unaccounted for: {self}")

    def as_dict(self) -> dict[str, Any]:
        """For documents and JSON."""
        return {
            "expected": self.expected,
            "used": self.used,
            "superseded": self.superseded,
            "missing": self.missing,
            "rejected": dict(self.rejected),
        }


@dataclass(frozen=True, eq=False)
class Scan:
    """A complete set of frames, ready to be reconstructed.

    Attributes
    ----------
    projections : list of array or StoredFrame, each (row, column)
        In the order of their numbers, as recorded.
    theta : float64 array, shape (angle,)
        Radians.
    times : float64 array, shape (angle,)
        When each projection was recorded, seconds since 1970.
    references : References
    account : FrameAccount
    frames_bytes : int
        Most memory for frames that are read from files at once.
    """

    projections: list[np.ndarray | StoredFrame]
    theta: np.ndarray
    times: np.ndarray
    references: References
    account: FrameAccount
    frames_bytes: int = 4 * _GIB

    @property
    def shape(self) -> tuple[int, int, int]:
        """(angle, row, column)."""
        rows, columns = self.references.dark.shape
        return len(self.projections), rows, columns

    @property
    def in_files(self) -> bool:
        """Whether any frame is read only when it is needed."""
        return any(isinstance(frame, StoredFrame) for frame in self.projections)

    def read(self, indices: list[int], rows: slice = slice(None)) -> np.ndarray:
        """Rows of some projections as recorded: (row, angle, column)."""
        return read_rows([self.projections[i] for i in indices], rows).swapaxes(0, 1)

    def slabs(self, cuts: Sequence[tuple[int, int]]) -> Iterator[np.ndarray]:
        """Some of the detector rows, part by part.

        Frames in files are read by blocks of as many parts as `frames_bytes` holds, since to read
        some rows of compressed frames is to read all of them.

        Parameters
        ----------
        cuts : sequence of (first, last)
            Detector rows of each part, in ascending order; parts may share rows.

        Yields
        ------
        array, shape (row, angle, column), recorded dtype
            In the order of the frames in memory, and mostly a view: who keeps it keeps its block.
        """
        n_angles, _, n_columns = self.shape
        row_bytes = n_angles * n_columns * self.projections[0].dtype.itemsize
        in_files = self.in_files
        done = 0
        while done < len(cuts):
            start, stop = cuts[done]
            n_parts = 1
            for first, last in cuts[done + 1 :] if in_files else ():
                # The last part is copied, so that its block is gone when the next one is read.
                if (last - start + last - first) * row_bytes > self.frames_bytes:
                    break
                n_parts, stop = n_parts + 1, last
            block = read_rows(self.projections, slice(start, stop)).swapaxes(0, 1)
            done += n_parts
            for first, last in cuts[done - n_parts : done - 1]:
                yield block[first - start : last - start]
            first, last = cuts[done - 1]
            part = block[first - start :].copy(order="K") if n_parts > 1 else block
            del block
            yield part
            del part
