"""Fourier reconstruction ("gridrec"): fast, and in absolute units.

Enters: attenuation sinograms (slice, angle, column). Leaves: slices (slice, y, x) in 1/pixel.
Each projection is transformed and filtered, its samples are spread over a Cartesian grid with a
Kaiser-Bessel kernel (O'Sullivan, IEEE Trans. Med. Imaging 4, 200, 1985), and one inverse transform
a slice follows.

The grid is computed a few columns at a time, which go on to their transform while they are in the
processor's cache, and is nowhere as a whole. Each of its cells is a sum over the projections in one
order, in which `incremental` takes them block by block, and comes to the same bits.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from ..geometry import ScanGeometry
from .batches import in_batches
from .gridding import BATCH, Gridding
from .inverse import InverseTransform
from .kernel import KERNEL_WIDTH
from .memory import Scratch
from .threads import Threads

if TYPE_CHECKING:  # reconstruction needs numpy and torch only, and this needs pydantic
    from ..config import FilterName

# Samples of a slice that are computed at once: those of all slices stay in a processor's cache.
_CHUNK_SAMPLES = {"cpu": 2**14, "cuda": 2**40}
# Terms of the sums that are put in order at once: more where the grid is large, for all its cells
# are counted each time.
_TERMS_AT_ONCE = 2**18


class Gridrec:
    """Reconstructor in Fourier space for one scan geometry.

    The bits of a slice depend neither on the slices beside it, nor on the number of threads. For
    one thread at a time.

    Parameters
    ----------
    geometry : ScanGeometry
        Its angles may come in any order and be spaced as they like; see its `weights`.
    filter : str
        One of `config.FilterName`.
    oversampling : float
        Size of the Fourier grid in image widths, from 1.25 on. The convolution with the ramp wraps
        around below 2, which is not visible here: a disc of 1 comes out as 1.000 all the same.
    device : str or torch.device

    Attributes
    ----------
    geometry : ScanGeometry
    origin : tuple of int
        Pixel (row, column) of the rotation axis in the slices.

    Raises
    ------
    ReconstructionError
        No such filter, or a grid that is too small.
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
        self.origin = gridding.grid.origin
        self._inverse = InverseTransform(gridding.grid, self.device, BATCH[self.device.type])
        shares = geometry.shares
        self._step = math.pi / float(shares.sum())
        self._samples = Scratch(self.device)
        length = max(1, _CHUNK_SAMPLES[self.device.type] // gridding.n_samples)
        self._chunks = [slice(i, i + length) for i in range(0, geometry.n_angles, length)]
        self._signs = [gridding.signs(geometry.theta[chunk]) for chunk in self._chunks]
        self._bags = self._in_order(geometry.theta, shares)

    def _in_order(self, theta: np.ndarray, shares: np.ndarray) -> list[tuple[torch.Tensor, ...]]:
        """Samples, offsets and weights of each tile of the grid, as `embedding_bag` takes them.

        Counted first, and then put where they belong, some projections at a time: to sort all
        terms together would take several times the memory that they have in the end.
        """
        gridding, grid = self._gridding, self._gridding.grid
        terms = grid.n_frequencies * KERNEL_WIDTH**2
        at_once = max(1, max(_TERMS_AT_ONCE, gridding.n_cells // 4) // terms)
        parts = [
            slice(i, min(i + at_once, span.stop))
            for span in gridding.spans
            for i in range(span.start, span.stop, at_once)
        ]
        counts = torch.zeros(gridding.n_cells, dtype=torch.int32)
        for part in parts:
            counts += torch.bincount(grid.cells_at(theta[part]).flatten(), minlength=len(counts))
        offsets = torch.cumsum(counts, 0, dtype=torch.int32) - counts
        free = offsets.clone()  # where the next term of each cell goes
        samples = torch.empty(int(counts.sum()), dtype=torch.int32)
        weights = torch.empty(len(samples))
        for part in parts:
            cells, sample, weight = gridding.terms(theta[part], shares[part])
            reached, count = torch.unique_consecutive(cells, return_counts=True)
            first = free[reached] - (torch.cumsum(count, 0) - count)
            place = first.repeat_interleave(count) + torch.arange(len(cells))
            samples[place] = (sample + part.start * gridding.n_samples).int()
            weights[place] = weight
            free[reached] += count.int()
        bags = []
        for tile in self._inverse.tiles:
            begin = offsets[tile.start * grid.size : tile.stop * grid.size]
            start, stop = int(begin[0]), int(free[tile.stop * grid.size - 1])
            bag = (samples[start:stop], begin - start, weights[start:stop])
            bags.append(tuple(tensor.to(self.device) for tensor in bag))
        return bags

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
        n_slices = BATCH[self.device.type]
        with Threads(self.device) as threads:
            some = partial(self._reconstruct, threads)
            return in_batches(attenuation, self.geometry, n_slices, self.device, some)

    def _reconstruct(self, threads: Threads, sinograms: torch.Tensor, images: torch.Tensor) -> None:
        """Slices that go through together."""
        gridding = self._gridding
        n_samples = self.geometry.n_angles * gridding.n_samples
        samples = self._samples(n_samples, len(images), 2)
        half = self._inverse.half(len(images))

        def sample(chunk: slice, signs: int | torch.Tensor) -> None:
            some = slice(chunk.start * gridding.n_samples, chunk.stop * gridding.n_samples)
            gridding.sample(sinograms[:, chunk], signs, samples[some])

        def transform(columns: slice, bag: tuple[torch.Tensor, ...]) -> None:
            rows, offsets, weights = bag
            cells = F.embedding_bag(
                rows, samples.flatten(1), offsets, mode="sum", per_sample_weights=weights
            )
            self._inverse.along_columns(cells.unflatten(1, (-1, 2)), columns, half)

        threads.map(sample, self._chunks, self._signs)
        threads.map(transform, self._inverse.tiles, self._bags)
        self._inverse.along_rows(half, images, self._step, threads)
