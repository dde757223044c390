"""Darks and flats that lie in files of their own.

Enter: the settings that name the files, and the start document of a scan, whose keys may stand in
their names. Leave: `References`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

import h5py
import numpy as np

from ..config import ScanConfig, StoredFrames
from ..errors import AssetError, BackendUnavailableError, MissingFramesError
from .assets import allowed_path
from .dataexchange import DATASETS
from .hdf5 import contents, dataset_in, file_of
from .nxtomo import frames_of, nxtomo_groups
from .references import References, mean_frame


@dataclass(frozen=True)
class ReferenceFile:
    """The frames of one kind, and the state of their files, which tells whether they are the same.

    Attributes
    ----------
    stream : "dark" or "flat"
    paths : tuple of Path
        One HDF5 file, or TIFF files in the order of their names.
    dataset : str or None
    state : tuple of (int, int)
        Size and time of change, in ns, of each file.
    """

    stream: str
    paths: tuple[Path, ...]
    dataset: str | None
    state: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        more = f" and {len(self.paths) - 1} more" if len(self.paths) > 1 else ""
        return f"{self.paths[0]}{more}" + (f"#{self.dataset}" if self.dataset else "")


def find_reference_files(
    config: ScanConfig, start_doc: Mapping[str, Any]
) -> tuple[ReferenceFile, ReferenceFile]:
    """The files of the darks and of the flats, not opened yet.

    Parameters
    ----------
    config : ScanConfig
        With `reference_files`.
    start_doc : mapping

    Raises
    ------
    AssetError
        They are not there, or may not be read.
    MissingFramesError
        The name of a file has a start key that this run does not have.
    """
    assert config.reference_files is not None
    return (
        _found("dark", config.reference_files.darks, config, start_doc),
        _found("flat", config.reference_files.flats, config, start_doc),
    )


def read_references(files: tuple[ReferenceFile, ReferenceFile], config: ScanConfig) -> References:
    """Mean dark and mean flat frame; files say nothing of the times at which flats were taken.

    Raises
    ------
    AssetError
        Not the frames that were expected.
    """
    dark, flat = (mean_frame(_frames(file, config)) for file in files)
    if dark.shape != flat.shape:
        raise AssetError(
            f"expected darks and flats of one size, got {dark.shape} in {files[0]} and "
            f"{flat.shape} in {files[1]}"
        )
    return References(dark, flat[np.newaxis], np.zeros(1))


def _found(
    stream: str, stored: StoredFrames, config: ScanConfig, start_doc: Mapping[str, Any]
) -> ReferenceFile:
    keys = {key for _, key, _, _ in Formatter().parse(stored.path) if key is not None}
    if missing := sorted(key for key in keys if not isinstance(start_doc.get(key), str | int)):
        raise MissingFramesError(
            f"expected the start key {missing[0]!r} in the name of the {stream} file "
            f"{stored.path!r}, got {start_doc.get(missing[0])!r}; add it to the run's metadata"
        )
    text = stored.path.format_map({key: start_doc[key] for key in keys})
    pattern = Path(text)
    if "*" in pattern.name:
        folder = allowed_path(pattern.parent, text, config)
        named = sorted(folder.glob(pattern.name), key=lambda path: (len(path.name), path.name))
        paths = tuple(allowed_path(path, text, config) for path in named)
    else:
        paths = (allowed_path(pattern, text, config),)
    paths = tuple(path for path in paths if path.is_file())
    if not paths:
        raise AssetError(
            f"expected {stream} frames in {text}, got no such file; see scan.reference_files and "
            "scan.path_map"
        )
    states = [path.stat() for path in paths]
    return ReferenceFile(
        stream, paths, stored.dataset, tuple((s.st_size, s.st_mtime_ns) for s in states)
    )


def _frames(file: ReferenceFile, config: ScanConfig) -> Iterator[np.ndarray]:
    """One frame after another."""
    for path in file.paths:
        frames = _hdf5(file, path, config) if h5py.is_hdf5(path) else _tiff(file, path)
        for frame in frames:
            if frame.dtype.kind not in "iuf" or not np.isfinite(frame).all():
                raise AssetError(
                    f"{file}: expected {file.stream} frames of finite numbers, got {frame.dtype}"
                    + (" with NaN or infinity" if frame.dtype.kind == "f" else "")
                )
            yield frame


def _hdf5(file: ReferenceFile, path: Path, config: ScanConfig) -> Iterator[np.ndarray]:
    try:
        with h5py.File(path, "r") as opened:
            dataset, indices = _dataset(file, path, opened)
            allowed_path(file_of(dataset), f"{path}, through a link", config)
            if dataset.ndim == 2:
                yield dataset[()]
                return
            for index in range(len(dataset)) if indices is None else indices:
                yield dataset[index]
    except OSError as error:
        if isinstance(error, AssetError):
            raise
        raise AssetError(f"{path}: expected an HDF5 file, got: {error}") from error


def _dataset(
    file: ReferenceFile, path: Path, opened: h5py.File
) -> tuple[h5py.Dataset, np.ndarray | None]:
    """Where the frames are, and which of them."""
    indices = None
    if file.dataset is not None:
        dataset = dataset_in(opened, [file.dataset])
    elif groups := nxtomo_groups(opened):
        dataset, indices = frames_of(path, groups[0], file.stream)
    else:
        dataset = dataset_in(opened, [f"exchange/{DATASETS[file.stream]}"])
    if dataset is None or dataset.ndim not in (2, 3) or 0 in dataset.shape:
        raise AssetError(
            f"{path}: expected {file.stream} frames (frame, row, column) in "
            + (file.dataset or f"exchange/{DATASETS[file.stream]}, or an NXtomo entry")
            + f", got {contents(opened)}; name the dataset in scan.reference_files"
        )
    return dataset, indices


def _tiff(file: ReferenceFile, path: Path) -> np.ndarray:
    try:
        import tifffile
    except ImportError as error:
        raise BackendUnavailableError(
            f"{path}: expected tifffile to be installed, to read TIFF files, got: {error}; install "
            "it with: pip install tifffile"
        ) from error
    try:
        pixels = np.asarray(tifffile.imread(path))
    except (OSError, ValueError) as error:  # TiffFileError is a ValueError
        raise AssetError(
            f"{path}: expected {file.stream} frames in an HDF5 or a TIFF file, got: {error}"
        ) from error
    if pixels.ndim not in (2, 3):
        raise AssetError(f"{path}: expected frames (frame, row, column), got shape {pixels.shape}")
    return pixels[np.newaxis] if pixels.ndim == 2 else pixels
