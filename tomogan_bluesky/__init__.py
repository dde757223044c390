"""Denoised tomography slices from a running Bluesky scan.

The public names are loaded on first use, so that importing the package stays cheap and does not
import torch.
"""

from importlib import import_module
from typing import Any

from ._version import __version__

_HOME = {
    "TomoGANCallback": ".callback",
    "RunReport": ".callback",
    "replay": ".replaying",  # not named like its function, which it would hide
    "train": ".training.trainer",
    "export_model": ".models.artifact",
    "ScanConfig": ".config",
    "ReconstructionConfig": ".config",
    "PreprocessingConfig": ".config",
    "LiveConfig": ".config",
    "DenoisingConfig": ".config",
    "PublishingConfig": ".config",
    "WorkerConfig": ".config",
    "ScanGeometry": ".geometry",
    "TomoGANError": ".errors",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name], __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
