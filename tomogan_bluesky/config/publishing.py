"""Where derived runs go, and in which units."""

from collections.abc import Mapping
from pathlib import Path
from string import Formatter
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from ..errors import ConfigurationError
from .base import Config


class Scale(NamedTuple):
    """Units of published slices, and what slices in 1/pixel are multiplied by to get there."""

    units: str
    factor: float


PER_PIXEL = Scale("1/pixel", 1.0)


class PublishingConfig(Config):
    """Where the pixels of a derived run go."""

    directory: Path | None = None
    """Folder for one HDF5 file a run, which the Tiled server must be able to read; it may name keys
    of the start document, as in ``/data/{data_session}/derived``. None: the slices travel inside
    the events, which any server accepts and which is slower."""
    group: str | None = None
    """Group that owns the files and may read them; None: that of the process."""
    path_map: tuple[tuple[str, str], ...] = ()
    """Beginnings of paths on this machine, and what they are on that of the Tiled server."""
    announce: Literal["live", "at_end"] = "live"
    """Announce each slab when it is written, or all of them when the file is closed (for disks
    without SWMR, such as NFS)."""
    spool: Path | None = None
    """Folder of this machine where derived runs wait while their Tiled server is away; None:
    ``~/.local/state/tomogan_bluesky/spool``. Slices in `directory` wait there."""
    spool_gib: float = Field(default=20.0, ge=0.0)
    """Most that may wait in it; 0: nothing waits, and a server that is away fails the run."""

    units: Literal["1/pixel", "1/cm"] = "1/pixel"
    """Of published slices. Inside, and for networks, it is 1/pixel throughout; "1/cm" needs the
    size of a pixel."""
    pixel_size_um: float | None = Field(default=None, gt=0.0)
    """Of the recorded frames, as seen in the sample."""
    pixel_size_um_key: str | None = None
    """Key of the start document with it, where each scan says its own."""

    @model_validator(mode="after")
    def _one_pixel_size(self) -> Self:
        if self.units == "1/cm" and (self.pixel_size_um is None) == (
            self.pixel_size_um_key is None
        ):
            raise ValueError(
                "units: '1/cm' needs the size of a pixel, either as pixel_size_um or from the "
                "start document as pixel_size_um_key"
            )
        return self

    def scale(self, start_doc: Mapping[str, Any], binning: int = 1) -> Scale:
        """Units and factor of the slices of a run, of which so many recorded pixels make one.

        Raises
        ------
        ConfigurationError
            The start document does not say how large a pixel is.
        """
        if self.units == "1/pixel":
            return PER_PIXEL
        size = self.pixel_size_um
        if self.pixel_size_um_key is not None:
            size = start_doc.get(self.pixel_size_um_key)
        if not isinstance(size, int | float) or not 0 < size < float("inf"):
            raise ConfigurationError(
                f"publishing.units: expected the size of a pixel in µm in the start key "
                f"{self.pixel_size_um_key!r}, to publish in 1/cm, got {size!r}; add it to the "
                "run's metadata, or publish in 1/pixel"
            )
        return Scale("1/cm", 1e4 / (size * binning))

    def for_run(self, start_doc: Mapping[str, Any]) -> Self:
        """With the folder that the start document of a run leads to.

        Raises
        ------
        ConfigurationError
            The folder names a key that the start document does not have.
        """
        if self.directory is None:
            return self
        template = str(self.directory)
        values = {}
        for key in (name for _, name, _, _ in Formatter().parse(template) if name is not None):
            value = str(start_doc.get(key, ""))
            # One name of a folder: metadata must not lead out of the folder of derived data.
            if not value or value.startswith(".") or "/" in value:
                raise ConfigurationError(
                    f"publishing.directory: expected the start key {key!r} in {template!r} to be "
                    f"the name of a folder, got {start_doc.get(key)!r}; add it to the run's "
                    "metadata"
                )
            values[key] = value
        return self.model_copy(update={"directory": Path(template.format_map(values))})
