"""Scans in folders of TIFF files.

Enters: a folder with a file ``scan.yml`` that says which files are what and at which angles they
were taken. Leaves: a `RecordedScan`, which makes documents of it. Such a description::

    sample: walnut
    projections: proj_*.tif       # * stands for the number of the frame
    flats: flat_*.tif
    darks: darks/dark_*.tif
    angles: {first: 0, last: 180} # of the first and the last projection; or a text file of angles
    units: deg
    pixel_size_um: 1.3
"""

import hashlib
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import BackendUnavailableError, IntakeError
from .recorded import RecordedScan, StoredImages, ranges_of, uid_of
from .uris import file_uri

PLAN_NAME = "ingest_tiff_folder"
DESCRIPTION = "scan.yml"
EXPECTED = (
    f"TIFF folder (with a file {DESCRIPTION} that names projections, flats, darks, angles and "
    "units)"
)


class _Described(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FirstAndLast(_Described):
    """Angles that are spread evenly over the numbers of the projections, both ends taken."""

    first: float
    last: float


class TiffScan(_Described):
    """A scan in a folder, as its ``scan.yml`` describes it. Paths are relative to the folder."""

    projections: str
    """Name of the files, with ``*`` for the number of the frame."""
    flats: str
    darks: str
    angles: FirstAndLast | str
    """Or the name of a text file with one angle a line, in the order of the numbers."""
    units: Literal["deg", "rad"]
    sample: str | None = None
    pixel_size_um: float | None = Field(default=None, gt=0.0)


def read_tiff_folder(folder: Path) -> RecordedScan:
    """Look into a folder of TIFF files.

    Parameters
    ----------
    folder : Path
        Absolute, without symbolic links.

    Raises
    ------
    IntakeError
        The description is not understood, or the folder does not hold what it describes.
    BackendUnavailableError
        tifffile is not installed.
    """
    described = _description(folder / DESCRIPTION)
    patterns = {"primary": described.projections, "flat": described.flats, "dark": described.darks}
    files = {stream: _Files(folder, pattern) for stream, pattern in patterns.items()}
    numbers = files["primary"].numbers
    metadata: dict[str, Any] = {}
    if described.sample:
        metadata["sample"] = {"name": described.sample}
    if described.pixel_size_um:
        metadata["pixel_size_um"] = described.pixel_size_um
    theta, angle_source = _theta(folder, described.angles, numbers)
    return RecordedScan(
        source=folder,
        folders=tuple({folder, *(f.folder for f in files.values())}),
        uid=_uid(folder, list(files.values())),
        plan_name=PLAN_NAME,
        images={stream: found.images() for stream, found in files.items()},
        theta=theta,
        angle_units=described.units,
        angle_source=angle_source,
        time=files["primary"].path(numbers[0]).stat().st_mtime,
        metadata=metadata,
    )


class _Files:
    """The files of one stream.

    Attributes
    ----------
    folder : Path
    numbers : list of int
        Of the frames, ascending.
    """

    def __init__(self, folder: Path, pattern: str) -> None:
        self._pattern = pattern
        self.folder = (folder / pattern).parent.resolve()
        before, star, after = Path(pattern).name.partition("*")
        if not star or set("*{}") & set(before + after):
            raise IntakeError(
                f"{folder / DESCRIPTION}: expected the name of files with one * that stands for "
                f"the number of the frame, and no braces, got {pattern!r}"
            )
        named = re.compile(re.escape(before) + r"(\d+)" + re.escape(after))
        names = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []
        digits = sorted((m[1] for name in names if (m := named.fullmatch(name))), key=int)
        if not digits:
            raise IntakeError(
                f"{folder}: expected files of the name {pattern}, with a number for *, got none; "
                f"there is {_some(names)}"
            )
        # Numbers with zeros in front are all of one width, or of more digits than that.
        width = min(map(len, digits)) if any(d[0] == "0" and len(d) > 1 for d in digits) else 1
        self._template = f"{before}{{:0{width}d}}{after}"
        self.numbers = [int(d) for d in digits]
        odd = {self._template.format(int(d)) for d in digits} - set(names)
        if odd or len(set(self.numbers)) < len(self.numbers):
            raise IntakeError(
                f"{folder}: expected the numbers in {pattern} to be written in one way, got "
                f"{_some([f'{before}{d}{after}' for d in digits])}"
            )

    def path(self, number: int) -> Path:
        return self.folder / self._template.format(number)

    def images(self) -> StoredImages:
        """The frames, by reference, after a look at what every file says it holds.

        Raises
        ------
        IntakeError
            Not one frame of numbers a file, all of one size.
        """
        held: dict[tuple[tuple[int, ...], str], Path] = {}
        for number in self.numbers:
            held.setdefault(_held_in(self.path(number)), self.path(number))
        (shape, dtype), path = next(iter(held.items()))
        if len(held) > 1 or len(shape) != 2 or np.dtype(dtype).kind not in "iuf":
            raise IntakeError(
                f"{self.folder}: expected one frame of numbers in each {self._pattern}, all of one "
                "size, got "
                + ", ".join(f"{d} of shape {s} in {path.name}" for (s, d), path in held.items())
            )
        file_uri(self.path(self.numbers[0]))  # refuses a name that Tiled could not find again
        return StoredImages(
            frame=(shape[0], shape[1]),
            dtype=dtype,
            ranges=ranges_of(self.numbers),
            source=str(self.folder / Path(self._pattern).name),
            mimetype="multipart/related;type=image/tiff",
            uri=f"{file_uri(self.folder)}/",
            parameters={"template": self._template},
        )


def _description(path: Path) -> TiffScan:
    try:
        return TiffScan.model_validate(yaml.safe_load(path.read_text()))
    except OSError as error:
        raise IntakeError(f"{path}: expected to read it, got: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise IntakeError(f"{path}: expected YAML, got: {error}") from error
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'all of it'}: {fault['msg']}"
            for fault in error.errors()
        )
        raise IntakeError(
            f"{path}: expected a description of a scan with "
            f"{', '.join(TiffScan.model_fields)}, got: {faults}"
        ) from error


def _theta(folder: Path, angles: FirstAndLast | str, numbers: list[int]) -> tuple[np.ndarray, str]:
    """The angle of each projection, and where it comes from."""
    if isinstance(angles, FirstAndLast):
        # Where a frame was lost, the others keep their angles.
        steps = numbers[-1] - numbers[0] + 1
        evenly = np.linspace(angles.first, angles.last, steps)
        return evenly[np.array(numbers) - numbers[0]], str(folder / DESCRIPTION)
    path = folder / angles
    try:
        return np.loadtxt(path, dtype=np.float64, ndmin=1).reshape(-1), str(path)
    except (OSError, ValueError) as error:
        raise IntakeError(f"{path}: expected a text file of angles, got: {error}") from error


def _held_in(path: Path) -> tuple[tuple[int, ...], str]:
    """Shape and type of what a TIFF file holds."""
    try:
        import tifffile
    except ImportError as error:
        raise BackendUnavailableError(
            "expected tifffile to be installed, to look into TIFF files, got: "
            f"{error}; install it with: pip install tifffile"
        ) from error
    try:
        with tifffile.TiffFile(path) as file:
            series = file.series
            shape, dtype = (series[0].shape, series[0].dtype) if len(series) == 1 else ((), None)
    except (OSError, tifffile.TiffFileError) as error:
        raise IntakeError(f"{path}: expected a TIFF file, got: {error}") from error
    return tuple(shape), np.dtype(dtype or "V").str


def _uid(folder: Path, files: list[_Files]) -> str:
    """As that of a file: of all names, sizes and times of change."""
    paths = [folder / DESCRIPTION, *(f.path(number) for f in files for number in f.numbers)]
    states = [path.stat() for path in paths]
    listing = "\n".join(
        f"{path} {state.st_size} {state.st_mtime_ns}"
        for path, state in zip(paths, states, strict=True)
    )
    return uid_of(
        f"{file_uri(folder)}#{hashlib.sha256(listing.encode()).hexdigest()}",
        sum(state.st_size for state in states),
        max(state.st_mtime_ns for state in states),
    )


def _some(names: list[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:6] + ["…"] * (len(listed) > 6)) or "nothing"
