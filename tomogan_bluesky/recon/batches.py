"""Reconstruction of many slices, some at a time.

Enters: attenuation sinograms (slice, angle, column), and how some of them are reconstructed.
Leaves: slices (slice, y, x) in 1/pixel.
"""

from collections.abc import Callable

import torch

from ..geometry import ScanGeometry
from .checks import check_attenuation
from .memory import empty


def in_batches(
    attenuation: torch.Tensor,
    geometry: ScanGeometry,
    n_slices: int,
    device: torch.device,
    reconstruct: Callable[[torch.Tensor, torch.Tensor], None],
) -> torch.Tensor:
    """Reconstruct slices, of which so many as fit go through together.

    Parameters
    ----------
    attenuation : torch.Tensor, float32, shape (slice, angle, column)
        Line integrals.
    geometry : ScanGeometry
    n_slices : int
        Most slices at once.
    device : torch.device
        Of the volume.
    reconstruct : callable
        Takes the attenuation of some slices, and fills them: float32, shape (slice, y, x).

    Returns
    -------
    torch.Tensor, float32, shape (slice, y, x)

    Raises
    ------
    ReconstructionError
        A shape that does not fit the geometry, or values that are not finite.
    """
    check_attenuation(attenuation, geometry)
    n = geometry.n_columns
    volume = empty((len(attenuation), n, n), device)
    for first in range(0, len(attenuation), n_slices):
        some = slice(first, first + n_slices)
        reconstruct(attenuation[some], volume[some])
    return volume
