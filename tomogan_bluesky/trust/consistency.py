"""Whether denoised slices agree with what was measured.

Enter: slices, and some of the projections that they were made from. Leaves: the reduced chi² of
what the slices would have shown against what was seen, in units of the photons' noise; and how far
the strangest spot of what denoising has changed stands out of the noise.

A slice without noise has a chi² of 1, where everything is modelled. A filtered back-projection has
less, about 1/2, because it follows the noise; and more where the model of the scan is not right, as
with rings. So what counts is what denoising adds: noise alone adds 1 at most. A slice that was
blurred, or scaled, adds more.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from ..geometry import ScanGeometry
from ..recon.project import Projector

LARGEST_EXCESS = 1.0
"""What may be added to the chi² of the reconstruction: more can't be noise that was removed."""
LARGEST_SPOT = 15.0
"""Deviations by which the strangest spot may stand out (`benchmarks/checks.py`): 4 to 13 are usual
on the pinned sets."""

_SPOT_PX = 1.5  # standard deviation of the window that spots are looked for with
_INSIDE = 0.9  # of the half width: where a reconstruction means something
_NORMAL_MAD = 0.6745


@dataclass(frozen=True)
class Photons:
    """What the noise of projections follows from.

    Attributes
    ----------
    electrons : float
        Of the open beam, a pixel and projection.
    read_noise : float
        Standard deviation without light, in electrons.
    n_flats : int
        Flats that were averaged.
    """

    electrons: float
    read_noise: float
    n_flats: int

    def variance(self, attenuation: torch.Tensor) -> torch.Tensor:
        """Of measured attenuations: Poisson's law, and the error of the flat field."""
        seen = self.electrons * torch.exp(-attenuation)
        return (1 + self.read_noise**2 / seen) / seen + 1 / (self.n_flats * self.electrons)


class Consistency:
    """Compares slices with projections.

    Parameters
    ----------
    geometry : ScanGeometry
        Of the projections to compare with: some dozens, evenly spread, are enough.
    photons : Photons
    """

    def __init__(self, geometry: ScanGeometry, photons: Photons) -> None:
        self._project = Projector(geometry)
        self._photons = photons

    def chi2(self, slices: torch.Tensor, attenuation: torch.Tensor) -> torch.Tensor:
        """Reduced chi² of each slice.

        Parameters
        ----------
        slices : torch.Tensor, float32, shape (slice, y, x)
            In 1/pixel, on the CPU; all are of one row.
        attenuation : torch.Tensor, float32, shape (angle, column)
            As measured.

        Returns
        -------
        torch.Tensor, float32, shape (slice,)
        """
        rest = self._project(slices) - attenuation
        return (rest**2 / self._photons.variance(attenuation)).mean((1, 2))


def strangest_spot(reconstruction: torch.Tensor, denoised: torch.Tensor) -> float:
    """How far the strangest spot of their difference stands out, in its standard deviations.

    Noise is all over a slice, and spots of it average out; what was put in, or wiped out, stays.

    Parameters
    ----------
    reconstruction, denoised : torch.Tensor, float32, shape (y, x)
        On the CPU.
    """
    spots = _blurred(reconstruction - denoised)
    y, x = ((torch.arange(n) - (n - 1) / 2) * 2 / n for n in spots.shape)
    inside = spots[y[:, None] ** 2 + x**2 <= _INSIDE**2].abs()
    typical = float(inside.median()) / _NORMAL_MAD
    return float(inside.max()) / typical if typical > 0 else 0.0


def _blurred(image: torch.Tensor) -> torch.Tensor:
    half = int(4 * _SPOT_PX)
    kernel = torch.exp(-(torch.arange(-half, half + 1) ** 2) / (2 * _SPOT_PX**2))
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    padded = F.pad(image[None, None], [half] * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel), kernel.transpose(2, 3))[0, 0]
