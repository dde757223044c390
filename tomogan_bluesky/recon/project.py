"""Forward projection: the line integrals that a parallel-beam scan of given slices would record.

Enters: slices (slice, y, x). Leaves: sinograms (slice, angle, column). The transpose of `gridrec`'s
interpolation in Fourier space, without the filter.
"""

import torch
from torch.nn import functional as F

from ..geometry import ScanGeometry
from .checks import check_stack
from .filters import apply_response
from .gridding import BATCH
from .kernel import FourierGrid


class Projector:
    """Forward projector for one scan geometry, on the pixel grid of `gridrec.Gridrec`.

    A slice is taken as band-limited: its pixels are samples, not squares. Where edges matter,
    project a finer image onto finer columns and average.

    Parameters
    ----------
    geometry : ScanGeometry
    oversampling : float
        Size of the Fourier grid in image widths, from 1.25 on. From 2 on nothing wraps around.
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
        oversampling: float = 2.0,
        device: str | torch.device = "cpu",
    ) -> None:
        self.geometry = geometry
        self.device = torch.device(device)
        self._grid = FourierGrid(geometry, oversampling, device=device)
        self.origin = self._grid.origin
        self._cells, self._weights = (a.to(device) for a in self._grid.neighbours())
        self._roll_off = torch.outer(*self._grid.roll_off).float()
        self._response = self._grid.centre_phase.conj().to(torch.complex64)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Project slices.

        Parameters
        ----------
        images : torch.Tensor, float32, shape (slice, y, x)
            Attenuation coefficient in 1/pixel, on this object's device.

        Returns
        -------
        torch.Tensor, float32, shape (slice, angle, column)
            Line integrals, on the same device.

        Raises
        ------
        ReconstructionError
            A shape that does not fit the geometry, or values that are not finite.
        """
        n = self.geometry.n_columns
        check_stack(images, (n, n), "images", ("slice", "y", "x"))
        sinograms = torch.empty((len(images), self.geometry.n_angles, n), device=self.device)
        batch = BATCH[self.device.type]
        for first in range(0, len(images), batch):
            part = slice(first, first + batch)
            sinograms[part] = self._lines(self._spectra(images[part]))
        return sinograms

    def _spectra(self, images: torch.Tensor) -> torch.Tensor:
        """Transforms about the rotation axis, complex64, shape (*grid shape, slice)."""
        grid = self._grid
        before = grid.corner
        after = [grid.size - self.geometry.n_columns - corner for corner in before]
        padded = F.pad(images * self._roll_off, (before[1], after[1]))
        half = F.pad(torch.fft.rfft(padded).transpose(1, 2), (before[0], after[0]))
        return grid.unfold(torch.fft.fft(half).permute(1, 2, 0))

    def _lines(self, spectra: torch.Tensor) -> torch.Tensor:
        """Read the samples of each projection from the grid and transform them back."""
        grid = self._grid
        samples = F.embedding_bag(
            self._cells,
            torch.view_as_real(spectra).flatten(2).flatten(0, 1),
            mode="sum",
            per_sample_weights=self._weights,
        ).view(self.geometry.n_angles, grid.n_frequencies, -1, 2)
        samples[grid.conjugated, ..., 1] *= -1
        polar = torch.view_as_complex(samples).permute(2, 0, 1).contiguous()
        lines = torch.fft.irfft(apply_response(polar, self._response), grid.size)
        return lines[..., : self.geometry.n_columns]
