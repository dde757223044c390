"""Frames in HDF5 files, also while these are written.

Enters: a file, and the name of a dataset. Leave: blocks of its frames, and when they were taken.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np

from ..errors import AssetError

_POLL_S = 0.02

# Where areaDetector's file plugin writes the time of each frame, and when its clock starts (1990).
_EPICS_TIMES = (
    "/entry/instrument/NDAttributes/NDArrayEpicsTSSec",
    "/entry/instrument/NDAttributes/NDArrayEpicsTSnSec",
)
_EPICS_EPOCH = 631_152_000


class Hdf5Frames:
    """A dataset of an HDF5 file, which may still be growing.

    Parameters
    ----------
    path : Path
    dataset : str
        Of shape (frame, row, column), (frame,), or with axes of 1 between.
    wait_s : float
        Seconds for a file or a frame to appear.
    allowed : callable
        Returns the path of a file without links, or raises AssetError where it may not be read:
        the dataset may be a link to another file, or consist of parts of others.
    """

    def __init__(
        self, path: Path, dataset: str, wait_s: float, allowed: Callable[[Path], Path]
    ) -> None:
        self._path = path
        self._name = dataset
        self._wait_s = wait_s
        self._allowed = allowed
        self._file: h5py.File | None = None
        self._data: h5py.Dataset | None = None

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self._dataset().dtype)

    @property
    def frame_shape(self) -> tuple[int, ...]:
        return tuple(self._dataset().shape[1:][-2:])

    def count(self, at_least: int) -> int:
        deadline = time.monotonic() + self._wait_s
        while (n := self._refreshed()) < at_least and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return n

    def absent(self, indices: Sequence[int]) -> dict[int, str]:
        n = self.count(max(indices, default=-1) + 1)
        why = f"expected a frame in its file, got a file of {n} frames"
        return {index: why for index in indices if index >= n}

    def has(self, index: int) -> bool:
        return index < self._refreshed()

    def read(self, indices: slice | list[int], rows: slice) -> np.ndarray:
        dataset = self._dataset()
        axes_of_one = (0,) * (dataset.ndim - 3)
        try:
            where = (indices, *axes_of_one, rows) if dataset.ndim >= 3 else (indices,)
            return np.asarray(dataset[where])
        except OSError as error:
            raise AssetError(
                f"{self._path}: expected to read frames from {self._name!r}, got: {error}; the "
                "file is truncated or its disk fails"
            ) from error

    def times(self, indices: slice) -> np.ndarray | None:
        """What areaDetector writes of the time of each frame, seconds since 1970."""
        self.count(indices.stop)
        file = self._dataset().file
        if not all(name in file for name in _EPICS_TIMES):
            return None
        parts = [file[name] for name in _EPICS_TIMES]
        for part in parts:
            with suppress(OSError):
                part.refresh()
        seconds, nanoseconds = (part[indices].astype(np.float64) for part in parts)
        return seconds + nanoseconds * 1e-9 + _EPICS_EPOCH

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = self._data = None

    def _dataset(self) -> h5py.Dataset:
        if self._data is not None:
            return self._data
        if self._file is None:
            self._file = self._opened()
            for path in _other_files(self._file, self._name):
                try:
                    self._allowed(path)
                except AssetError:
                    self.close()
                    raise
        if self._name not in self._file:
            names: list[str] = []
            self._file.visititems(
                lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None
            )
            self.close()
            raise AssetError(
                f"{self._path}: expected a dataset {self._name!r}, got only "
                f"{', '.join(names) or 'none'}; see the parameters of the resource document"
            )
        dataset = self._file[self._name]
        if any(n != 1 for n in dataset.shape[1:-2]):
            raise AssetError(
                f"{self._path}: expected {self._name!r} to be (frame, row, column), got shape "
                f"{dataset.shape}"
            )
        self._data = dataset
        return dataset

    def _refreshed(self) -> int:
        dataset = self._dataset()
        with suppress(OSError):  # only a file that was opened for reading while written refreshes
            dataset.refresh()  # of the file, and of what h5py remembers of it
        return int(dataset.shape[0])

    def _opened(self) -> h5py.File:
        """The file, once it can be opened: a writer may not have made it readable yet.

        As a finished file first: HDF5 finds a truncated one out then, which it reads for ever as
        one that is being written.
        """
        deadline = time.monotonic() + self._wait_s
        while True:
            errors = []
            for swmr in (False, True):
                try:
                    # Chunks are frames, mostly: without a cache of chunks, rows of an uncompressed
                    # frame are read without the rest of it.
                    return h5py.File(self._path, "r", libver="latest", swmr=swmr, rdcc_nbytes=0)
                except OSError as error:
                    errors.append(error)
                    if "truncated" in str(error):
                        break
            if time.monotonic() > deadline:
                raise AssetError(
                    f"{self._path}: expected an HDF5 file that can be read, got: {errors[0]}; is "
                    "it there, on this machine, and closed or written in SWMR mode?"
                ) from errors[0]
            time.sleep(_POLL_S)


def _other_files(file: h5py.File, name: str) -> Iterator[Path]:
    """Files that a dataset leads to: through an external link, or as a virtual dataset."""
    folder = Path(file.filename).parent
    try:
        dataset = file[name]
    except KeyError:
        return  # said later, with what is there instead
    if dataset.file.filename != file.filename:
        yield folder / dataset.file.filename
    if isinstance(dataset, h5py.Dataset) and dataset.is_virtual:
        yield from {
            Path(dataset.file.filename).parent / s.file_name for s in dataset.virtual_sources()
        }
