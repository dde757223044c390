"""Pairs on disk: reconstructed once, learned from without being in memory.

Enter: slabs of pairs, as they are reconstructed. Leave: an HDF5 file a scan, and `Pairs` whose
pixels are read from it when a crop is cut out of them.
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from ..errors import TrainingError
from .pairs import Pairs

_PIXELS = ("noisy", "target")
_NUMBERS = ("dose", "noise", "contrast")


def write_pairs(
    path: Path,
    n_slices: int,
    slabs: Iterable[tuple[int, Pairs]],
    provenance: Mapping[str, Any],
    n_volumes: int | None = None,
) -> Pairs:
    """Write the pairs of one scan, slab by slab, and open them.

    The file has its name once it is whole: where anything fails, there is none.

    Parameters
    ----------
    path : path
        ``*.h5``; replaced if there.
    n_slices : int
        Slices in all.
    slabs : iterable of (first slice, Pairs)
        Together all slices, each once.
    provenance : mapping
        For the file's attribute ``provenance``, as JSON.
    n_volumes : int, optional
        The slices are of so many volumes, one after another and of one height, in which adjacent
        ones are neighbours; None: no slice has neighbours.

    Raises
    ------
    TrainingError
        The slabs are not all of the slices, or the file can't be written.
    """
    partial = path.with_suffix(".partial")
    done = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(partial, "w") as file:
            file.attrs["provenance"] = json.dumps(dict(provenance))
            for first, pairs in slabs:
                if not done:
                    _check_room(path, n_slices * (pairs.noisy[0].nbytes + pairs.target[0].nbytes))
                for name in (*_PIXELS, *_NUMBERS):
                    values = getattr(pairs, name).numpy()
                    if name not in file:
                        # Neither chunked nor compressed: so that crops are read from their place.
                        shape = (n_slices, *values.shape[1:])
                        file.create_dataset(name, shape, values.dtype)
                    file[name][first : first + len(values)] = values
                done += len(pairs)
            if n_volumes is not None:
                file["volume"] = np.repeat(np.arange(n_volumes), n_slices // n_volumes)
            if done != n_slices:
                raise TrainingError(f"{path}: expected pairs of {n_slices} slices, got {done}")
        partial.replace(path)
    except OSError as error:
        raise TrainingError(
            f"{path}: the pairs can't be written ({error}); make room, or choose another folder"
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return open_pairs(path)


def _check_room(path: Path, n_bytes: int) -> None:
    """Before anything is written: a disk that is full later takes HDF5's process down."""
    if (free := shutil.disk_usage(path.parent).free) < n_bytes:
        raise OSError(f"expected room for {n_bytes / 1e9:.2f} GB, there are {free / 1e9:.2f} GB")


def open_pairs(path: Path) -> Pairs:
    """The pairs of a file; their pixels stay there.

    Raises
    ------
    TrainingError
        Not a file that `write_pairs` wrote.
    """
    try:
        with h5py.File(path) as file:
            pixels = [_mapped(path, file[name]) for name in _PIXELS]
            numbers = [torch.from_numpy(file[name][:]) for name in _NUMBERS]
            volume = torch.from_numpy(file["volume"][:]) if "volume" in file else None
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{path} is not a file of pairs: {error}; remove it") from error
    noisy, target = pixels
    dose, noise, contrast = numbers
    return Pairs(noisy, target, dose, noise, contrast, volume)


def provenance_of(path: Path) -> dict[str, Any]:
    """What `write_pairs` was told of where the pairs come from."""
    with h5py.File(path) as file:
        found: dict[str, Any] = json.loads(file.attrs["provenance"])
        return found


def _mapped(path: Path, dataset: h5py.Dataset) -> torch.Tensor:
    """A dataset as memory of its file. Written to, the memory would change and the file not."""
    offset = dataset.id.get_offset()
    if offset is None:
        raise ValueError(f"dataset {dataset.name} is chunked or empty")
    pixels = np.memmap(path, dataset.dtype, "c", offset, dataset.shape)
    return torch.from_numpy(pixels)
