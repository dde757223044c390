"""Scans in NXtomo files.

Enters: a NeXus HDF5 file with the application definition NXtomo, as Diamond, the ESRF and others
write them: one dataset holds all frames, and an image key says what each of them is. Leaves: a
`RecordedScan`, which makes documents of it.
"""

import logging
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import IntakeError
from .hdf5 import (
    attribute,
    contents,
    dataset_in,
    file_of,
    length_um,
    stored_images,
    text_in,
    time_of,
)
from .recorded import STREAMS, RecordedScan, angle_unit, uid_of
from .uris import file_uri

logger = logging.getLogger(__name__)

PLAN_NAME = "ingest_nxtomo"
EXPECTED = (
    "NXtomo (HDF5 with a group whose 'definition' is NXtomo, with instrument/detector/data, "
    "instrument/detector/image_key and sample/rotation_angle)"
)

_IMAGE_KEYS = {"primary": 0, "flat": 1, "dark": 2}
_INVALID = 3

# Where a writer may have put what; the definition wants the links in data, too.
_PLACES = {
    "data": ("instrument/detector/data", "data/data"),
    "image_key": ("instrument/detector/image_key", "data/image_key"),
    "rotation_angle": ("sample/rotation_angle", "data/rotation_angle"),
}


def nxtomo_groups(file: h5py.File) -> list[h5py.Group]:
    """The groups of a file, entries or subentries, that say they are NXtomo."""
    found: list[h5py.Group] = []

    def look(name: str, item: Any) -> None:
        if isinstance(item, h5py.Group) and text_in(item, "definition").lower() == "nxtomo":
            found.append(item)

    file.visititems(look)
    return found


def read_nxtomo(path: Path, file: h5py.File) -> RecordedScan:
    """Look into an NXtomo file.

    Parameters
    ----------
    path : Path
        Absolute, without symbolic links.
    file : h5py.File
        The same, open.

    Raises
    ------
    IntakeError
        Not one scan with darks, flats and angles.
    """
    groups = nxtomo_groups(file)
    if len(groups) != 1:
        raise IntakeError(
            f"{path}: expected one NXtomo scan, got {len(groups)}: "
            f"{', '.join(group.name for group in groups)}; write one scan a file"
        )
    group = groups[0]
    datasets = {
        what: dataset
        for what, places in _PLACES.items()
        if (dataset := dataset_in(group, places)) is not None
    }
    missing = [places[0] for what, places in _PLACES.items() if what not in datasets]
    if missing:
        raise IntakeError(
            f"{path}: expected an NXtomo scan in {group.name}, got none of the name "
            f"{', '.join(missing)}; there is {contents(file)}"
        )
    data, keys, angles = (datasets[what] for what in ("data", "image_key", "rotation_angle"))
    indices = _indices(path, keys, data.shape[0] if data.ndim else 0)
    status = path.stat()
    return RecordedScan(
        source=path,
        folders=tuple({path.parent, file_of(data).parent}),
        uid=uid_of(file_uri(path), status.st_size, status.st_mtime_ns),
        plan_name=PLAN_NAME,
        images={stream: stored_images(data, indices[stream]) for stream in STREAMS},
        theta=_theta(path, angles, indices["primary"], data.shape[0]),
        angle_units=_units(path, angles),
        angle_source=angles.name,
        time=time_of((text_in(group, "start_time"),), status.st_mtime),
        metadata={**_metadata(group), "num_invalid": int((np.ravel(keys) == _INVALID).sum())},
    )


def frames_of(path: Path, group: h5py.Group, stream: str) -> tuple[h5py.Dataset, np.ndarray]:
    """The dataset of a scan's frames, and the indices of those of one stream.

    Raises
    ------
    IntakeError
        There is none, or it has no image keys.
    """
    found = {what: dataset_in(group, _PLACES[what]) for what in ("data", "image_key")}
    data, keys = found["data"], found["image_key"]
    if data is None or keys is None or len(np.ravel(keys)) != data.shape[0]:
        raise IntakeError(
            f"{path}: expected frames and an image key for each in {group.name}, got "
            f"{contents(group.file)}"
        )
    return data, np.flatnonzero(np.ravel(keys) == _IMAGE_KEYS[stream])


def _indices(path: Path, image_key: h5py.Dataset, n_frames: int) -> dict[str, np.ndarray]:
    """Which frames are of which stream."""
    keys = np.ravel(image_key)
    known = np.isin(keys, [*_IMAGE_KEYS.values(), _INVALID])
    if len(keys) != n_frames or not known.all():
        raise IntakeError(
            f"{path}: expected a key of 0 (projection), 1 (flat), 2 (dark) or 3 (invalid) for each "
            f"of {n_frames} frames, got {len(keys)} in {image_key.name}, {(~known).sum()} of them "
            "another"
        )
    indices = {stream: np.flatnonzero(keys == key) for stream, key in _IMAGE_KEYS.items()}
    missing = [
        f"{key} ({stream})" for stream, key in _IMAGE_KEYS.items() if not len(indices[stream])
    ]
    if missing:
        raise IntakeError(
            f"{path}: expected projections, flats and darks, got no frame of the image key "
            f"{' nor '.join(missing)} in {image_key.name}"
        )
    if n_invalid := (keys == _INVALID).sum():
        logger.warning(
            "%s: %d of %d frames are marked invalid, left out", path, n_invalid, n_frames
        )
    return indices


def _theta(
    path: Path, rotation_angle: h5py.Dataset, projections: np.ndarray, n_frames: int
) -> np.ndarray:
    angles = np.asarray(rotation_angle, dtype=np.float64).reshape(-1)
    if len(angles) != n_frames:
        raise IntakeError(
            f"{path}: expected an angle for each of {n_frames} frames, got {len(angles)} in "
            f"{rotation_angle.name}"
        )
    return angles[projections]


def _units(path: Path, rotation_angle: h5py.Dataset) -> str:
    named = attribute(rotation_angle, "units")
    units = angle_unit(named)
    if units is None:
        raise IntakeError(
            f"{path}: expected degrees or radians as the attribute 'units' of "
            f"{rotation_angle.name}, got {named or 'none'!r}; set it: both would be plausible"
        )
    return units


def _metadata(group: h5py.Group) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if sample := text_in(group, "sample/name"):
        found["sample"] = {"name": sample}
    if title := text_in(group, "title"):
        found["title"] = title
    pixel = dataset_in(group, ["sample/x_pixel_size", "instrument/detector/x_pixel_size"])
    # The definition names no unit of its own: without one the number says nothing.
    if pixel is not None and (size := length_um(pixel, "unknown")):
        found["pixel_size_um"] = size
    return found
