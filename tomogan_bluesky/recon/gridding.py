"""The way of projections onto a Cartesian grid in Fourier space, from which `inverse` goes on.

Enters: attenuation sinograms (slice, projection, column). Leaves: what the cells of the grid are
made of. `gridrec` goes this way with a whole scan at once; `incremental`, with projections as they
come.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from ..geometry import ScanGeometry
from .filters import apply_response, filter_response
from .inverse import cut
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
# The grid is transposed where the sine of the first angle is smaller. Scans begin at 0, some at a
# right angle or in the middle between the two; but not just here, where rounding could decide.
_TRANSPOSED = 0.8


@dataclass(frozen=True)
class Block:
    """What consecutive projections add to the grid.

    A cell becomes the weighted sum of rows of a table, of which the first is the cell itself.

    Attributes
    ----------
    projections : slice
    signs : int or torch.Tensor
        See `Gridding.signs`.
    cells : torch.Tensor, int64, shape (cell,)
        Those that are reached.
    offsets : torch.Tensor, int32, shape (cell,)
        Where the terms of each begin.
    rows : torch.Tensor, int32, shape (term,)
    weights : torch.Tensor, float32, shape (term,)
    """

    projections: slice
    signs: int | torch.Tensor
    cells: torch.Tensor
    offsets: torch.Tensor
    rows: torch.Tensor
    weights: torch.Tensor


class Gridding:
    """Samples of projections, and their places on the grid.

    What has arrived of some slices may be held by a *state*, float32, shape (row, slice, 2): real
    and imaginary parts of the grid's cells, followed by room for the samples of one block.

    The grid is transposed or not so that the projections that a scan begins and ends with, half a
    turn later, lie across its columns and reach few of them: the others can be transformed before
    the last projection comes.

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
        transposed = is_transposed(geometry.theta)
        self.grid = grid = FourierGrid(geometry, oversampling, device=device, transposed=transposed)
        self.n_cells = math.prod(grid.shape)
        self.n_samples = grid.n_frequencies + 1
        response = filter_response(filter, grid.size) / grid.size
        response[0] /= 2  # this sample is its own mirror image, which fold() adds to each
        phase = F.pad(grid.centre_phase, (0, 1))
        self._response = (response.to(device) * phase).to(torch.complex64)
        most = max(1, _BLOCK_SAMPLES[self.device.type] // self.n_samples)
        self.length = min(block or most, most, geometry.n_angles)
        held = min(_HELD, geometry.n_angles)
        later, first = (
            cut(start, end, self.length) for start, end in ((held, geometry.n_angles), (0, held))
        )
        if block is not None and later:
            later[-1:] = _halved(later[-1])
        self.spans = [*later, *first]

    def signs(self, theta: np.ndarray) -> int | torch.Tensor:
        """-1 for projections that enter as their conjugates, 1 for others.

        One number where all are alike; else float32, shape (projection, 1).
        """
        conjugated = self.grid.conjugated_at(theta)
        if conjugated.all() or not conjugated.any():
            return -1 if conjugated[0] else 1
        return torch.where(conjugated, -1.0, 1.0)[:, None].to(self.device)

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
        tensors = (reached.long(), offsets.int(), rows, terms)
        on_device = (tensor.to(self.device) for tensor in tensors)
        return Block(projections, self.signs(theta), *on_device)

    def state_shape(self, n_slices: int) -> tuple[int, int, int]:
        """Shape of a state of some slices, which is all zeros before the first projection."""
        return self.n_cells + self.length * self.n_samples, n_slices, 2

    def sample(
        self, attenuation: torch.Tensor, signs: int | torch.Tensor, out: torch.Tensor
    ) -> None:
        """The samples of projections: transformed and filtered.

        Parameters
        ----------
        attenuation : torch.Tensor, float32, shape (slice, projection, column)
        signs : int or torch.Tensor
            `signs` of the projections.
        out : torch.Tensor, float32, shape (projection * n_samples, slice, 2)
            Is filled.
        """
        spectra = torch.fft.rfft(attenuation, self.grid.size)
        apply_response(spectra, self._response)
        if isinstance(signs, torch.Tensor):
            torch.view_as_real(spectra)[..., 1] *= signs
        elif signs < 0:
            spectra = spectra.conj()  # nothing yet: it comes with the copy
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
        n_samples = attenuation.shape[1] * self.n_samples
        self.sample(attenuation, block.signs, state[self.n_cells : self.n_cells + n_samples])
        table = state.flatten(1)
        sums = F.embedding_bag(
            block.rows, table, block.offsets, mode="sum", per_sample_weights=block.weights
        )
        table.index_copy_(0, block.cells, sums)


def is_transposed(theta: np.ndarray) -> bool:
    """Whether the grid of a scan at these angles is transposed."""
    return bool(abs(math.sin(theta[0])) < _TRANSPOSED)


def _halved(span: slice) -> list[slice]:
    """Half of a span, half of the rest, and so on, down to one."""
    parts, first = [], span.start
    while first < span.stop:
        half = (span.stop - first + 1) // 2
        parts.append(slice(first, first + half))
        first += half
    return parts
