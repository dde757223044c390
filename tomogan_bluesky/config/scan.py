"""What is read: frames, angles, darks and flats in the documents of a scan."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from .base import Config, Rows


class StoredFrames(Config):
    """Frames in files that the documents of a scan do not refer to."""

    path: str
    """An HDF5 file, or TIFF files with ``*`` in their name; it may name keys of the start document,
    as in ``/data/{data_session}/flats.h5``."""
    dataset: str | None = None
    """In an HDF5 file; None: where Data Exchange or NXtomo have such frames."""


class ReferenceFiles(Config):
    """Darks and flats in files."""

    darks: StoredFrames
    flats: StoredFrames


class ScanConfig(Config):
    """Where the frames and the angles of a scan are found in its documents."""

    image_key: str | None = None
    """Data key of the detector frames; None: the only two-dimensional array of the stream."""
    angle_key: str | None = None
    """Data key of the rotation angle; None: the only data key with an angular unit."""
    angle_units: Literal["deg", "rad"] | None = None
    """Units of the angle; None: those that the data key names."""
    angle_stream: str | None = None
    """Monitor stream of the angle, interpolated at the frames' times; None: a stream whose name
    ends in "_monitor" with an angular unit, where the projections' own stream has no angle."""
    frame_time_key: str | None = None
    """Data key with the time of each frame (seconds since 1970), where one event holds many."""
    start_angles: tuple[str] | tuple[str, str] | None = None
    """Key of the start document with the list of angles, or the two keys of the first and the last
    angle, both taken, between which the projections are spread evenly."""
    projection_streams: tuple[str, ...] = ("primary", "tomo", "projections", "projection")
    dark_streams: tuple[str, ...] = ("dark", "darks")
    flat_streams: tuple[str, ...] = ("flat", "flats", "white", "whites")
    """Names that a stream of projections, of darks, of flats may have."""
    flat: Literal["frames", "none"] = "frames"
    """"none": the frames are transmissions already, and need neither darks nor flats."""
    flat_drift: Literal["mean", "linear"] = "mean"
    """Flats of several times: their mean, or interpolated linearly between them in time."""
    references_run_key: str | None = None
    """Key of the start document with the uid of the run that holds the darks and flats."""
    reference_files: ReferenceFiles | None = None
    """Darks and flats for scans that have none of their own and name no run that has."""
    path_map: tuple[tuple[str, str], ...] = ()
    """Beginnings of paths as the documents have them, and what they are on this machine."""
    allowed_roots: tuple[Path, ...] | None = None
    """Folders that raw data may be read from; None: any."""
    first_file_number: int = 0
    """Number in the name of the first TIFF file of a sequence, where the documents count from 0."""
    file_wait_s: float = Field(default=10.0, ge=0.0)
    """Seconds to wait for a file, or for frames in it, that the documents promise."""
    memory_gib: float = Field(default=4.0, gt=0.0)
    """Most memory for the reconstruction after the end of a scan: the blocks that are read and the
    slabs are made small enough. Frames that came inside events are not counted. See also
    live.memory_gib."""
    rows: Rows | None = None
    """Detector rows [first, last) to reconstruct; None: all."""
