"""The way from a Cartesian grid in Fourier space to slices: an inverse transform along each axis.

Enters: cells of a `kernel.FourierGrid`, a few of its columns at a time. Leaves: slices
(slice, y, x) in 1/pixel. Only contiguous lines, or strided ones that are always as many and as far
apart, are transformed: the bits of others depend on what is transformed with them.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch.nn import functional as F

from .kernel import FourierGrid
from .memory import Scratch
from .threads import Threads

# Complex values of all slices that are transformed along columns at once, and rows of one slice
# along rows: few enough to stay in the processor's cache on their way, and to share its pages.
_VALUES = {"cpu": 2**16, "cuda": 2**40}
_ROWS = {"cpu": 256, "cuda": 2**40}


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
        mirrored = 2 * grid.margin + 1
        # An odd number: columns a power of two apart would push each other out of the cache.
        self._width = _VALUES[device.type] // (n_slices * grid.size) | 1
        self.tiles = [slice(0, mirrored), *self.parts(mirrored, grid.shape[0])]
        (top, left), (of_rows, of_columns) = grid.corner, grid.roll_off
        if grid.transposed:
            top, left, of_rows, of_columns = left, top, of_columns, of_rows
        n = len(of_rows)
        n_parts, length = _parts_of_rows(n, _ROWS[device.type])
        self._rows = cut(0, n, length)
        self._top = slice(top, top + n_parts * length)
        self._left = slice(left, left + n)
        per_row = F.pad(of_rows, (0, n_parts * length - n)).float()
        self._per_row = per_row.repeat_interleave(2).view(n_parts, length, 2)  # also of i times it
        self._per_column = of_columns

    def parts(self, start: int, stop: int) -> list[slice]:
        """Columns from `start` to `stop`, as many at once as are transformed fastest."""
        return cut(start, stop, self._width)

    def half(self, n_slices: int) -> torch.Tensor:
        """Memory for slices that are transformed along the columns of the grid alone.

        Complex64, shape (slice, column of the half plane, part, row): parts of some rows each are
        apart, so that a part is close together. Used again and again.
        """
        n_parts, length, _ = self._per_row.shape
        n_columns = self._grid.shape[0] - self._grid.margin
        shape = n_parts, n_slices, n_columns, _padded(2 * length) // 2, 2
        return torch.view_as_complex(self._scratch(*shape))[..., :length].permute(1, 2, 0, 3)

    def places(self, columns: torch.Tensor) -> torch.Tensor:
        """The same in the memory of the grid, for each column in its own.

        Parameters
        ----------
        columns : torch.Tensor, float32, shape (cell, slice, 2)
            The whole grid of some slices.
        """
        n_slices, (n_parts, length, _) = columns.shape[1], self._per_row.shape
        each = torch.view_as_complex(columns).view(self._grid.shape[0], -1)
        each = each[self._grid.margin :, : n_slices * n_parts * length]
        return each.unflatten(1, (n_slices, n_parts, length)).transpose(0, 1)

    def along_columns(self, cells: torch.Tensor, columns: slice, half: torch.Tensor) -> None:
        """Transform some columns.

        Parameters
        ----------
        cells : torch.Tensor, float32, shape (cell, slice, 2)
            Of these columns.
        columns : slice
            Of the grid: the first of the `tiles`, or any after it.
        half : torch.Tensor
            As `half` or `places` gives it; the place of these columns is filled.
        """
        grid = self._grid
        spectra = torch.view_as_complex(cells).view(-1, grid.size, cells.shape[1])
        if columns.start == 0:
            spectra = grid.fold(spectra)
        lines = torch.fft.ifft(spectra.permute(2, 0, 1).contiguous(), norm="forward")
        lines = lines[..., self._top].unflatten(2, self._per_row.shape[:2])
        out = torch.view_as_real(half[:, self.place(columns)])
        torch.mul(torch.view_as_real(lines), self._per_row, out=out)
        if columns.stop == grid.shape[0]:
            out[:, -1] *= 2  # see fold

    def place(self, columns: slice) -> slice:
        """Where some columns of the grid are in the half plane."""
        margin = self._grid.margin
        return slice(max(columns.start - margin, 0), columns.stop - margin)

    def along_rows(
        self,
        half: torch.Tensor,
        out: torch.Tensor,
        step: float,
        threads: Threads,
        finished: torch.Tensor | None = None,
    ) -> None:
        """Slices of what is transformed along the columns.

        Parameters
        ----------
        half : torch.Tensor
            As the method of this name gives it, filled.
        out : torch.Tensor, float32, shape (slice, y, x)
            Is filled, in 1/pixel.
        step : float
            Angle in radians that a projection of share 1 stands for.
        threads : Threads
        finished : torch.Tensor, optional
            The last columns, if they are elsewhere, as `places` gives them.
        """
        factor = (self._per_column * step).float()

        def transform(index: int, part: int) -> None:
            rows = self._rows[part]
            spectra = half[index, :, part, : rows.stop - rows.start]
            if finished is not None:
                # Just before it is used, and as far apart as the others: see the module.
                known = finished[index, :, part, : rows.stop - rows.start]
                spectra[len(spectra) - len(known) :] = known
            lines = torch.fft.irfft(spectra.T, self._grid.size, norm="forward")
            pixels = lines[:, self._left]
            if self._grid.transposed:
                # Lines a power of two apart are turned at half the speed.
                turned = pixels.new_empty(len(pixels), _padded(len(factor)))[:, : len(factor)]
                torch.mul(pixels, factor, out=turned)
                out[index, :, rows] = turned.T
            else:
                torch.mul(pixels, factor, out=out[index, rows])

        pieces = itertools.product(range(len(out)), range(len(self._rows)))
        threads.map(transform, *zip(*pieces, strict=True))


def half_bytes(n_slices: int, n_columns: int, size: int) -> int:
    """Bytes that `InverseTransform.half` takes on a processor, whether transposed or not.

    Parameters
    ----------
    n_slices : int
    n_columns : int
        Of the slices.
    size : int
        Of the grid.
    """
    n_parts, length = _parts_of_rows(n_columns, _ROWS["cpu"])
    return 4 * n_slices * (size // 2 + 1) * n_parts * _padded(2 * length)


def _parts_of_rows(n: int, most: int) -> tuple[int, int]:
    """In how many parts of how many rows each a slice is transformed.

    The last part may reach over the slice by a few rows, for which the grid has room.
    """
    n_parts = math.ceil(n / most)
    return n_parts, math.ceil(n / n_parts)


def cut(start: int, stop: int, length: int) -> list[slice]:
    """A range in parts of some length, the last of which may be shorter."""
    return [slice(i, min(i + length, stop)) for i in range(start, stop, length)]


def _padded(length: int) -> int:
    """Floats that a line of some length takes.

    An odd number of cache lines: those a power of two apart push each other out of the cache.
    """
    return length + (16 - length) % 32
