"""One scan in files of each kind that can be ingested."""

from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import tifffile
import yaml
from scans import DARK, FLAT, disc_frames


def _noisy(level: int, count: int, seed: int) -> np.ndarray:
    frames = disc_frames()
    return np.random.default_rng(seed).poisson(level, (count, *frames.shape[1:])).astype(np.uint16)


@dataclass
class Frames:
    """The frames of a scan, each different from every other."""

    projections: np.ndarray = field(default_factory=disc_frames)
    flats: np.ndarray = field(default_factory=lambda: _noisy(FLAT, 5, 1))
    darks: np.ndarray = field(default_factory=lambda: _noisy(DARK, 3, 2))

    @property
    def angles_deg(self) -> np.ndarray:
        return np.linspace(0, 180, len(self.projections))

    def of(self, stream: str) -> np.ndarray:
        return {"primary": self.projections, "flat": self.flats, "dark": self.darks}[stream]


def write_data_exchange(path: Path, frames: Frames) -> Path:
    with h5py.File(path, "w") as file:
        file["exchange/data"] = frames.projections
        file["exchange/data_white"] = frames.flats
        file["exchange/data_dark"] = frames.darks
        file["exchange/theta"] = frames.angles_deg
    return path


# Flats before, between and after, darks at both ends, two frames that are not to be used.
SCATTERED = "DFF" + "P" * 20 + "XF" + "P" * 17 + "XFFDD"
IN_A_ROW = "DDD" + "P" * 37 + "FFFFF"


def write_nxtomo(path: Path, frames: Frames, order: str = SCATTERED, units: str | None = "deg"):
    keys = np.array(["PFDX".index(letter) for letter in order], dtype=np.uint8)
    data = np.full((len(order), *frames.projections.shape[1:]), 7, dtype=np.uint16)
    angles = np.full(len(order), 5.0)
    for key, images in enumerate((frames.projections, frames.flats, frames.darks)):
        data[keys == key] = images
    angles[keys == 0] = frames.angles_deg
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry1/tomo_entry")
        entry["definition"] = "NXtomo"
        entry.create_dataset("instrument/detector/data", data=data, chunks=(1, *data.shape[1:]))
        entry["instrument/detector/image_key"] = keys
        entry["sample/rotation_angle"] = angles
        if units:
            entry["sample/rotation_angle"].attrs["units"] = units
        for name in ("instrument/detector/data", "instrument/detector/image_key"):
            entry[f"data/{name.rpartition('/')[2]}"] = entry[name]
        entry["data/rotation_angle"] = entry["sample/rotation_angle"]
    return path


def write_tiff_folder(folder: Path, frames: Frames, first: int = 1, **description) -> Path:
    folder.mkdir()
    (folder / "darks").mkdir()
    for name, images in {
        "proj_{:04d}.tif": frames.projections,
        "flat-{}.tiff": frames.flats,
        "darks/dark {:03d}.tif": frames.darks,
    }.items():
        for number, image in enumerate(images, first):
            tifffile.imwrite(folder / name.format(number), image)
    described = {
        "projections": "proj_*.tif",
        "flats": "flat-*.tiff",
        "darks": "darks/dark *.tif",
        "angles": {"first": 0, "last": 180},
        "units": "deg",
        **description,
    }
    (folder / "scan.yml").write_text(
        yaml.safe_dump({k: v for k, v in described.items() if v is not None})
    )
    return folder
