"""What the HDF5 files of different kinds of scans have in common.

Enters: an open HDF5 file. Leave: texts, attributes and images of it, or an error that says what
there is instead.
"""

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import IntakeError
from .recorded import StoredImages, micrometres, ranges_of
from .uris import file_uri

_LISTED = 12  # datasets that a message names


def dataset_in(group: h5py.Group, names: Iterable[str]) -> h5py.Dataset | None:
    """The first of some datasets that is there."""
    for name in names:
        with suppress(KeyError):  # a link to a file that is not there
            if isinstance(item := group.get(name), h5py.Dataset):
                return item
    return None


def file_of(dataset: h5py.Dataset) -> Path:
    """The file that a dataset is in, which a link may have led to."""
    return Path(dataset.file.filename).resolve()


def stored_images(dataset: h5py.Dataset, indices: np.ndarray | None = None) -> StoredImages:
    """Some frames of a dataset, by reference.

    Parameters
    ----------
    dataset : h5py.Dataset
        Of shape (frame, row, column).
    indices : array of int, optional
        Which of its frames, ascending; None: all.

    Raises
    ------
    IntakeError
        They are no numbers of shape (frame, row, column).
    """
    path, shape, numbers = file_of(dataset), dataset.shape, dataset.dtype
    if len(shape) != 3 or 0 in shape or numbers.kind not in "iuf":
        raise IntakeError(
            f"{path}: expected numbers of shape (frame, row, column) in {dataset.name}, got "
            f"{numbers} of shape {shape}"
        )
    parameters: dict[str, Any] = {"dataset": dataset.name, "swmr": False}
    ranges: tuple[tuple[int, int], ...] = ((0, shape[0]),)
    if indices is not None and len(indices) < shape[0]:
        ranges = ranges_of(indices)
        # What Tiled takes of a dataset, where that is not all of it. A range it parses, a list it
        # passes on to dask, which takes the frames of these indices.
        parameters["slice"] = (
            f"{ranges[0][0]}:{ranges[0][1]}" if len(ranges) == 1 else indices.tolist()
        )
    return StoredImages(
        frame=shape[1:],
        dtype=numbers.str,
        ranges=ranges,
        source=dataset.name,
        mimetype="application/x-hdf5",
        uri=file_uri(path),
        parameters=parameters,
    )


def text_in(group: h5py.Group, name: str) -> str:
    """A text, or "" where there is none of that name."""
    dataset = dataset_in(group, [name])
    return "" if dataset is None or dataset.size != 1 else decoded(np.ravel(dataset)[0]).strip()


def attribute(item: h5py.Dataset | h5py.Group, name: str, default: str = "") -> str:
    """A text that is an attribute."""
    return decoded(item.attrs.get(name, default))


def decoded(value: Any) -> str:
    """A text, whichever way the file spells it."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def length_um(dataset: h5py.Dataset, default_units: str) -> float | None:
    """A length in micrometres; None where it is not understood."""
    if dataset.size != 1:
        return None
    value = float(np.ravel(dataset)[0])
    return micrometres(value, attribute(dataset, "units", default_units))


def time_of(texts: Iterable[str], written: float) -> float:
    """The first of some texts that is a time, else when the file was written."""
    for text in texts:
        with suppress(ValueError):
            return datetime.fromisoformat(text).timestamp()
    return written


def contents(file: h5py.File) -> str:
    """What a person needs to see to know which file this is."""
    names: list[str] = []
    file.visititems(
        lambda name, item: (
            names.append(f"/{name} {item.shape}") if isinstance(item, h5py.Dataset) else None
        )
    )
    listed = names[:_LISTED] + (["…"] if len(names) > _LISTED else [])
    return ", ".join(listed) or "nothing"
