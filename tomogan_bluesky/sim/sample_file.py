"""A simulated sample in a file, so that another process sees the same one.

Enters and leaves: `Shots`; between them lies one ``.npz`` file without pickled objects.
"""

import json
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np

from ..errors import ConfigurationError
from ..recon.beam import Beam
from .exposure import Exposure, Imperfections, Shots


def save_sample(path: Path, shots: Shots) -> None:
    """Write what is in the beam; not how many frames were taken of it."""
    exposure = shots.exposure
    beam = {f.name: getattr(exposure.beam, f.name) for f in fields(Beam) if f.init}
    settings = {
        "beam": beam,
        "imperfections": asdict(exposure.imperfections),
        "full_exposure_s": shots.full_exposure_s,
    }
    np.savez(
        path,
        integrals=exposure.integrals,
        angles_deg=exposure.angles_deg,
        settings=json.dumps(settings),
    )


def load_sample(path: Path) -> Shots:
    """Read what `save_sample` wrote.

    Raises
    ------
    ConfigurationError
        Not such a file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            settings = json.loads(str(file["settings"]))
            exposure = Exposure(
                file["integrals"],
                file["angles_deg"],
                Beam(**settings["beam"]),
                Imperfections(**settings["imperfections"]),
            )
        return Shots(exposure, settings["full_exposure_s"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{path}: expected a sample that save_sample wrote, got: {error}"
        ) from error
