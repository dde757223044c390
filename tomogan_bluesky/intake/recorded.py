"""Scans that lie in files already, as documents.

Enters: what a reader of one kind of files has found out about a scan. Leave: the documents of a
raw run with the streams ``dark``, ``flat`` and ``primary``; the images stay in their files, and the
documents say where.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import event_model
import numpy as np

from ..errors import IntakeError

STREAMS = ("dark", "flat", "primary")

# Bytes that a reader of the catalog gets in one request.
_REQUEST = 1 << 24

_MICROMETRES = {"m": 1e6, "mm": 1e3, "um": 1.0, "µm": 1.0, "micron": 1.0, "microns": 1.0}
_ANGLES = ("deg", "rad")


@dataclass(frozen=True)
class StoredImages:
    """The images of one stream, and where they are.

    Attributes
    ----------
    frame : (int, int)
        (row, column) of each.
    dtype : str
        As numpy spells it: ``<u2``.
    ranges : tuple of (int, int)
        Where they are in `uri`, as [first, last): the frames of a dataset or the numbers of files.
    source : str
        The same for people.
    mimetype, uri, parameters
        See event-model's `stream_resource`.
    """

    frame: tuple[int, int]
    dtype: str
    ranges: tuple[tuple[int, int], ...]
    source: str
    mimetype: str
    uri: str
    parameters: Mapping[str, Any]

    def __len__(self) -> int:
        return sum(last - first for first, last in self.ranges)


@dataclass(frozen=True)
class RecordedScan:
    """What there is to know about a scan in files before its images are read.

    Attributes
    ----------
    source : Path
        Absolute path of the file or folder, without symbolic links.
    folders : tuple of Path
        Folders that the images lie in.
    uid : str
        Uid of the run; see `uid_of`.
    plan_name : str
        How the run came to be.
    images : dict of str to StoredImages
        Of each stream.
    theta : float64 array, shape (angle,)
        As recorded, in `angle_units`.
    angle_units : "deg" or "rad"
    angle_source : str
        Where the angles are, for people.
    time : float
        When the scan was taken, if the files say so, else when they were written.
    metadata : dict
        For the start document: sample, title, size of a pixel.
    """

    source: Path
    folders: tuple[Path, ...]
    uid: str
    plan_name: str
    images: Mapping[str, StoredImages]
    theta: np.ndarray
    angle_units: str
    angle_source: str
    time: float
    metadata: Mapping[str, Any]

    def __post_init__(self) -> None:
        if len({images.frame for images in self.images.values()}) > 1:
            raise IntakeError(
                f"{self.source}: expected frames of one size, got (row, column) of "
                + ", ".join(f"{images.frame} in {images.source}" for images in self.images.values())
            )
        expected = len(self.images["primary"])
        if len(self.theta) != expected or not np.isfinite(self.theta).all():
            raise IntakeError(
                f"{self.source}: expected a finite angle for each of {expected} projections, got "
                f"{np.isfinite(self.theta).sum()} in {self.angle_source}"
            )

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
                "plan_name": self.plan_name,
                "scan_id": scan_id,
                "source_file": str(self.source),
                "num_projections": len(self.images["primary"]),
                "num_darks": len(self.images["dark"]),
                "num_flats": len(self.images["flat"]),
                **self.metadata,
            },
        )
        yield "start", run.start_doc
        for stream in STREAMS:
            yield from self._stream(run, stream)
            counters[stream] = len(self.images[stream]) + 1  # darks and flats have no events
        yield "stop", run.compose_stop(time=self.time)

    def _stream(
        self, run: event_model.ComposeRunBundle, stream: str
    ) -> Iterator[tuple[str, Mapping[str, Any]]]:
        images = self.images[stream]
        data_keys: dict[str, Any] = {
            "image": {
                "source": images.source,
                "dtype": "array",
                "dtype_numpy": images.dtype,
                "shape": list(images.frame),
                "dims": ["row", "column"],
                "external": "STREAM:",
            }
        }
        if stream == "primary":
            data_keys["rotation"] = {
                "source": self.angle_source,
                "dtype": "number",
                "dtype_numpy": "<f8",
                "shape": [],
                "units": self.angle_units,
            }
        descriptor = run.compose_descriptor(name=stream, data_keys=data_keys, time=self.time)
        yield "descriptor", descriptor.descriptor_doc
        compose_resource = run.compose_stream_resource
        assert compose_resource is not None  # it is for bundles of older versions only
        frame_bytes = int(np.prod(images.frame)) * np.dtype(images.dtype).itemsize
        n_together = min(len(images), max(1, _REQUEST // frame_bytes))
        resource = compose_resource(
            mimetype=images.mimetype,
            uri=images.uri,
            data_key="image",
            parameters={
                "chunk_shape": [n_together, *images.frame],
                "join_method": "stack",
                **images.parameters,
            },
        )
        yield "stream_resource", resource.stream_resource_doc
        seq_num = 1
        for first, last in images.ranges:
            yield (
                "stream_datum",
                resource.compose_stream_datum(
                    indices={"start": first, "stop": last},
                    seq_nums={"start": seq_num, "stop": seq_num + last - first},
                    descriptor=descriptor.descriptor_doc,
                ),
            )
            seq_num += last - first
        if stream == "primary":
            times = [self.time] * len(images)
            yield (
                "event_page",
                descriptor.compose_event_page(
                    data={"rotation": self.theta.tolist()},
                    timestamps={"rotation": times},
                    time=times,
                ),
            )


def uid_of(uri: str, size: int, mtime_ns: int) -> str:
    """Uid of the run of a file: that of its path, size and time of change.

    So the same file gives the same run, and one that was written anew or moved, whose images the
    catalog would no longer find in the old run, gives another. The content is not hashed: scans
    are tens of gigabytes.
    """
    return str(uuid5(NAMESPACE_URL, f"{uri}?size={size}&mtime_ns={mtime_ns}"))


def ranges_of(indices: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Ascending indices as ranges [first, last)."""
    indices = [int(i) for i in indices]
    gaps = [i for i, (a, b) in enumerate(pairwise(indices), start=1) if b != a + 1]
    starts, stops = [0, *gaps], [*gaps, len(indices)]
    return tuple((indices[i], indices[j - 1] + 1) for i, j in zip(starts, stops, strict=True))


def angle_unit(text: str) -> str | None:
    """ "deg" or "rad" for the ways in which files spell them; None for anything else."""
    return next((unit for unit in _ANGLES if text.strip().lower().startswith(unit)), None)


def micrometres(value: float, units: str) -> float | None:
    """A length in micrometres; None where its unit is not known or it is not a length."""
    length = value * _MICROMETRES.get(units.strip().lower(), np.nan)
    return length if np.isfinite(length) and length > 0 else None
