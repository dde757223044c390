"""The Fourier grid of slices whose scan is going on, in memory as a whole.

Enters: blocks of projections, each once, in one order. Leaves: at any time slices (slice, y, x) in
1/pixel of what has been added, and of more that is only looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

import numpy as np
import torch

from .gridding import BATCH, Block, Gridding
from .inverse import InverseTransform
from .threads import Threads


class RunningGrid:
    """Grids of some slices, to which blocks of projections are added.

    Columns that no further projection will reach can be transformed while there is time. What comes
    of them takes their place in memory: from then on they are *finished*, and nothing can be added
    to them.

    Parameters
    ----------
    gridding : Gridding
    n_slices : int

    Attributes
    ----------
    n_added : int
        Blocks that have been added.
    first_finished : int
        Column of the grid from which on all are finished; the number of columns if none is.
    """

    def __init__(self, gridding: Gridding, n_slices: int) -> None:
        self._gridding = gridding
        batch = BATCH[gridding.device.type]
        self._inverse = InverseTransform(gridding.grid, gridding.device, batch)
        self._inverse.half(min(batch, n_slices)).zero_()  # touches it, while there is time
        self._rows = [slice(i, min(i + batch, n_slices)) for i in range(0, n_slices, batch)]
        self._states = [
            torch.zeros(gridding.state_shape(rows.stop - rows.start), device=gridding.device)
            for rows in self._rows
        ]
        self.n_added = 0
        self.first_finished = gridding.grid.shape[0]

    def clear(self) -> None:
        """Begin again."""
        self.n_added, self.first_finished = 0, self._gridding.grid.shape[0]
        for state in self._states:
            state.zero_()

    def add(self, block: Block, attenuation: torch.Tensor, threads: Threads | None = None) -> None:
        """Add the next block.

        Parameters
        ----------
        block : Block
            Reaches no finished column.
        attenuation : torch.Tensor, float32, shape (slice, projection, column)
            Of all slices.
        threads : Threads, optional
            Which share out the slices.
        """
        each = self._states, repeat(block), [attenuation[rows] for rows in self._rows]
        if threads is None:
            for some in zip(*each, strict=False):
                self._gridding.add(*some)
        else:
            threads.map(self._gridding.add, *each)
        self.n_added += 1

    def finish(self, first: int) -> None:
        """Transform all columns from `first` on that are not finished yet.

        The few that mirror each other are left for the end.
        """
        first = max(first, self._inverse.tiles[0].stop)
        for columns in self._inverse.parts(first, self.first_finished):
            for state in self._states:
                cells, places = self._cells(state, columns), self._places(state)
                self._inverse.along_columns(cells, columns, places)
        self.first_finished = min(first, self.first_finished)

    def slices(
        self,
        chosen: np.ndarray,
        images: torch.Tensor,
        step: float,
        threads: Threads,
        waiting: Sequence[tuple[Block, torch.Tensor]] = (),
    ) -> None:
        """Some slices, as if `waiting` blocks were added, too.

        Parameters
        ----------
        chosen : numpy.ndarray, int, shape (slice,)
        images : torch.Tensor, float32, shape (slice, y, x)
            Is filled.
        step : float
            Angle in radians that a projection of share 1 stands for.
        threads : Threads
        waiting : pairs of Block and torch.Tensor, optional
            As `add` takes them.
        """
        for rows, state in zip(self._rows, self._states, strict=True):
            places = np.flatnonzero((chosen >= rows.start) & (chosen < rows.stop))
            if len(places) == 0:
                continue
            known = self._inverse.place(slice(self.first_finished, self._gridding.grid.shape[0]))
            finished = self._places(state)[:, known]
            part = slice(places[0], places[0] + rows.stop - rows.start)
            all_of_it = np.array_equal(chosen[part], np.arange(rows.start, rows.stop))
            if all_of_it and not waiting:
                self._transform(state, finished, images[part], step, threads)
                continue
            inside = torch.from_numpy(chosen[places] - rows.start).to(state.device)
            extended = state[:, inside]
            for block, attenuation in waiting:
                self._gridding.add(extended, block, attenuation[rows][inside])
            some = torch.empty((len(places), *images.shape[1:]), device=images.device)
            self._transform(extended, finished[inside], some, step, threads)
            images[torch.from_numpy(places).to(images.device)] = some

    def _transform(
        self,
        state: torch.Tensor,
        finished: torch.Tensor,
        images: torch.Tensor,
        step: float,
        threads: Threads,
    ) -> None:
        """Slices of a state, of which those columns are taken that are not finished."""
        inverse = self._inverse
        half = inverse.half(len(images))

        def transform(columns: slice) -> None:
            inverse.along_columns(self._cells(state, columns), columns, half)

        mirrored = inverse.tiles[0]
        threads.map(transform, [mirrored, *inverse.parts(mirrored.stop, self.first_finished)])
        inverse.along_rows(half, images, step, threads, finished)

    def _cells(self, state: torch.Tensor, columns: slice) -> torch.Tensor:
        size = self._gridding.grid.size
        return state[columns.start * size : columns.stop * size]

    def _places(self, state: torch.Tensor) -> torch.Tensor:
        """Of finished columns in a state."""
        return self._inverse.places(state[: self._gridding.n_cells])
