"""One HDF5 file that holds the slices of one derived run, readable while it is written.

Enter: slabs of slices in row order. Leaves: a file with one float32 dataset a quantity,
``/entry/data/<quantity>`` of shape (slice, y, x) and one chunk a slice, extended slab by slab.
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import h5py
import numpy as np

from ..errors import PublishError

Attribute = str | int | float
OWNER = "derived_run_uid"
"""Attribute of the file: the uid of the run that it belongs to."""

_GROUP = "/entry/data"

# Bytes of the file that are no pixels: the headers; and 8 an image, which is less than 1 % of any.
_HEADERS = 65_536
_PER_PIXEL_BYTE = 1.01

# Files that HDF5 could not write to. It crashes the process when such a file is let go of, which
# must not happen to a process that runs a scan.
_BROKEN: list[h5py.File] = []


def dataset_path(quantity: str) -> str:
    """Where the slices of a quantity are in the file."""
    return f"{_GROUP}/{quantity}"


def owner_of(path: Path) -> str | None:
    """Uid of the derived run that a file was written for; None for any other file."""
    try:
        # As a reader of a file that is being written: one that was cut off opens in no other way.
        with h5py.File(path, "r", libver="latest", swmr=True) as file:
            owner = file.attrs.get(OWNER)
    except OSError:
        return None
    return owner if isinstance(owner, str) else None


def beginning_of(path: Path) -> Path:
    """Where a file is until it says whose it is: nobody else could tell, if we died before."""
    return path.with_name(f".{path.name}.partial")


def share_with(path: Path, group: str) -> None:
    """Let a group read a file.

    Raises
    ------
    PublishError
        There is no such group, or it is not for us to give the file to.
    """
    try:
        shutil.chown(path, group=group)
        path.chmod(0o640)
    except (LookupError, OSError) as error:
        raise PublishError(
            f"{path}: expected to give it to the group {group!r}, got: {error}; see "
            "publishing.group"
        ) from error


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_slab(
    shape: tuple[int, int, int],
    quantities: Sequence[str],
    n_written: int,
    first_slice: int,
    arrays: Mapping[str, np.ndarray],
) -> int:
    """Number of slices of a slab that is the next one of a volume.

    Parameters
    ----------
    shape : (slice, y, x)
        Of the whole volume.
    quantities : sequence of str
        What every slab brings.
    n_written : int
        Slices that the volume has already.
    first_slice : int
        Position of the slab in the volume.
    arrays : dict of str to array, each (slice, y, x)

    Raises
    ------
    PublishError
        A slab out of row order, of other quantities, or of another shape.
    """
    if first_slice != n_written:
        raise PublishError(
            f"expected the slab that starts at slice {n_written}, got one at slice {first_slice}; "
            "slabs are published in row order, each once, because readers are served a prefix"
        )
    if set(arrays) != set(quantities):
        raise PublishError(
            f"expected a slab of {', '.join(quantities)}, got {', '.join(arrays) or 'nothing'}"
        )
    n_slices = len(arrays[quantities[0]])
    for quantity, array in arrays.items():
        if array.shape != (n_slices, *shape[1:]):
            raise PublishError(
                f"{quantity}: expected slices of shape (y, x) = {shape[1:]}, as many of every "
                f"quantity, got an array of shape {array.shape} beside {n_slices} slices"
            )
    if n_slices == 0 or n_written + n_slices > shape[0]:
        raise PublishError(
            f"expected 1 to {shape[0] - n_written} more slices of the {shape[0]}, got {n_slices}"
        )
    return n_slices


class VolumeFile:
    """The slices of one derived run on disk.

    Parameters
    ----------
    path : Path
        A file that does not exist; its folder is made.
    shape : (slice, y, x)
        Of the whole volume. The datasets start with no slice.
    quantities : sequence of str
        Names of the datasets; the last one is what a NeXus viewer shows first.
    units : str
        Units of the pixels, an attribute of each dataset.
    attributes : mapping of str to str, int or float
        Provenance, attributes of the file.
    swmr : bool
        Let others read while we write (HDF5's single writer, multiple readers). False for disks
        that cannot, such as NFS: then nobody reads before `close`.

    Raises
    ------
    PublishError
        The file exists, or its folder cannot be written.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, int, int],
        quantities: Sequence[str] = ("reconstruction", "denoised"),
        *,
        units: str = "1/pixel",
        attributes: Mapping[str, Attribute] | None = None,
        swmr: bool = True,
    ) -> None:
        self.path = path
        self._shape = shape
        self._quantities = tuple(quantities)
        self._n_written = 0
        self._closed = False
        with self._explain("make"):
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                raise FileExistsError
            beginning = beginning_of(path)
            try:
                # Only the newest file format supports SWMR.
                self._file = h5py.File(beginning, "w", libver="latest")
                self._reserve(0)
                self._file.attrs.update(attributes or {})
                self._datasets = self._make_datasets(units)
                if swmr:
                    self._file.swmr_mode = True  # no attribute or dataset can be made after this
                self._file.flush()
                beginning.rename(path)
            except Exception:
                beginning.unlink(missing_ok=True)
                raise

    def _make_datasets(self, units: str) -> dict[str, h5py.Dataset]:
        self._file.attrs["default"] = "entry"
        group = self._file.create_group(_GROUP)
        group.parent.attrs.update({"NX_class": "NXentry", "default": "data"})
        group.attrs.update({"NX_class": "NXdata", "signal": self._quantities[-1]})
        image = self._shape[1:]
        datasets = {}
        for quantity in self._quantities:
            datasets[quantity] = group.create_dataset(
                quantity, (0, *image), np.float32, maxshape=(None, *image), chunks=(1, *image)
            )
            datasets[quantity].attrs["units"] = units
        return datasets

    def write(self, first_slice: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Append one slab and let readers see it.

        Parameters
        ----------
        first_slice : int
            Position of the slab in the volume; the number of slices written so far.
        arrays : mapping of quantity to array, shape (slice, y, x)
            All quantities; stored as float32.

        Raises
        ------
        PublishError
            A slab out of row order or of another shape; a disk that does not take it.
        """
        n_slices = check_slab(self._shape, self._quantities, self._n_written, first_slice, arrays)
        stop = first_slice + n_slices
        with self._explain("write to"):
            self._check_that_it_is_there()
            self._reserve(stop)
            with self._kept_if_it_breaks():
                for quantity, dataset in self._datasets.items():
                    dataset.resize(stop, axis=0)
                    pixels = np.ascontiguousarray(arrays[quantity], np.float32)
                    for i, slice_ in enumerate(pixels, first_slice):
                        # A slice is a chunk: past HDF5's copies, which cost as much as the disk.
                        dataset.id.write_direct_chunk((i, 0, 0), slice_)
                    dataset.flush()
        self._n_written = stop

    def close(self) -> None:
        """Close the file, and see that it is on the disk; a second call does nothing.

        Whoever is told after this that the volume is whole finds it whole after a power cut, too.

        Raises
        ------
        PublishError
            The disk does not take what is still to be written.
        """
        if self._closed:
            return
        self._closed = True
        with self._explain("close"):
            with self._kept_if_it_breaks():
                self._file.close()
            _sync(self.path)
            _sync(self.path.parent)

    def _reserve(self, n_slices: int) -> None:
        """Take the space for so many slices from the disk, before HDF5 counts on it.

        A full disk is found out here, where it does no harm.
        """
        pixels = 4 * len(self._quantities) * n_slices * self._shape[1] * self._shape[2]
        os.posix_fallocate(
            self._file.id.get_vfd_handle(), 0, _HEADERS + int(_PER_PIXEL_BYTE * pixels)
        )

    def _check_that_it_is_there(self) -> None:
        """A file that somebody removes can be written to, and nobody will ever read it."""
        if os.fstat(self._file.id.get_vfd_handle()).st_nlink == 0:
            raise OSError("it was removed while it was written")

    @contextmanager
    def _kept_if_it_breaks(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            _BROKEN.append(self._file)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def _explain(self, verb: str) -> Iterator[None]:
        """Say what to do about errors of the disk; h5py also raises RuntimeError for them."""
        try:
            yield
        except (OSError, RuntimeError) as error:
            if isinstance(error, FileExistsError) and self.path.is_file():
                raise PublishError(
                    f"{self.path}: expected no file of this name, but there is one, and a volume "
                    "is never written over another; remove it if nothing refers to it any more"
                ) from error
            number = getattr(error, "errno", None)
            what = os.strerror(number) if number else str(error).splitlines()[0]
            raise PublishError(
                f"{self.path}: could not {verb} the file of the slices ({what}); see that the disk "
                "is not full and the folder can be written, then replay the run"
            ) from error
