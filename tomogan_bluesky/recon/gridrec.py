"""Fourier reconstruction ("gridrec"): fast, and in absolute units.

Enters: attenuation sinograms (slice, angle, column). Leaves: slices (slice, y, x) in 1/pixel.
Each projection is transformed and filtered, its samples are spread over a Cartesian grid with a
Kaiser-Bessel kernel (O'Sullivan, IEEE Trans. Med. Imaging 4, 200, 1985), and one inverse transform
a slice follows.
"""

import math

import torch
from torch.nn import functional as F

from ..config import FilterName
from ..geometry import ScanGeometry
from .checks import check_attenuation
from .filters import apply_response, filter_response
from .kernel import FourierGrid

# Slices that go through at once. On a processor the working set of 8 still fits the caches; a
# GPU wants more.
_BATCH = {"cpu": 8, "cuda": 32}


class Gridrec:
    """Reconstructor in Fourier space for one scan geometry.

    The angles are taken to cover the half turn, or the full one, evenly. The bits of a slice do
    not depend on the slices beside it.

    Parameters
    ----------
    geometry : ScanGeometry
    filter : str
        One of `config.FilterName`.
    oversampling : float
        Size of the Fourier grid in image widths. The convolution with the ramp wraps around below
        2, which is not visible from 1.25 on: a disc of 1 comes out as 1.000 all the same.
    device : str or torch.device

    Attributes
    ----------
    geometry : ScanGeometry
    origin : tuple of int
        Pixel (row, column) of the rotation axis in the slices.
    """

    def __init__(
        self,
        geometry: ScanGeometry,
        filter: FilterName = "ramlak",
        oversampling: float = 1.5,
        device: str | torch.device = "cpu",
    ) -> None:
        self.geometry = geometry
        self.device = torch.device(device)
        self._grid = FourierGrid(geometry, oversampling, device=device)
        self.origin = self._grid.origin
        self._plan_spreading()
        grid = self._grid
        response = filter_response(filter, grid.size)[:-1] * math.pi / geometry.n_angles
        response /= grid.size
        response[0] /= 2  # this sample is its own mirror image, which fold() adds to each
        self._response = (response.to(device) * grid.centre_phase).to(torch.complex64)

    def _plan_spreading(self) -> None:
        """Turn "cells of each sample" into "samples of each cell": sums in a fixed order."""
        cells, weights = self._grid.neighbours()
        order = torch.argsort(cells.flatten(), stable=True)
        self._samples = (order // cells.shape[1]).int().to(self.device)
        self._weights = weights.flatten()[order].to(self.device)
        count = torch.bincount(cells.flatten(), minlength=math.prod(self._grid.shape))
        self._offsets = (torch.cumsum(count, 0) - count).int().to(self.device)

    def __call__(self, attenuation: torch.Tensor) -> torch.Tensor:
        """Reconstruct slices.

        Parameters
        ----------
        attenuation : torch.Tensor, float32, shape (slice, angle, column)
            Line integrals, on this object's device.

        Returns
        -------
        torch.Tensor, float32, shape (slice, y, x)
            Attenuation coefficient in 1/pixel, on the same device.

        Raises
        ------
        ReconstructionError
            A shape that does not fit the geometry, or values that are not finite.
        """
        check_attenuation(attenuation, self.geometry)
        n = self.geometry.n_columns
        volume = torch.empty((len(attenuation), n, n), device=self.device)
        batch = _BATCH[self.device.type]
        for first in range(0, len(attenuation), batch):
            part = slice(first, first + batch)
            self._slices(self._spectra(attenuation[part]), out=volume[part])
        return volume

    def _spectra(self, attenuation: torch.Tensor) -> torch.Tensor:
        """Half planes of the slices' transforms, complex64, shape (size, size // 2 + 1, slice)."""
        grid = self._grid
        polar = apply_response(torch.fft.rfft(attenuation, grid.size)[..., :-1], self._response)
        samples = torch.view_as_real(polar).permute(1, 2, 0, 3).contiguous()
        samples[grid.conjugated, ..., 1] *= -1
        spread = F.embedding_bag(
            self._samples,
            samples.flatten(2).flatten(0, 1),
            self._offsets,
            mode="sum",
            per_sample_weights=self._weights,
        )
        return grid.fold(torch.view_as_complex(spread.view(*grid.shape, -1, 2)))

    def _slices(self, spectra: torch.Tensor, out: torch.Tensor) -> None:
        """Inverse transforms, cut to the slices' pixels after each axis.

        Transforms of contiguous rows only: the bits of strided ones depend on how many there are.
        """
        grid = self._grid
        n = self.geometry.n_columns
        rows, columns = (
            torch.remainder(torch.arange(n, device=self.device) - o, grid.size) for o in grid.origin
        )
        half = torch.fft.ifft(spectra.permute(2, 1, 0).contiguous(), norm="forward")[..., rows]
        full = torch.fft.irfft(half.transpose(1, 2).contiguous(), grid.size, norm="forward")
        torch.mul(full[..., columns], grid.roll_off, out=out)
