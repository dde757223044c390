"""Frames that lie in files or catalogs: the only reader of pixels from outside the documents.

Enter: `stream_resource` and `resource` documents. Leave: `FrameSource` objects, from which frames
are read by the block when they are needed, so that memory holds slabs and not the scan.
"""

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np

from ..config import ScanConfig
from ..errors import AssetError
from .uris import path_of

_POLL_S = 0.02

# Where areaDetector's file plugin writes the time of each frame, and when its clock starts (1990).
_EPICS_TIMES = (
    "/entry/instrument/NDAttributes/NDArrayEpicsTSSec",
    "/entry/instrument/NDAttributes/NDArrayEpicsTSnSec",
)
_EPICS_EPOCH = 631_152_000


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

    def read(self, indices: slice | list[int], rows: slice) -> np.ndarray:
        """Rows of some frames: (frame, row, column)."""
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


class Hdf5Frames:
    """A dataset of an HDF5 file, which may still be growing.

    Parameters
    ----------
    path : Path
    dataset : str
        Of shape (frame, row, column), (frame,), or with axes of 1 between.
    wait_s : float
        Seconds for a file or a frame to appear.
    """

    def __init__(self, path: Path, dataset: str, wait_s: float) -> None:
        self._path = path
        self._name = dataset
        self._wait_s = wait_s
        self._file: h5py.File | None = None

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
                part.id.refresh()
        seconds, nanoseconds = (part[indices].astype(np.float64) for part in parts)
        return seconds + nanoseconds * 1e-9 + _EPICS_EPOCH

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _dataset(self) -> h5py.Dataset:
        if self._file is None:
            self._file = self._opened()
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
        return dataset

    def _refreshed(self) -> int:
        dataset = self._dataset()
        with suppress(OSError):  # only a file that was opened for reading while written refreshes
            dataset.id.refresh()
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


class TiffFrames:
    """A sequence of TIFF files of one frame each.

    Parameters
    ----------
    folder : Path
    template : str
        Name of the file of an index, as ``img_%05d.tif`` or ``img_{:05d}.tif``.
    wait_s : float
        Seconds for a file to appear.
    """

    def __init__(self, folder: Path, template: str, wait_s: float) -> None:
        self._folder = folder
        self._template = template
        self._wait_s = wait_s
        self._first: np.ndarray | None = None

    @property
    def dtype(self) -> np.dtype:
        return self._example().dtype

    @property
    def frame_shape(self) -> tuple[int, ...]:
        return self._example().shape

    def count(self, at_least: int) -> int:
        deadline = time.monotonic() + self._wait_s
        n = 0
        while n < at_least:
            if self._path(n).exists():
                n += 1
            elif time.monotonic() > deadline:
                break
            else:
                time.sleep(_POLL_S)
        return n

    def read(self, indices: slice | list[int], rows: slice) -> np.ndarray:
        wanted = range(indices.start, indices.stop) if isinstance(indices, slice) else indices
        return np.stack([self._frame(index)[rows] for index in wanted])

    def close(self) -> None:
        self._first = None

    def _path(self, index: int) -> Path:
        name = self._template.format(index) if "{" in self._template else self._template % index
        return self._folder / name

    def _example(self) -> np.ndarray:
        if self._first is None:
            self.count(1)
            self._first = self._frame(0)
        return self._first

    def _frame(self, index: int) -> np.ndarray:
        import tifffile

        path = self._path(index)
        try:
            return np.asarray(tifffile.imread(path)).squeeze()
        except (OSError, tifffile.TiffFileError) as error:
            raise AssetError(
                f"{path}: expected a TIFF file with one frame, got: {error}; is it there, on this "
                "machine?"
            ) from error


class Assets:
    """The files of one run, opened when they are needed and closed together.

    Parameters
    ----------
    config : ScanConfig
        Path map, allowed roots, and how long to wait for files.
    """

    def __init__(self, config: ScanConfig) -> None:
        self._config = config
        self._documents: dict[str, Mapping[str, Any]] = {}
        self._sources: dict[str, FrameSource] = {}

    def add(self, doc: Mapping[str, Any]) -> None:
        """Learn of a `stream_resource` or `resource` document."""
        self._documents[doc["uid"]] = doc

    def data_key(self, uid: str) -> str:
        """The data key that a `stream_resource` belongs to."""
        return str(self._documents[uid]["data_key"])

    def frames_a_point(self, uid: str) -> int:
        """Frames that a datum of a `resource` stands for."""
        return int(self._documents[uid].get("resource_kwargs", {}).get("frame_per_point", 1))

    def frame_times(self, uid: str, indices: slice) -> np.ndarray | None:
        """When frames of an area detector file were taken, seconds since 1970; None: not said."""
        source = self.source(uid)
        return source.times(indices) if isinstance(source, Hdf5Frames) else None

    def source(self, uid: str) -> FrameSource:
        """The frames of a resource.

        Raises
        ------
        AssetError
            A kind of file that is not known here, or one outside the allowed roots.
        """
        if uid not in self._sources:
            doc = self._documents[uid]
            self._sources[uid] = self._of_stream(doc) if "mimetype" in doc else self._of_spec(doc)
        return self._sources[uid]

    def close(self) -> None:
        """Close all files."""
        for source in self._sources.values():
            source.close()

    def _of_stream(self, doc: Mapping[str, Any]) -> FrameSource:
        parameters = doc["parameters"]
        path = self._allowed(path_of(doc["uri"]), doc["uri"])
        if doc["mimetype"] == "application/x-hdf5":
            dataset = parameters.get("dataset") or parameters.get("path")
            if dataset:
                return Hdf5Frames(path, dataset, self._config.file_wait_s)
        if doc["mimetype"] == "multipart/related;type=image/tiff" and "template" in parameters:
            return TiffFrames(path, parameters["template"], self._config.file_wait_s)
        raise AssetError(
            f"{doc['uri']}: expected frames in application/x-hdf5 with a dataset, or in "
            f"multipart/related;type=image/tiff with a template, got {doc['mimetype']} with "
            f"{', '.join(parameters) or 'no parameters'}"
        )

    def _of_spec(self, doc: Mapping[str, Any]) -> FrameSource:
        kwargs = doc["resource_kwargs"]
        where = f"{doc['root'].rstrip('/')}/{doc['resource_path'].lstrip('/')}"
        path = self._allowed(Path(where), where)
        if doc["spec"].startswith("AD_HDF5"):
            return Hdf5Frames(
                path, kwargs.get("dataset", "entry/data/data"), self._config.file_wait_s
            )
        if doc["spec"].startswith("AD_TIFF") and "template" in kwargs:
            template = kwargs["template"].replace("%s%s", "").lstrip("/")
            name = f"{kwargs.get('filename', '')}{template}"
            return TiffFrames(path, name, self._config.file_wait_s)
        raise AssetError(
            f"{where}: expected a resource of spec AD_HDF5 or AD_TIFF, got {doc['spec']!r}"
        )

    def _allowed(self, path: Path | None, uri: str) -> Path:
        """The path as this machine sees it, if it may be read.

        Links are followed first: one that leads out of the allowed roots is refused.
        """
        if path is None:
            raise AssetError(
                f"{uri}: expected the URI of a file on this machine (file://localhost/…), got "
                "another kind"
            )
        text = str(path)
        for theirs, ours in self._config.path_map:
            if text.replace("\\", "/").startswith(theirs.replace("\\", "/")):
                text = ours + text.replace("\\", "/")[len(theirs) :]
                break
        resolved = Path(text).resolve()
        roots = self._config.allowed_roots
        if roots is not None and not any(resolved.is_relative_to(r.resolve()) for r in roots):
            raise AssetError(
                f"{resolved}: expected a file under one of "
                f"{', '.join(map(str, roots)) or 'no roots at all'}; add its folder to "
                "scan.allowed_roots if it holds raw data"
            )
        return resolved
