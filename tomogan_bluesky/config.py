"""Settings of one callback: what is read, how it is reconstructed, denoised and published.

All are frozen and refuse unknown names, so that a typing error in a profile is an error and not a
default. `None` means "infer it from the documents, and raise with the candidates if that is
ambiguous". Units stand in the names.
"""

import hashlib
import json
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

FilterName = Literal[
    "ramlak", "shepp", "cosine", "hann", "hamming", "parzen", "butterworth", "none"
]


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def digest(self) -> str:
        """Hexadecimal sha256 of the settings: equal settings, equal digest, in any process."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


class ScanConfig(_Config):
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
    flat: Literal["frames", "none"] = "frames"
    """"none": the frames are transmissions already, and need neither darks nor flats."""
    flat_drift: Literal["mean", "linear"] = "mean"
    """Flats of several times: their mean, or interpolated linearly between them in time."""
    references_run_key: str | None = None
    """Key of the start document with the uid of the run that holds the darks and flats."""
    path_map: tuple[tuple[str, str], ...] = ()
    """Beginnings of paths as the documents have them, and what they are on this machine."""
    allowed_roots: tuple[Path, ...] | None = None
    """Folders that raw data may be read from; None: any."""
    file_wait_s: float = Field(default=10.0, ge=0.0)
    """Seconds to wait for a file, or for frames in it, that the documents promise."""
    memory_gib: float = Field(default=4.0, gt=0.0)
    """Most memory for frames that are read from files at once."""
    rows: tuple[int, int] | None = None
    """Detector rows [first, last) to reconstruct; None: all."""

    @model_validator(mode="after")
    def _rows_in_order(self) -> Self:
        if self.rows is not None and not 0 <= self.rows[0] < self.rows[1]:
            raise ValueError(
                f"rows: expected 0 <= first < last (last not included), got {self.rows}"
            )
        return self


class ReconstructionConfig(_Config):
    """From sinograms to slices in 1/pixel."""

    backend: Literal["torch", "tomopy"] = "torch"
    method: Literal["gridrec", "fbp"] = "gridrec"
    filter: FilterName = "ramlak"
    rotation_centre: float | None = None
    """Detector column of the axis, 0.0 being the centre of column 0; None: found from a
    0°/180° pair of projections."""
    oversampling: float = Field(default=1.5, ge=1.25, le=4.0)
    """Size of the Fourier grid of `gridrec`, in image widths."""
    minimum_transmission: float = Field(default=1e-6, gt=0.0, lt=1.0)
    """Transmissions below are raised to it before the logarithm, and counted."""
    slab_rows: int = Field(default=8, ge=1)
    """Detector rows that are reconstructed, denoised and published together."""


class DenoisingConfig(_Config):
    """From noisy slices to denoised ones."""

    noise: float | None = Field(default=None, ge=0.0)
    """Standard deviation of the noise in 1/pixel; None: estimated for each slice."""


class PublishingConfig(_Config):
    """Where the pixels of a derived run go."""

    directory: Path | None = None
    """Folder for one HDF5 file a run, which the Tiled server must be able to read; None: the
    slices travel inside the events, which any server accepts and which is slower."""
    announce: Literal["live", "at_end"] = "live"
    """Announce each slab when it is written, or all of them when the file is closed (for disks
    without SWMR, such as NFS)."""
