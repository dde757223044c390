"""The way of projections onto a Cartesian grid in Fourier space, and from there to slices.

Enters: attenuation sinograms (slice, projection, column). Leaves: slices (slice, y, x) in 1/pixel.
`gridrec` goes it with a whole scan at once; `incremental`, with projections as they come.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from ..geometry import ScanGeometry
from .filters import apply_response, filter_response
from .kernel import FourierGrid
from .threads import Threads

if TYPE_CHECKING:  # reconstruction needs numpy and torch only, and this needs pydantic
    from ..config import FilterName

BATCH = {"cpu": 8, "cuda": 32}
"""Slices that go through at once: on a processor, a row of the grid is then one cache line."""

# Samples of a slice in a block. Fewer than 2**15, which torch does not share out among threads:
# how it does shows in the last bit of complex products. A GPU takes all in one block.
_BLOCK_SAMPLES = {"cpu": 2**15 - 1, "cuda": 2**40}
# The first projections of a scan, which are added last. What they count depends on whether the very
# last ones, half a turn later, show the same: who takes projections as they come learns it then.
_HELD = 16
# Complex values, of all slices, that go through a transform at once, so that they stay in the
# processor's cache on their way.
_TILE = {"cpu": 2**16, "cuda": 2**40}


@dataclass(frozen=True)
class Block:
    """What consecutive projections add to the grid.

    A cell becomes the weighted sum of rows of a table, of which the first is the cell itself.

    Attributes
    ----------
    projections : slice
    sign : torch.Tensor, float32, shape (projection, 1)
        See `Gridding.signs`.
    cells : torch.Tensor, int64, shape (cell,)
        Those that are reached.
    offsets : torch.Tensor, int32, shape (cell,)
        Where the terms of each begin.
    rows : torch.Tensor, int32, shape (term,)
    weights : torch.Tensor, float32, shape (term,)
    """

    projections: slice
    sign: torch.Tensor
    cells: torch.Tensor
    offsets: torch.Tensor
    rows: torch.Tensor
    weights: torch.Tensor


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


class Gridding:
    """Samples of projections, their places on the grid, and slices from the grid.

    What has arrived of some slices may be held by a *state*, float32, shape (row, slice, 2): real
    and imaginary parts of the grid's cells, followed by room for the samples of one block.

    Parameters
    ----------
    geometry : ScanGeometry
    filter : str
        One of `config.FilterName`.
    oversampling : float
        Size of the Fourier grid in image widths.
    device : str or torch.device
    block : int, optional
        Most projections in a block; the last ones come in smaller blocks, so that little is left to
        do for the very last. By default, as many as are added fastest.

    Attributes
    ----------
    device : torch.device
    grid : FourierGrid
    n_cells : int
        Of the grid.
    n_samples : int
        Of a projection: the frequencies of the grid, and Nyquist's, which counts nothing.
    length : int
        Most projections in a block.
    spans : list of slice
        The projections of each block, in the order in which blocks are added.
    tiles : list of slice
        The columns of the grid that go through the inverse transform at once. The first are those
        that mirror each other, see `FourierGrid.fold`.
    """

    def __init__(
        self,
        geometry: ScanGeometry,
        filter: FilterName,
        oversampling: float,
        device: str | torch.device,
        block: int | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.grid = grid = FourierGrid(geometry, oversampling, device=device)
        self.n_cells = math.prod(grid.shape)
        self.n_samples = grid.n_frequencies + 1
        self._half = Scratch(self.device)
        response = filter_response(filter, grid.size) / grid.size
        response[0] /= 2  # this sample is its own mirror image, which fold() adds to each
        phase = F.pad(grid.centre_phase, (0, 1))
        self._response = (response.to(device) * phase).to(torch.complex64)
        most = max(1, _BLOCK_SAMPLES[self.device.type] // self.n_samples)
        self.length = min(block or most, most, geometry.n_angles)
        held = min(_HELD, geometry.n_angles)
        later, first = (
            _cut(start, end, self.length) for start, end in ((held, geometry.n_angles), (0, held))
        )
        if block is not None and later:
            later[-1:] = _halved(later[-1])
        self.spans = [*later, *first]
        mirrored = 2 * grid.margin + 1
        # An odd number: lines a power of two apart would push each other out of the cache.
        columns = _TILE[self.device.type] // (BATCH[self.device.type] * grid.size) | 1
        self.tiles = [slice(0, mirrored), *_cut(mirrored, grid.shape[0], columns)]

    def signs(self, theta: np.ndarray) -> torch.Tensor:
        """-1 for projections that enter as their conjugates: float32, shape (projection, 1)."""
        return torch.where(self.grid.conjugated_at(theta), -1.0, 1.0)[:, None].to(self.device)

    def terms(
        self, theta: np.ndarray, shares: np.ndarray
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the cells of the grid are made of, cell by cell, each in the order of projections.

        Parameters
        ----------
        theta, shares : arrays, shape (projection,)
            Angles of projections in radians, and what each counts; see `ScanGeometry.shares`.

        Returns
        -------
        cells : torch.Tensor, int32, shape (term,)
            In ascending order.
        samples : torch.Tensor, int64, as `cells`
            Counted over these projections, `n_samples` each.
        weights : torch.Tensor, float32, as `cells`
        """
        frequencies = self.grid.n_frequencies
        cells, weights = self.grid.neighbours_at(theta)
        counts = torch.tensor(shares, dtype=torch.float32)
        weights *= counts.repeat_interleave(frequencies)[:, None]
        order = torch.argsort(cells.flatten(), stable=True)
        sample = order // cells.shape[1]
        sample += sample // frequencies  # a projection has one more, Nyquist's
        return cells.flatten()[order], sample, weights.flatten()[order]

    def plan(self, projections: slice, theta: np.ndarray, shares: np.ndarray) -> Block:
        """What projections will add to a state.

        Parameters
        ----------
        projections : slice
            One of `spans`.
        theta, shares : arrays, shape (projection,)
            As in `terms`.
        """
        cells, samples, weights = self.terms(theta, shares)
        reached, count = torch.unique_consecutive(cells, return_counts=True)
        offsets = torch.cumsum(count + 1, 0) - (count + 1)
        is_sample = torch.ones(len(samples) + len(reached), dtype=torch.bool)
        is_sample[offsets] = False
        rows = torch.empty(len(is_sample), dtype=torch.int32)
        rows[is_sample], rows[~is_sample] = (samples + self.n_cells).int(), reached
        terms = torch.ones(len(rows))
        terms[is_sample] = weights
        tensors = (self.signs(theta), reached.long(), offsets.int(), rows, terms)
        return Block(projections, *(tensor.to(self.device) for tensor in tensors))

    def state_shape(self, n_slices: int) -> tuple[int, int, int]:
        """Shape of a state of some slices, which is all zeros before the first projection."""
        return self.n_cells + self.length * self.n_samples, n_slices, 2

    def sample(self, attenuation: torch.Tensor, sign: torch.Tensor, out: torch.Tensor) -> None:
        """The samples of projections: transformed and filtered.

        Parameters
        ----------
        attenuation : torch.Tensor, float32, shape (slice, projection, column)
        sign : torch.Tensor
            `signs` of the projections.
        out : torch.Tensor, float32, shape (projection * n_samples, slice, 2)
            Is filled.
        """
        spectra = torch.fft.rfft(attenuation, self.grid.size)
        apply_response(spectra, self._response)
        torch.view_as_real(spectra)[..., 1] *= sign
        torch.view_as_complex(out).copy_(spectra.flatten(1).T)

    def add(self, state: torch.Tensor, block: Block, attenuation: torch.Tensor) -> None:
        """Add a block's projections to a state, in place.

        Parameters
        ----------
        state : torch.Tensor
        block : Block
        attenuation : torch.Tensor, float32, shape (slice, projection, column)
            The block's projections of the state's slices.
        """
        n_samples = len(block.sign) * self.n_samples
        self.sample(attenuation, block.sign, state[self.n_cells : self.n_cells + n_samples])
        table = state.flatten(1)
        sums = F.embedding_bag(
            block.rows, table, block.offsets, mode="sum", per_sample_weights=block.weights
        )
        table.index_copy_(0, block.cells, sums)

    def reserve(self, n_slices: int) -> None:
        """Touch the memory that the transform of some slices will take, while there is time."""
        self._half(*self._half_shape(n_slices)).zero_()

    def _half_shape(self, n_slices: int) -> tuple[int, int, int, int]:
        """Of slices that are transformed along the columns of the grid, cut to a slice's rows.

        Which are a little wider: lines a power of two apart push each other out of the cache.
        """
        n = len(self.grid.roll_off)
        return n_slices, self.n_samples, n + (8 - n) % 16, 2

    def slices(self, state: torch.Tensor, out: torch.Tensor, step: float, threads: Threads) -> None:
        """Slices of a state, which is not changed; see `transform`."""

        def tile(index: int) -> torch.Tensor:
            columns = self.tiles[index]
            return state[columns.start * self.grid.size : columns.stop * self.grid.size]

        self.transform(tile, out, step, threads)

    def transform(
        self,
        tile: Callable[[int], torch.Tensor],
        out: torch.Tensor,
        step: float,
        threads: Threads,
    ) -> None:
        """Slices of a grid: the inverse transform, cut to their pixels after each axis.

        Transforms of contiguous rows only: the bits of strided ones depend on how many there are.

        Parameters
        ----------
        tile : callable
            Gives the cells of one of the `tiles` by its index, float32, shape (cell, slice, 2).
        out : torch.Tensor, float32, shape (slice, y, x)
            Is filled, in 1/pixel.
        step : float
            Angle in radians that a projection of share 1 stands for.
        threads : Threads
        """
        grid = self.grid
        factor = grid.roll_off * step
        n_slices, n = out.shape[:2]
        top, left = grid.corner
        half = torch.view_as_complex(self._half(*self._half_shape(n_slices)))
        n_parts = math.ceil(n * self.n_samples / _TILE[self.device.type])
        rows = _cut(0, n, math.ceil(n / n_parts))

        def along_columns(index: int) -> None:
            spectra = torch.view_as_complex(tile(index)).view(-1, grid.size, n_slices)
            if index == 0:
                spectra, first = grid.fold(spectra), 0
            else:
                first = self.tiles[index].start - grid.margin
            lines = torch.fft.ifft(spectra.permute(2, 0, 1).contiguous(), norm="forward")
            half[:, first : first + lines.shape[1], :n] = lines[..., top : top + n]

        def along_rows(index: int, part: slice) -> None:
            lines = half[index, :, part].T.contiguous()
            lines[:, -1] *= 2  # see fold
            full = torch.fft.irfft(lines, grid.size, norm="forward")
            torch.mul(full[:, left : left + n], factor[part], out=out[index, part])

        threads.map(along_columns, range(len(self.tiles)))
        parts = itertools.product(range(n_slices), rows)
        threads.map(along_rows, *zip(*parts, strict=True))


def _cut(start: int, end: int, length: int) -> list[slice]:
    """A range in parts of some length, the last of which may be shorter."""
    return [slice(i, min(i + length, end)) for i in range(start, end, length)]


def _halved(span: slice) -> list[slice]:
    """Half of a span, half of the rest, and so on, down to one."""
    parts, first = [], span.start
    while first < span.stop:
        half = (span.stop - first + 1) // 2
        parts.append(slice(first, first + half))
        first += half
    return parts
