"""Fourier reconstruction ("gridrec"): fast, and in absolute units.

Enters: attenuation sinograms (slice, angle, column). Leaves: slices (slice, y, x) in 1/pixel.
Each projection is transformed and filtered, its samples are spread over a Cartesian grid with a
Kaiser-Bessel kernel (O'Sullivan, IEEE Trans. Med. Imaging 4, 200, 1985), and one inverse transform
a slice follows.

Projections are added block by block, and each block continues the sums where the one before left
them. So a sum runs over the projections in one order however they are cut into blocks, and
`incremental` comes to the same bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from ..geometry import ScanGeometry
from .checks import check_attenuation
from .filters import apply_response, filter_response
from .kernel import FourierGrid

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
# Values of the grid, of all slices, that go through the inverse transform along its columns at
# once, so that they stay in a processor's cache from one axis to the next.
_TILE = {"cpu": 2**17, "cuda": 2**40}


@dataclass(frozen=True)
class Block:
    """What consecutive projections add to the grid.

    A cell becomes the weighted sum of rows of a table, of which the first is the cell itself,
    unless no block before has reached it.

    Attributes
    ----------
    projections : slice
    sign : torch.Tensor, float32, shape (projection, 1)
        -1 for projections that enter as their conjugates.
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
            self._memory = torch.empty(size, device=self._memory.device)
        return self._memory[:size].view(shape)


class Gridding:
    """The way of blocks of projections onto the Fourier grid, and from there to slices.

    What has arrived of some slices is held by a *state*, float32, shape (row, slice, 2): real and
    imaginary parts of the grid's cells, followed by room for the samples of one block.

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
    origin : tuple of int
        Pixel (row, column) of the rotation axis in the slices.
    n_cells : int
        Of the grid.
    length : int
        Most projections in a block.
    spans : list of slice
        The projections of each block, in the order in which blocks are added.
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
        self._grid = grid = FourierGrid(geometry, oversampling, device=device)
        self.origin = grid.origin
        self.n_cells = math.prod(grid.shape)
        self._half = Scratch(self.device)
        response = filter_response(filter, grid.size) / grid.size
        response[0] /= 2  # this sample is its own mirror image, which fold() adds to each
        phase = F.pad(grid.centre_phase, (0, 1))
        self._response = (response.to(device) * phase).to(torch.complex64)
        most = max(1, _BLOCK_SAMPLES[self.device.type] // (grid.n_frequencies + 1))
        self.length = min(block or most, most, geometry.n_angles)
        held = min(_HELD, geometry.n_angles)
        later, first = (
            [slice(i, min(i + self.length, end)) for i in range(start, end, self.length)]
            for start, end in ((held, geometry.n_angles), (0, held))
        )
        if block is not None and later:
            later[-1:] = _halved(later[-1])
        self.spans = [*later, *first]

    def plan(
        self,
        projections: slice,
        theta: np.ndarray,
        shares: np.ndarray,
        before: torch.Tensor | None = None,
    ) -> Block:
        """What projections will add to the grid.

        Parameters
        ----------
        projections : slice
            One of `spans`.
        theta, shares : arrays, shape (projection,)
            Their angles in radians, and what each counts; see `ScanGeometry.shares`.
        before : torch.Tensor, bool, shape (cell,), optional
            Cells that blocks before have reached, to which this one's are added; the others are
            set, and the state need not be zero. By default, all are added to.
        """
        # Turn "cells of each sample" into "samples of each cell": sums in a fixed order.
        frequencies = self._grid.n_frequencies
        cells, weights = self._grid.neighbours_at(theta)
        counts = torch.tensor(shares, dtype=torch.float32)
        weights *= counts.repeat_interleave(frequencies)[:, None]
        order = torch.argsort(cells.flatten(), stable=True)
        reached, count = torch.unique_consecutive(cells.flatten()[order], return_counts=True)
        again = torch.ones(len(reached), dtype=torch.bool)
        if before is not None:
            again = before[reached]
            before[reached] = True
        n_terms = count + again
        offsets = torch.cumsum(n_terms, 0) - n_terms
        sample = order // cells.shape[1]
        # In the table, each projection has one more sample, at the Nyquist frequency.
        sample += sample // frequencies + self.n_cells
        is_sample = torch.ones(len(order) + int(again.sum()), dtype=torch.bool)
        is_sample[offsets[again]] = False
        rows = torch.empty(len(is_sample), dtype=torch.int32)
        rows[is_sample], rows[~is_sample] = sample.int(), reached[again]
        terms = torch.ones(len(rows))
        terms[is_sample] = weights.flatten()[order]
        sign = torch.where(self._grid.conjugated_at(theta), -1.0, 1.0)[:, None]
        tensors = (sign, reached.long(), offsets.int(), rows, terms)
        return Block(projections, *(tensor.to(self.device) for tensor in tensors))

    def state_shape(self, n_slices: int) -> tuple[int, int, int]:
        """Shape of a state of some slices.

        It is all zeros before the first projection; or, with blocks that were planned one after
        another, what it was after all of them: the first of them to reach a cell sets it, and
        cells that none reaches stay zero.
        """
        rows = self.n_cells + self.length * (self._grid.n_frequencies + 1)
        return rows, n_slices, 2

    def add(self, state: torch.Tensor, block: Block, attenuation: torch.Tensor) -> None:
        """Add a block's projections to a state, in place.

        Parameters
        ----------
        state : torch.Tensor
        block : Block
        attenuation : torch.Tensor, float32, shape (slice, projection, column)
            The block's projections of the state's slices.
        """
        spectra = torch.fft.rfft(attenuation, self._grid.size)
        apply_response(spectra, self._response)
        torch.view_as_real(spectra)[..., 1] *= block.sign
        samples = state[self.n_cells :][: spectra[0].numel()]
        torch.view_as_complex(samples).copy_(spectra.flatten(1).T)
        table = state.flatten(1)
        sums = F.embedding_bag(
            block.rows, table, block.offsets, mode="sum", per_sample_weights=block.weights
        )
        table.index_copy_(0, block.cells, sums)

    def slices(self, state: torch.Tensor, out: torch.Tensor, step: float) -> None:
        """Slices of a state: the inverse transform, cut to their pixels after each axis.

        Transforms of contiguous rows only: the bits of strided ones depend on how many there are.

        Parameters
        ----------
        state : torch.Tensor
            Not changed.
        out : torch.Tensor, float32, shape (slice, y, x)
            Is filled, in 1/pixel.
        step : float
            Angle in radians that a projection of share 1 stands for.
        """
        grid = self._grid
        factor = grid.roll_off * step
        n_slices, n = out.shape[:2]
        top, left = grid.corner
        spectra = torch.view_as_complex(state[: self.n_cells]).view(*grid.shape, n_slices)
        columns = max(1, _TILE[self.device.type] // (grid.size * n_slices))
        tiles = [grid.fold(spectra), *spectra[2 * grid.margin + 1 :].split(columns)]
        half = torch.view_as_complex(self._half(n_slices, grid.n_frequencies + 1, n, 2))
        first = 0
        for tile in tiles:
            lines = tile.flatten(0, 1).T.contiguous().view(n_slices, len(tile), grid.size)
            lines = torch.fft.ifft(lines, norm="forward")
            half[:, first : first + len(tile)] = lines[..., top : top + n]
            first += len(tile)
        half[:, -1] *= 2  # see fold
        full = torch.empty((n, grid.size), device=self.device)
        for columns, image in zip(half, out, strict=True):
            torch.fft.irfft(columns.T.contiguous(), grid.size, norm="forward", out=full)
            torch.mul(full[:, left : left + n], factor, out=image)


def _halved(span: slice) -> list[slice]:
    """Half of a span, half of the rest, and so on, down to one."""
    parts, first = [], span.start
    while first < span.stop:
        half = (span.stop - first + 1) // 2
        parts.append(slice(first, first + half))
        first += half
    return parts


class Gridrec:
    """Reconstructor in Fourier space for one scan geometry.

    The bits of a slice do not depend on the slices beside it. For one thread at a time.

    Parameters
    ----------
    geometry : ScanGeometry
        Its angles may come in any order and be spaced as they like; see its `weights`.
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
        self._gridding = gridding = Gridding(geometry, filter, oversampling, device)
        self.origin = gridding.origin
        shares = geometry.shares
        self._step = math.pi / float(shares.sum())
        before = torch.zeros(gridding.n_cells, dtype=torch.bool)
        self._blocks = [
            gridding.plan(span, geometry.theta[span], shares[span], before)
            for span in gridding.spans
        ]
        self._state = Scratch(self.device)
        self._n_slices_of_state = 0

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
        batch = BATCH[self.device.type]
        for sinograms, images in zip(attenuation.split(batch), volume.split(batch), strict=True):
            if len(images) == 0:  # what split() gives of an empty stack
                break
            state = self._state(*self._gridding.state_shape(len(images)))
            if len(images) != self._n_slices_of_state:  # its values stand at other places
                state.zero_()
                self._n_slices_of_state = len(images)
            for block in self._blocks:
                self._gridding.add(state, block, sinograms[:, block.projections])
            self._gridding.slices(state, out=images, step=self._step)
        return volume
