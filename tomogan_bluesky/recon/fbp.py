"""Direct filtered back-projection: what `gridrec` computes, along its definition.

Enters: attenuation sinograms (slice, angle, column). Leaves: slices (slice, y, x) in 1/pixel.
Each pixel sums the filtered projections at the point where it falls on the detector. Much slower
than `gridrec`, and free of a Fourier grid's approximations: the reference to check it against.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from ..geometry import ScanGeometry
from .batches import in_batches
from .filters import apply_response, filter_response, transform_size
from .kernel import slice_origin

if TYPE_CHECKING:  # reconstruction needs numpy and torch only, and this needs pydantic
    from ..config import FilterName

# Filtered projections are sampled this many times finer before the linear interpolation.
_UPSAMPLING = 4
# Slices that share one computation of the geometry, and (pixel, angle) pairs that are held at
# once: together they bound the memory, to some 100 MB beside the data on a processor.
_BATCH = {"cpu": 32, "cuda": 64}
_PAIRS = {"cpu": 2**19, "cuda": 2**24}


class FBP:
    """Reconstructor by back-projection for one scan geometry.

    Takes and gives the same as `gridrec.Gridrec`, on the same pixels.

    Parameters
    ----------
    geometry : ScanGeometry
    filter : str
        One of `config.FilterName`.
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
        device: str | torch.device = "cpu",
    ) -> None:
        self.geometry = geometry
        self.device = torch.device(device)
        self.origin = slice_origin(geometry.n_columns)
        self._size = transform_size(2 * geometry.n_columns)
        response = filter_response(filter, self._size) * _UPSAMPLING
        response[-1] /= 2  # the finer transform has this frequency twice, as itself and its mirror
        # Linear interpolation damps by sinc² what it interpolates; undo it beforehand.
        frequency = torch.arange(len(response), dtype=torch.float64) / self._size
        response /= torch.sinc(frequency / _UPSAMPLING) ** 2
        self._response = response.float().to(device)
        self._shares = torch.tensor(geometry.weights, dtype=torch.float32, device=device)
        # Position on a line of the table, which begins with a 0: first + (row, column) @ steps.
        theta = torch.tensor(geometry.theta)
        steps = _UPSAMPLING * torch.stack((-torch.sin(theta), torch.cos(theta)))
        self._steps = steps.float().to(device)
        first = _UPSAMPLING * geometry.rotation_centre + 1
        self._first = torch.full((geometry.n_angles,), first, device=device)

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
        n_slices = _BATCH[self.device.type]
        return in_batches(attenuation, self.geometry, n_slices, self.device, self._reconstruct)

    def _reconstruct(self, attenuation: torch.Tensor, images: torch.Tensor) -> None:
        self._back_project(self._filtered(attenuation), out=images)

    def _filtered(self, attenuation: torch.Tensor) -> torch.Tensor:
        """Filtered projections on finer columns, one 0 before and two after, slices last."""
        spectra = apply_response(torch.fft.rfft(attenuation, self._size), self._response)
        lines = torch.fft.irfft(spectra, _UPSAMPLING * self._size)
        lines = lines[..., : _UPSAMPLING * (self.geometry.n_columns - 1) + 1]
        lines *= self._shares[:, None]
        # A clone, for contiguous() would leave a single slice with strides that embedding_bag sums
        # in another order.
        slices_last = F.pad(lines, (1, 2)).permute(1, 2, 0)
        return slices_last.clone(memory_format=torch.contiguous_format)

    def _back_project(self, lines: torch.Tensor, out: torch.Tensor) -> None:
        n_angles, length, n_slices = lines.shape
        n = self.geometry.n_columns
        table = lines.flatten(0, 1)
        start = torch.arange(n_angles, device=self.device, dtype=torch.int32) * length
        pixels = torch.empty((n * n, n_slices), device=self.device)
        tile = max(1, _PAIRS[self.device.type] // n_angles)
        for first in range(0, n * n, tile):
            pixel = torch.arange(first, min(first + tile, n * n), device=self.device)
            place = torch.stack((pixel // n - self.origin[0], pixel % n - self.origin[1]), 1)
            position = torch.addmm(self._first, place.float(), self._steps)
            position.clamp_(0, length - 2)
            below = position.floor()
            share = position - below
            left = below.int() + start
            pixels[first : first + tile] = F.embedding_bag(
                torch.stack((left, left + 1), 2).flatten(1),
                table,
                mode="sum",
                per_sample_weights=torch.stack((1 - share, share), 2).flatten(1),
            )
        out.copy_(pixels.T.view(n_slices, n, n))
