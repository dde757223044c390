"""The reconstruction that a configuration asks for.

Enters: a scan geometry and a configuration. Leaves: an object that turns sinograms into slices.
"""

from typing import Protocol

import torch

from ..config import ReconstructionConfig
from ..geometry import ScanGeometry
from .fbp import FBP
from .gridrec import Gridrec
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
        Its backend, method, filter and oversampling are used.
    device : str or torch.device
        Where the torch backend computes. TomoPy computes on the processor, and gives its slices
        back where the sinograms came from.

    Raises
    ------
    BackendUnavailableError
        TomoPy is asked for and not installed.
    """
    if config.backend == "tomopy":
        make = TomopyGridrec if config.method == "gridrec" else TomopyFBP
        return make(geometry, config.filter)
    if config.method == "gridrec":
        return Gridrec(geometry, config.filter, config.oversampling, device)
    return FBP(geometry, config.filter, device)
