"""The way from a Cartesian grid in Fourier space to slices: an inverse transform along each axis.

Enters: cells of a `kernel.FourierGrid`, a few of its columns at a time. Leaves: slices
(slice, y, x) in 1/pixel. Only contiguous lines, or strided ones that are always as many and as far
apart, are transformed: the bits of others depend on what is transformed with them.
"""

from __future__ import annotations

import math

import torch

from .kernel import FourierGrid
from .threads import Threads

# Complex values that go through the transform along columns, and along rows, at once: they stay in
# the processor's cache on their way.
_AT_ONCE = {"cpu": (2**16, 2**17), "cuda": (2**40, 2**40)}


class Scratch:
    """Memory for intermediate results that is used again.

    To touch fresh pages costs a processor more than to compute on them.
    """

    def __init__(self, device: torch.device) -> None:
        self._memory = torch.empty(0, device=device)

    def __call__(self, *shape: int) -> torch.Tensor:
        """Float32, not initialised; what was given before is overwritten."""
        size = math.prod(shape)
        if len(self._memory) < size:
            with torch.inference_mode(False):  # what is made there can't be written to elsewhere
                self._memory = torch.empty(size, device=self._memory.device)
        return self._memory[:size].view(shape)


class InverseTransform:
    """Slices of a grid, transformed along its columns first, and then along its rows.

    In between, what is transformed along the columns is cut to their pixels in the slice.

    Parameters
    ----------
    grid : FourierGrid
    device : torch.device
    n_slices : int
        Slices that go through at once, at most.

    Attributes
    ----------
    tiles : list of slice
        Columns of the grid that are transformed at once. The first are those that mirror each
        other, see `FourierGrid.fold`.
    """

    def __init__(self, grid: FourierGrid, device: torch.device, n_slices: int) -> None:
        self._grid = grid
        self._scratch = Scratch(device)
        values, at_once = _AT_ONCE[device.type]
        mirrored = 2 * grid.margin + 1
        # An odd number: columns a power of two apart would push each other out of the cache.
        self._width = values // (n_slices * grid.size) | 1
        self.tiles = [slice(0, mirrored), *self.parts(mirrored, grid.shape[0])]
        (top, left), (of_rows, of_columns) = grid.corner, grid.roll_off
        if grid.transposed:
            top, left, of_rows, of_columns = left, top, of_columns, of_rows
        n = len(of_rows)
        self._top, self._left = slice(top, top + n), slice(left, left + n)
        self._per_row = of_rows.float().repeat_interleave(2).view(-1, 2)  # also of imaginary parts
        self._per_column = of_columns
        n_columns = grid.shape[0] - grid.margin
        self._rows = cut(0, n, math.ceil(n / math.ceil(n * n_columns / at_once)))

    def parts(self, start: int, stop: int) -> list[slice]:
        """Columns from `start` to `stop`, as many at once as are transformed fastest."""
        return cut(start, stop, self._width)

    def half(self, n_slices: int) -> list[torch.Tensor]:
        """Memory for slices that are transformed along the columns of the grid alone.

        Some rows of the slices at once, complex64, shape (slice, column of the half plane, row). It
        is used again and again.
        """
        n_columns = self._grid.shape[0] - self._grid.margin
        # A little wider: lines a power of two apart push each other out of the cache.
        length = self._rows[0].stop
        width = length + (8 - length) % 16
        memory = torch.view_as_complex(
            self._scratch(len(self._rows), n_slices, n_columns, width, 2)
        )
        return [
            part[..., : rows.stop - rows.start]
            for part, rows in zip(memory, self._rows, strict=True)
        ]

    def along_columns(self, cells: torch.Tensor, columns: slice, half: list[torch.Tensor]) -> None:
        """Transform some columns.

        Parameters
        ----------
        cells : torch.Tensor, float32, shape (cell, slice, 2)
            Of these columns.
        columns : slice
            Of the grid: the first of the `tiles`, or any after it.
        half : list of torch.Tensor
            As `half` gives it, or with all rows in one; the places of these columns are filled.
        """
        grid = self._grid
        spectra = torch.view_as_complex(cells).view(-1, grid.size, cells.shape[1])
        if columns.start == 0:
            spectra = grid.fold(spectra)
        lines = torch.fft.ifft(spectra.permute(2, 0, 1).contiguous(), norm="forward")
        lines = torch.view_as_real(lines[..., self._top])
        place, first = self.place(columns), 0
        for part in half:
            rows = slice(first, first + part.shape[2])
            out = torch.view_as_real(part[:, place])
            torch.mul(lines[:, :, rows], self._per_row[rows], out=out)
            if columns.stop == grid.shape[0]:
                out[:, -1] *= 2  # see fold
            first = rows.stop

    def place(self, columns: slice) -> slice:
        """Where some columns of the grid are in the half plane."""
        margin = self._grid.margin
        return slice(max(columns.start - margin, 0), columns.stop - margin)

    def along_rows(
        self,
        half: list[torch.Tensor],
        out: torch.Tensor,
        step: float,
        threads: Threads,
        finished: torch.Tensor | None = None,
    ) -> None:
        """Slices of what is transformed along the columns.

        Parameters
        ----------
        half : list of torch.Tensor
            As the method of this name gives it, filled.
        out : torch.Tensor, float32, shape (slice, y, x)
            Is filled, in 1/pixel.
        step : float
            Angle in radians that a projection of share 1 stands for.
        threads : Threads
        finished : torch.Tensor, optional, complex64, shape (slice, column, row)
            The last columns, if they are elsewhere; else they are in `half`, too.
        """
        factor = (self._per_column * step).float()
        images = out.transpose(1, 2) if self._grid.transposed else out

        def transform(index: int, part: torch.Tensor, rows: slice) -> None:
            spectra = part[index]
            if finished is not None:
                # Just before it is used, and as far apart as the others: see the module.
                spectra[len(spectra) - finished.shape[1] :] = finished[index, :, rows]
            lines = torch.fft.irfft(spectra.T, self._grid.size, norm="forward")
            torch.mul(lines[:, self._left], factor, out=images[index, rows])

        pieces = [
            (index, part, rows)
            for index in range(len(out))
            for part, rows in zip(half, self._rows, strict=True)
        ]
        threads.map(transform, *zip(*pieces, strict=True))


def cut(start: int, stop: int, length: int) -> list[slice]:
    """A range in parts of some length, the last of which may be shorter."""
    return [slice(i, min(i + length, stop)) for i in range(start, stop, length)]
