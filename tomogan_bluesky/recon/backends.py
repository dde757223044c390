"""The reconstruction that a configuration asks for.

Enters: a scan geometry and a configuration. Leaves: an object that turns sinograms into slices.
"""

from typing import Protocol

import torch

from ..config import ReconstructionConfig
from ..geometry import ScanGeometry
from .astra_backend import AstraFBP, AstraSIRT
from .fbp import FBP
from .gridrec import Gridrec
from .iterative import SIRT, TotalVariation
from .tomopy_backend import TomopyFBP, TomopyGridrec


class Reconstructor(Protocol):
    """Attenuation (slice, angle, column) in, slices (slice, y, x) in 1/pixel out, all float32."""

    @property
    def geometry(self) -> ScanGeometry:
        """The scan that this object reconstructs."""

    @property
    def origin(self) -> tuple[float, float]:
        """Point (row, column) of a slice through which the rotation axis goes."""

    def __call__(self, attenuation: torch.Tensor) -> torch.Tensor:
        """Reconstruct; raises `ReconstructionError` for wrong shapes and non-finite values."""


def make_reconstructor(
    geometry: ScanGeometry, config: ReconstructionConfig, device: str | torch.device = "cpu"
) -> Reconstructor:
    """Make the reconstructor of a scan.

    Parameters
    ----------
    geometry : ScanGeometry
    config : ReconstructionConfig
        Its backend and method are used, and those settings that concern them.
    device : str or torch.device
        Where the torch backend computes. The others compute on the processor, and give their slices
        back where the sinograms came from.

    Raises
    ------
    BackendUnavailableError
        TomoPy or ASTRA is asked for and not installed.
    """
    match config.backend, config.method:
        case "tomopy", "gridrec":
            return TomopyGridrec(geometry, config.filter)
        case "tomopy", _:
            return TomopyFBP(geometry, config.filter)
        case "astra", "sirt":
            return AstraSIRT(geometry, config.iterations)
        case "astra", _:
            return AstraFBP(geometry, config.filter)
        case _, "sirt":
            return SIRT(geometry, config.iterations, config.oversampling, device)
        case _, "tv":
            return TotalVariation(
                geometry, config.iterations, config.tv_strength, config.oversampling, device
            )
        case _, "fbp":
            return FBP(geometry, config.filter, device)
    return Gridrec(geometry, config.filter, config.oversampling, device)
