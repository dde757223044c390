"""Dark and flat references of a scan.

Enter: the dark and flat frames of a run, and when they were taken. Leaves: `References`, a mean
dark frame and one mean flat frame for each time at which flats were taken.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np


def mean_frame(frames: Iterable[np.ndarray]) -> np.ndarray:
    """Mean of reference frames, summed in float64 in their order.

    Parameters
    ----------
    frames : one or more arrays, shape (row, column), any real dtype
        Taken one after another: not all need to be in memory.

    Returns
    -------
    float32 array, shape (row, column)
    """
    frames = iter(frames)
    total, count = next(frames).astype(np.float64), 1
    for frame in frames:
        total += frame
        count += 1
    return (total / count).astype(np.float32)


@dataclass(frozen=True, eq=False)
class References:
    """What a detector shows without sample.

    Attributes
    ----------
    dark : float32 array, shape (row, column)
    flats : float32 array, shape (time, row, column)
    flat_times : float64 array, shape (time,)
        Mean time of the frames of each, seconds since 1970, ascending.
    """

    dark: np.ndarray
    flats: np.ndarray
    flat_times: np.ndarray

    @cached_property
    def sha256(self) -> str:
        """Hexadecimal, of the pixels: the same on any machine, wherever their frames lie."""
        digest = hashlib.sha256()
        for frames in (self.dark, self.flats):
            digest.update(f"{frames.dtype} {frames.shape}".encode())
            digest.update(frames.tobytes())
        return digest.hexdigest()

    def weights_at(self, times: np.ndarray) -> np.ndarray:
        """Weights of the flats for frames taken at given times.

        Linear between the two flats around a time; before the first and after the last, theirs.

        Parameters
        ----------
        times : array, shape (frame,)

        Returns
        -------
        float32 array, shape (frame, time)
        """
        identity = np.eye(len(self.flats))
        columns = [np.interp(times, self.flat_times, row) for row in identity]
        return np.stack(columns, axis=1).astype(np.float32)


def group_by_time(times: Sequence[float], projection_times: Sequence[float]) -> list[list[int]]:
    """Indices of flats that were taken together, with no projection between them.

    Parameters
    ----------
    times, projection_times : sequences of float
        Seconds since 1970, in any order.

    Returns
    -------
    list of lists of int
        In the order of time.
    """
    before = np.searchsorted(np.sort(projection_times), times)
    return [np.flatnonzero(before == n).tolist() for n in np.unique(before)]
