"""Projections of a scan that is going on, until they are added to the grid.

Enters: attenuation and true angle of one projection at a time, in any order. Leaves: blocks of
consecutive projections, with what each projection counts.
"""

from __future__ import annotations

import numpy as np
import torch

from ..geometry import ScanGeometry
from .gridding import Block, Gridding


class Arrivals:
    """Projections that wait for others of their block, or for an earlier block.

    What a projection counts depends on all angles, and is what follows from those that are expected
    until the true ones are known.

    Parameters
    ----------
    geometry : ScanGeometry
        As expected.
    gridding : Gridding
    n_slices : int

    Attributes
    ----------
    arrived : numpy.ndarray, bool, shape (angle,)
    theta : numpy.ndarray, float64, shape (angle,)
        Angles as they are known by now.
    waiting : dict of int and torch.Tensor
        Attenuation (slice, projection, column) of the projections of a block, by its place in the
        order of blocks; zero where one has not arrived.
    """

    def __init__(self, geometry: ScanGeometry, gridding: Gridding, n_slices: int) -> None:
        self._geometry = geometry
        self._gridding = gridding
        self._n_slices = n_slices
        self._spans = spans = gridding.spans
        self._place_of = np.empty(geometry.n_angles, dtype=int)
        lengths = [span.stop - span.start for span in spans]
        self._place_of[np.r_[*spans]] = np.repeat(np.arange(len(spans)), lengths)
        self.arrived = np.zeros(geometry.n_angles, dtype=bool)
        self.theta = geometry.theta.copy()
        self.waiting: dict[int, torch.Tensor] = {}
        self._shares = geometry.shares
        self._true: np.ndarray | None = None  # shares, once all angles are known
        self._planned: dict[int, Block] = {}

    def place(self, index: int) -> int:
        """Of a projection's block in the order of blocks."""
        return int(self._place_of[index])

    def is_complete(self, place: int) -> bool:
        """Whether all projections of a block have arrived."""
        return bool(self.arrived[self._spans[place]].all())

    def wait(self, index: int, projection: torch.Tensor) -> None:
        """Keep a projection until its block is added, in place of one that waits."""
        place = self.place(index)
        span = self._spans[place]
        if place not in self.waiting:
            shape = (self._n_slices, span.stop - span.start, self._geometry.n_columns)
            self.waiting[place] = torch.zeros(shape, device=self._gridding.device)
        self.waiting[place][:, index - span.start] = projection
        self.arrived[index] = True

    def turn(self, index: int, theta: float | None) -> None:
        """Note the true angle of a projection."""
        if theta is not None and theta != self.theta[index]:
            self.theta[index] = theta
            self._true = None
            self._planned.pop(self.place(index), None)

    def block(self, place: int) -> Block:
        """The plan of a block: made when it is needed, and kept until it is added."""
        if place not in self._planned:
            self._planned[place] = self._plan(place, self._shares)
        return self._planned[place]

    def forget(self, place: int) -> None:
        """Forget a block, which has been added."""
        self.waiting.pop(place, None)
        self._planned.pop(place, None)

    def begin_again(self) -> None:
        """Blocks that were added are due once more."""
        self._true = None

    def plan_ahead(self) -> None:
        """Plan one block that is complete and waits for others, while there is time."""
        for place in self.waiting:
            if place not in self._planned and self.is_complete(place):
                self.block(place)
                return

    def settle(self, n_added: int) -> bool:
        """Now that all angles are known, let projections that are not added yet count truly.

        Returns whether those that are added count truly, too.
        """
        if self._true is None:
            self._true = self._geometry_of(slice(None)).shares
            for place in range(n_added, len(self._spans)):
                span = self._spans[place]
                if not np.array_equal(self._true[span], self._shares[span]):
                    self._shares[span] = self._true[span]
                    self._planned.pop(place, None)
        return np.array_equal(self._true, self._shares)

    def by_now(self, n_added: int) -> tuple[np.ndarray, list[tuple[Block, torch.Tensor]]]:
        """What projections count if the scan ends now, and the blocks that wait, planned with it.

        Where it changes nothing for those that are added already; else, what is expected.
        """
        shares = self._shares
        if self.waiting and not self.arrived.all():
            by_now = shares.copy()
            by_now[self.arrived] = self._geometry_of(self.arrived).shares
            added = self._place_of < n_added
            if np.array_equal(by_now[added], shares[added]):
                shares = by_now
        waiting = []
        for place, attenuation in sorted(self.waiting.items()):
            span = self._spans[place]
            as_expected = np.array_equal(shares[span], self._shares[span])
            block = self.block(place) if as_expected else self._plan(place, shares)
            waiting.append((block, attenuation))
        return shares, waiting

    def _plan(self, place: int, shares: np.ndarray) -> Block:
        span = self._spans[place]
        return self._gridding.plan(span, self.theta[span], shares[span])

    def _geometry_of(self, projections: np.ndarray | slice) -> ScanGeometry:
        """With angles as they are known by now."""
        expected = self._geometry
        return ScanGeometry(self.theta[projections], expected.rotation_centre, expected.n_columns)
