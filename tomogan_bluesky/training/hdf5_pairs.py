"""Pairs in the layout of the original TomoGAN program.

Enters: an HDF5 file with the datasets ``train_ns`` and ``train_gt`` (noisy slices and what they
should have been, (slice, y, x)), and ``test_ns`` and ``test_gt``, to validate with, where they are
there. Leave: `Pairs` that are read from disk.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import torch

from ..errors import ConfigurationError
from .pairs import Pairs
from .pairs_file import open_pairs, write_pairs

_SLAB = 16  # slices that are in memory at once


def hdf5_pairs(path: Path, folder: Path, dose: float) -> tuple[Pairs, Pairs | None]:
    """Pairs to learn from and, if there are any, to validate with.

    Parameters
    ----------
    path : path
        The file. Its slices may be in any units, the same in all of them.
    folder : path
        Where a copy is kept that can be read crop by crop.
    dose : float
        Of the noisy slices, as a fraction of that of the others: the file does not say.

    Raises
    ------
    ConfigurationError
        No such file, no such datasets, shapes that do not belong together, NaN in slices.
    """
    try:
        with h5py.File(path) as file:
            train = _part(file, "train", path, folder, dose)
            if train is None:
                raise ConfigurationError(
                    f"{path}: expected datasets 'train_ns' and 'train_gt', got "
                    f"{', '.join(file) or 'none'}"
                )
            return train, _part(file, "test", path, folder, dose)
    except OSError as error:
        raise ConfigurationError(f"{path}: expected an HDF5 file of pairs: {error}") from error


def _part(file: h5py.File, name: str, path: Path, folder: Path, dose: float) -> Pairs | None:
    keys = f"{name}_ns", f"{name}_gt"
    present = [key for key in keys if key in file]
    if not present:
        return None
    if len(present) == 1:
        raise ConfigurationError(f"{path}: expected datasets {keys}, got {present[0]!r} alone")
    noisy, target = (file[key] for key in keys)
    if noisy.shape != target.shape or noisy.ndim != 3:
        raise ConfigurationError(
            f"{path}: expected {keys[0]!r} and {keys[1]!r} of one shape (slice, y, x), got "
            f"{noisy.shape} and {target.shape}"
        )
    stat = path.stat()
    key = f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns} {name} {dose}"
    copy = folder / f"pairs-{hashlib.sha256(key.encode()).hexdigest()[:16]}.h5"
    if copy.exists():
        return open_pairs(copy)
    provenance = {"file": str(path), "datasets": keys}
    return write_pairs(copy, len(noisy), _slabs(noisy, target, dose), provenance)


def _slabs(noisy: h5py.Dataset, target: h5py.Dataset, dose: float) -> Iterator[tuple[int, Pairs]]:
    for first in range(0, len(noisy), _SLAB):
        part = slice(first, first + _SLAB)
        x, y = (torch.from_numpy(d[part].astype(np.float32)) for d in (noisy, target))
        try:
            yield first, Pairs.of(x[:, None], y, torch.full((len(x), 1), dose))
        except ConfigurationError as error:
            raise ConfigurationError(f"{noisy.name}, from slice {first} on: {error}") from error
