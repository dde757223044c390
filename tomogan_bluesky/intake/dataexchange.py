"""Scans in Data Exchange files.

Enters: an HDF5 file with ``/exchange/data``, ``data_white``, ``data_dark`` and ``theta``, as the
Advanced Photon Source writes them. Leaves: a `RecordedScan`, which makes documents of it.
"""

import logging
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import IntakeError
from .hdf5 import attribute, contents, dataset_in, length_um, stored_images, text_in, time_of
from .recorded import RecordedScan, angle_unit, uid_of
from .uris import file_uri

logger = logging.getLogger(__name__)

PLAN_NAME = "ingest_data_exchange"
EXPECTED = (
    "Data Exchange (HDF5 with the datasets data, data_white, data_dark and theta in /exchange)"
)

DATASETS = {"primary": "data", "flat": "data_white", "dark": "data_dark"}

# Where the size of a pixel on the sample is, and its unit where the file names none: the Data
# Exchange reference, and what the beamlines of the APS write.
_PIXEL_SIZES = {
    "measurement/instrument/detector/actual_pixel_size_x": "m",
    "measurement/instrument/detection_system/objective/resolution": "um",
}


def is_data_exchange(file: h5py.File) -> bool:
    """Whether a file means to be of this kind."""
    return isinstance(file.get("exchange"), h5py.Group)


def read_data_exchange(path: Path, file: h5py.File) -> RecordedScan:
    """Look into a Data Exchange file.

    Parameters
    ----------
    path : Path
        Absolute, without symbolic links.
    file : h5py.File
        The same, open.

    Raises
    ------
    IntakeError
        Not a scan with darks, flats and angles.
    """
    missing = [
        name
        for name in (*DATASETS.values(), "theta")
        if dataset_in(file, [f"exchange/{name}"]) is None
    ]
    if missing:
        raise IntakeError(
            f"{path}: expected a Data Exchange scan with the datasets data, data_white, data_dark "
            f"and theta in /exchange, got none of the name {', '.join(missing)}; there is "
            f"{contents(file)}"
        )
    status = path.stat()
    theta = file["exchange/theta"]
    # Degrees is what the format says where a file does not.
    named = attribute(theta, "units", "deg")
    units = angle_unit(named)
    if units is None:
        raise IntakeError(
            f"{path}: expected degrees or radians as the units of /exchange/theta, got {named!r}"
        )
    datasets = {stream: file[f"exchange/{name}"] for stream, name in DATASETS.items()}
    return RecordedScan(
        source=path,
        folders=(path.parent,),
        uid=uid_of(file_uri(path), status.st_size, status.st_mtime_ns),
        plan_name=PLAN_NAME,
        images={stream: stored_images(dataset) for stream, dataset in datasets.items()},
        theta=np.asarray(theta, dtype=np.float64).reshape(-1),
        angle_units=units,
        angle_source=theta.name,
        time=time_of(
            (
                text_in(file, "process/acquisition/start_date"),
                text_in(file, "file_creation_datetime"),
            ),
            status.st_mtime,
        ),
        metadata=_metadata(path, file),
    )


def _metadata(path: Path, file: h5py.File) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if sample := text_in(file, "measurement/sample/name"):
        found["sample"] = {"name": sample}
    if title := text_in(file, "exchange/title"):
        found["title"] = title
    for name, default in _PIXEL_SIZES.items():
        dataset = dataset_in(file, [name])
        if dataset is None:
            continue
        if size := length_um(dataset, default):
            found["pixel_size_um"] = size
            break
        logger.warning("%s: the size of a pixel in /%s is not understood, left out", path, name)
    return found
