"""Scans in Data Exchange files, as documents.

Enters: an HDF5 file with ``/exchange/data``, ``data_white``, ``data_dark`` and ``theta``, as the
Advanced Photon Source writes them. Leave: the documents of a raw run with the streams ``dark``,
``flat`` and ``primary``; the images stay in the file, and the documents say where.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import event_model
import h5py
import numpy as np

from ..errors import IntakeError
from .uris import file_uri

logger = logging.getLogger(__name__)

PLAN_NAME = "ingest_data_exchange"

_DATASETS = {"primary": "data", "flat": "data_white", "dark": "data_dark"}

# Where the size of a pixel on the sample is, and its unit where the file names none: the Data
# Exchange reference, and what the beamlines of the APS write.
_PIXEL_SIZES = {
    "measurement/instrument/detector/actual_pixel_size_x": "m",
    "measurement/instrument/detection_system/objective/resolution": "um",
}
_MICROMETRES = {"m": 1e6, "mm": 1e3, "um": 1.0, "µm": 1.0, "micron": 1.0, "microns": 1.0}

# Bytes that a reader of the catalog gets in one request.
_REQUEST = 1 << 24


@dataclass(frozen=True)
class DataExchangeScan:
    """What there is to know about a Data Exchange file before its images are read.

    Attributes
    ----------
    path : Path
        Absolute, without symbolic links.
    uid : str
        Uid of the run: that of the file's path, size and time of change. So the same file gives
        the same run, and one that was written anew or moved, whose images the catalog would no
        longer find in the old run, gives another. The content is not hashed: scans are tens of
        gigabytes.
    frames : dict of str to (int, int, int)
        (frame, row, column) of each stream.
    dtypes : dict of str to str
        Of the images of each stream, as numpy spells them: ``<u2``.
    theta : float64 array, shape (angle,)
        As recorded, in `angle_units`.
    angle_units : "deg" or "rad"
    time : float
        When the scan was taken, if the file says so, else when the file was written.
    metadata : dict
        For the start document: sample, title, size of a pixel.
    """

    path: Path
    uid: str
    frames: dict[str, tuple[int, int, int]]
    dtypes: dict[str, str]
    theta: np.ndarray
    angle_units: str
    time: float
    metadata: dict[str, Any]

    def documents(self, scan_id: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The documents of the run.

        Parameters
        ----------
        scan_id : int
            Number of the run, for people.

        Yields
        ------
        name : str
        doc : dict
        """
        counters: dict[str, int] = {}
        run = event_model.compose_run(
            uid=self.uid,
            time=self.time,
            event_counters=counters,
            metadata={
                "plan_name": PLAN_NAME,
                "scan_id": scan_id,
                "source_file": str(self.path),
                "num_projections": self.frames["primary"][0],
                "num_darks": self.frames["dark"][0],
                "num_flats": self.frames["flat"][0],
                **self.metadata,
            },
        )
        yield "start", run.start_doc
        for stream in ("dark", "flat", "primary"):
            yield from self._stream(run, stream)
            counters[stream] = self.frames[stream][0] + 1  # darks and flats have no events
        yield "stop", run.compose_stop(time=self.time)

    def _stream(
        self, run: event_model.ComposeRunBundle, stream: str
    ) -> Iterator[tuple[str, Mapping[str, Any]]]:
        n_frames, *frame = self.frames[stream]
        data_keys: dict[str, Any] = {
            "image": {
                "source": f"/exchange/{_DATASETS[stream]}",
                "dtype": "array",
                "dtype_numpy": self.dtypes[stream],
                "shape": frame,
                "dims": ["row", "column"],
                "external": "STREAM:",
            }
        }
        if stream == "primary":
            data_keys["rotation"] = {
                "source": "/exchange/theta",
                "dtype": "number",
                "dtype_numpy": "<f8",
                "shape": [],
                "units": self.angle_units,
            }
        descriptor = run.compose_descriptor(name=stream, data_keys=data_keys, time=self.time)
        yield "descriptor", descriptor.descriptor_doc
        compose_resource = run.compose_stream_resource
        assert compose_resource is not None  # it is for bundles of older versions only
        frame_bytes = int(np.prod(frame)) * np.dtype(self.dtypes[stream]).itemsize
        resource = compose_resource(
            mimetype="application/x-hdf5",
            uri=file_uri(self.path),
            data_key="image",
            parameters={
                "dataset": f"/exchange/{_DATASETS[stream]}",
                "chunk_shape": [min(n_frames, max(1, _REQUEST // frame_bytes)), *frame],
                "join_method": "stack",
                "swmr": False,
            },
        )
        yield "stream_resource", resource.stream_resource_doc
        yield (
            "stream_datum",
            resource.compose_stream_datum(
                indices={"start": 0, "stop": n_frames},
                seq_nums={"start": 1, "stop": n_frames + 1},
                descriptor=descriptor.descriptor_doc,
            ),
        )
        if stream == "primary":
            times = [self.time] * n_frames
            yield (
                "event_page",
                descriptor.compose_event_page(
                    data={"rotation": self.theta.tolist()},
                    timestamps={"rotation": times},
                    time=times,
                ),
            )


def read_scan(path: Path) -> DataExchangeScan:
    """Look into a Data Exchange file.

    Parameters
    ----------
    path : Path

    Raises
    ------
    IntakeError
        No file, no HDF5, or not a Data Exchange scan with darks, flats and angles.
    """
    path = path.resolve()
    try:
        status = path.stat()
        with h5py.File(path, "r") as file:
            frames, dtypes = _images(path, file)
            theta, units = _angles(path, file, frames["primary"][0])
            return DataExchangeScan(
                path=path,
                uid=_uid(path, status.st_size, status.st_mtime_ns),
                frames=frames,
                dtypes=dtypes,
                theta=theta,
                angle_units=units,
                time=_time(file, status.st_mtime),
                metadata=_metadata(path, file),
            )
    except OSError as error:
        what = error.strerror if error.errno else "no HDF5 file"
        raise IntakeError(
            f"{path}: expected a Data Exchange HDF5 file, got: {what}; name the file of one scan"
        ) from error


def _uid(path: Path, size: int, mtime_ns: int) -> str:
    return str(uuid5(NAMESPACE_URL, f"{file_uri(path)}?size={size}&mtime_ns={mtime_ns}"))


def _images(path: Path, file: h5py.File) -> tuple[dict[str, tuple[int, int, int]], dict[str, str]]:
    missing = [
        name
        for name in (*_DATASETS.values(), "theta")
        if not isinstance(file.get(f"exchange/{name}"), h5py.Dataset)
    ]
    if missing:
        raise IntakeError(
            f"{path}: expected a Data Exchange scan with the datasets data, data_white, data_dark "
            f"and theta in /exchange, got none of the name {', '.join(missing)}; there is "
            f"{', '.join(_contents(file)) or 'nothing'}"
        )
    frames, dtypes = {}, {}
    for stream, name in _DATASETS.items():
        dataset = file[f"exchange/{name}"]
        shape, numbers = dataset.shape, dataset.dtype
        if len(shape) != 3 or 0 in shape or numbers.kind not in "iuf":
            raise IntakeError(
                f"{path}: expected numbers of shape (frame, row, column) in /exchange/{name}, got "
                f"{numbers} of shape {shape}"
            )
        frames[stream], dtypes[stream] = shape, numbers.str
    if len({shape[1:] for shape in frames.values()}) > 1:
        raise IntakeError(
            f"{path}: expected frames of one size, got (row, column) of "
            + ", ".join(f"{shape[1:]} in {_DATASETS[name]}" for name, shape in frames.items())
        )
    return frames, dtypes


def _angles(path: Path, file: h5py.File, n_projections: int) -> tuple[np.ndarray, str]:
    dataset = file["exchange/theta"]
    # Degrees is what the format says where a file does not.
    named = _decoded(dataset.attrs.get("units", "deg"))
    units = next((u for u in ("deg", "rad") if named.lower().startswith(u)), None)
    if units is None:
        raise IntakeError(
            f"{path}: expected degrees or radians as the units of /exchange/theta, got {named!r}"
        )
    theta = np.asarray(dataset, dtype=np.float64).reshape(-1)
    if len(theta) != n_projections or not np.isfinite(theta).all():
        raise IntakeError(
            f"{path}: expected a finite angle for each of {n_projections} projections, got "
            f"{np.isfinite(theta).sum()} in /exchange/theta"
        )
    return theta, units


def _time(file: h5py.File, written: float) -> float:
    text = _text(file, "process/acquisition/start_date") or _text(file, "file_creation_datetime")
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return written


def _metadata(path: Path, file: h5py.File) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if sample := _text(file, "measurement/sample/name"):
        found["sample"] = {"name": sample}
    if title := _text(file, "exchange/title"):
        found["title"] = title
    for name, default in _PIXEL_SIZES.items():
        dataset = file.get(name)
        if not isinstance(dataset, h5py.Dataset) or dataset.size != 1:
            continue
        units = _decoded(dataset.attrs.get("units", default)).lower()
        value = float(np.asarray(dataset).reshape(-1)[0]) * _MICROMETRES.get(units, np.nan)
        if np.isfinite(value) and value > 0:
            found["pixel_size_um"] = value
            break
        logger.warning("%s: the size of a pixel in /%s is not understood, left out", path, name)
    return found


def _text(file: h5py.File, name: str) -> str:
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset) or dataset.size != 1:
        return ""
    return _decoded(np.asarray(dataset).reshape(-1)[0]).strip()


def _decoded(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _contents(file: h5py.File) -> list[str]:
    """What a person needs to see to know which file this is."""
    names: list[str] = []
    file.visititems(
        lambda name, item: (
            names.append(f"/{name} {item.shape}") if isinstance(item, h5py.Dataset) else None
        )
    )
    return names[:12] + (["…"] if len(names) > 12 else [])
