"""Reconstruction while the scan is taken: slices are there soon after the last projection.

Enters: the attenuation of one projection at a time, in any order. Leaves: at any time a preview
of some slices, and after the last projection the slices that `gridrec` makes of all sinograms, to
the bit. What has arrived is kept in Fourier space, and transformed back as far as nothing will be
added to it: what is left to do in the end is half an inverse transform a slice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import ReconstructionError
from ..geometry import ScanGeometry
from .arrivals import Arrivals
from .checks import first_not_finite
from .filters import transform_size
from .gridding import Block, Gridding, is_transposed
from .memory import empty
from .running import RunningGrid
from .threads import Threads

if TYPE_CHECKING:  # reconstruction needs numpy and torch only, and this needs pydantic
    from ..config import FilterName

Retained = Callable[[slice], torch.Tensor]
"""Attenuation (slice, projection, column) of consecutive projections that have arrived before."""

# Radians by which angles may turn out to be others than expected: a step or more of most scans.
_TOLERANCE = 0.01


def state_bytes(geometry: ScanGeometry, oversampling: float = 1.5) -> int:
    """Memory in bytes for each slice, nearly: half a complex Fourier grid.

    To which come projections that wait for others of their block, or for an earlier block: at most
    4 bytes a value, and usually one block; and once a scan, not a slice, some 150 bytes for each
    value of a sinogram of the blocks that wait, which hold their geometry.
    """
    size = transform_size(oversampling * geometry.n_columns)
    return 8 * size * (size // 2 + 3)


class IncrementalGridrec:
    """Reconstructor in Fourier space that takes projections as they come.

    Fixed blocks of consecutive projections are added to the grid in a fixed order, each as soon as
    it is complete and the ones before it are added; until then its projections wait. So neither
    bits nor, in the end, memory depend on the order of arrival. For one thread at a time.

    What a projection counts is needed when it is added, and depends on all angles: it follows from
    angles that are expected. The true ones may come with the projections, and differ in what does
    not change the `ScanGeometry.shares`, such as the jitter of an encoder; or in whether the last
    angle is half a turn from the first, which only matters to blocks that are added in the end.

    Columns of the grid that no further projection is expected to reach are transformed at once.
    Should one reach them, at an angle that is off by more than a hundredth of a radian, all that
    was added is computed again from what is retained.

    Parameters
    ----------
    geometry : ScanGeometry
        Of the whole scan, as it is or as it is expected.
    n_slices : int
        Detector rows that are reconstructed.
    filter, oversampling, device
        As in `gridrec.Gridrec`.
    block : int
        Projections in a block. The result does not depend on it, its bits included.
    retained : callable, optional
        Gives the attenuation of projections again that have been added, from what is kept of the
        scan. Only `replace`, and angles far from those expected, need it. What replaced a
        projection is remembered here, and need not be in it.

    Attributes
    ----------
    geometry : ScanGeometry
        As given.
    origin : tuple of int
        Pixel (row, column) of the rotation axis in the slices.
    n_slices : int
    """

    def __init__(
        self,
        geometry: ScanGeometry,
        n_slices: int,
        filter: FilterName = "ramlak",
        oversampling: float = 1.5,
        device: str | torch.device = "cpu",
        block: int = 16,
        retained: Retained | None = None,
    ) -> None:
        self.geometry = geometry
        self.n_slices = n_slices
        self._gridding = Gridding(geometry, filter, oversampling, device, block)
        self.origin = self._gridding.grid.origin
        self._arrivals = Arrivals(geometry, self._gridding, n_slices)
        self._grid = RunningGrid(self._gridding, n_slices)
        self._finishes_early = True
        self._retained = retained
        self._superseding: dict[int, torch.Tensor] = {}

    @property
    def arrived(self) -> np.ndarray:
        """Projections that have arrived: bool, shape (angle,)."""
        return self._arrivals.arrived

    def add(self, index: int, projection: torch.Tensor, theta: float | None = None) -> None:
        """Take a projection that has arrived.

        Parameters
        ----------
        index : int
            Its place in the geometry's angles.
        projection : torch.Tensor, float32, shape (slice, column)
            Line integrals, on this object's device. Copied.
        theta : float, optional
            Its true angle in radians; None: that of the geometry.

        Raises
        ------
        ReconstructionError
            A shape that does not fit, values that are not finite, or an index that does not exist
            or has arrived before; or an angle far from that expected, with nothing retained.
        """
        self._check(index, projection)
        if self.arrived[index]:
            raise ReconstructionError(
                f"projection {index}: expected each projection once, this one has arrived before; "
                "if it supersedes the first, replace() it"
            )
        self._turn(index, theta)
        self._arrivals.wait(index, projection)
        if not self.arrived.all():  # else what is left goes faster in preview(), by many threads
            self._advance()

    def replace(self, index: int, projection: torch.Tensor, theta: float | None = None) -> None:
        """Put another projection in the place of one that has arrived.

        When its block has been added already, all that was added is computed again from what is
        retained, before the next block, preview or result.

        Parameters
        ----------
        index, projection, theta
            As in `add`.

        Raises
        ------
        ReconstructionError
            As in `add`; the projection has not arrived before; or it has been added and there is
            nothing retained.
        """
        self._check(index, projection)
        if not self.arrived[index]:
            raise ReconstructionError(
                f"projection {index}: expected one that has arrived to be replaced; add() this one"
            )
        place = self._arrivals.place(index)
        waits = place in self._arrivals.waiting
        if self._retained is not None:
            self._superseding[index] = projection.clone()
        elif not waits:
            raise ReconstructionError(
                f"projection {index}: can't be replaced, for its block has been added to the grid "
                "and projections are not retained; make this object with retained="
            )
        if place < self._grid.n_added:
            self._begin_again()
        self._turn(index, theta)
        if waits:
            self._arrivals.wait(index, projection)

    def preview(self, slices: slice | list[int]) -> torch.Tensor:
        """Reconstruct some slices from the projections that have arrived so far.

        Each projection counts as if the scan ended now, or else, in the middle of a pass of an
        interlaced scan, as in the finished one (`ScanGeometry.shares`), all scaled alike to half a
        turn. That is right for an arc, and where early passes cover all directions; in the middle
        of a pass, some directions count more than others.

        Parameters
        ----------
        slices : slice or list of int

        Returns
        -------
        torch.Tensor, float32, shape (slice, y, x)
            Attenuation coefficient in 1/pixel.

        Raises
        ------
        ReconstructionError
            Nothing has arrived.
        """
        if not self.arrived.any():
            raise ReconstructionError("preview: expected projections, but none has arrived yet")
        chosen = np.arange(self.n_slices)[slices]
        n = self.geometry.n_columns
        images = empty((len(chosen), n, n), self._gridding.device)
        with Threads(self._gridding.device) as threads:
            self._advance(threads)
            shares, waiting = self._arrivals.by_now(self._grid.n_added)
            step = math.pi / float(shares[self.arrived].sum())
            self._grid.slices(chosen, images, step, threads, waiting)
        return images

    def result(self, slices: slice = slice(None)) -> torch.Tensor:
        """Reconstruct slices from all projections.

        Parameters
        ----------
        slices : slice, optional
            Which, if not all.

        Returns
        -------
        torch.Tensor, float32, shape (slice, y, x)
            Attenuation coefficient in 1/pixel; the bits of `gridrec.Gridrec`.

        Raises
        ------
        ReconstructionError
            Projections have not arrived; or their true angles have other `ScanGeometry.shares` than
            the expected ones, or begin elsewhere, about 0.93 radians from both axes.
        """
        if why := self.why_incomplete():
            raise ReconstructionError(f"result: {why}")
        return self.preview(slices)

    def why_incomplete(self) -> str:
        """Why there is no result, or not yet; empty where there is one."""
        if not self.arrived.all():
            missing = np.flatnonzero(~self.arrived)
            return (
                f"expected all {self.geometry.n_angles} projections, {len(missing)} have not "
                f"arrived (the first is {missing[0]}); look at a preview, or reconstruct with a "
                "geometry of those that have"
            )
        theta, expected = self._arrivals.theta, self.geometry.theta
        if is_transposed(theta) != is_transposed(expected):
            return (
                f"expected a scan that begins near {expected[0]:.6g} radians, got {theta[0]:.6g}, "
                "and a reconstruction of the true angles would take another grid; reconstruct the "
                "projections together"
            )
        if not self._arrivals.settle(self._grid.n_added):
            return (
                "expected angles that are spaced as those that this object was made with, but the "
                "true ones are not, and each projection counts differently; reconstruct them "
                "together"
            )
        return ""

    def _check(self, index: int, projection: torch.Tensor) -> None:
        if not 0 <= index < self.geometry.n_angles:
            raise ReconstructionError(
                f"projection {index}: expected an index from 0 to {self.geometry.n_angles - 1}"
            )
        shape = (self.n_slices, self.geometry.n_columns)
        if tuple(projection.shape) != shape or projection.dtype != torch.float32:
            raise ReconstructionError(
                f"projection {index}: expected float32 of shape (slice, column) = {shape}, got "
                f"{projection.dtype} of shape {tuple(projection.shape)}"
            )
        if (bad := first_not_finite(projection)) is not None:
            raise ReconstructionError(
                f"projection {index}: expected finite values, got {projection[bad].item()} at "
                f"slice {bad[0]}, column {bad[1]}; look at the dark and flat fields there"
            )

    def _turn(self, index: int, theta: float | None) -> None:
        """Take the true angle of a projection that is not added yet."""
        if theta is None:
            return
        if self._gridding.grid.reach(np.array([theta])) > self._grid.first_finished:
            if self._retained is None:
                raise ReconstructionError(
                    f"projection {index}: expected an angle near {self._arrivals.theta[index]:.6g} "
                    f"radians, got {theta:.6g}, and projections are not retained to compute again "
                    "what is finished there; make this object with retained="
                )
            self._finishes_early = False
            self._begin_again()
        self._arrivals.turn(index, theta)

    def _begin_again(self) -> None:
        self._grid.clear()
        self._arrivals.begin_again()

    def _advance(self, threads: Threads | None = None) -> None:
        """Add the blocks that are complete and next in order."""
        arrivals, grid, spans = self._arrivals, self._grid, self._gridding.spans
        if self.arrived.all():
            arrivals.settle(grid.n_added)
        n_before = grid.n_added
        while grid.n_added < len(spans) and arrivals.is_complete(grid.n_added):
            place = grid.n_added
            block = arrivals.block(place)
            attenuation = arrivals.waiting.get(place)
            if attenuation is None:
                attenuation = self._again(block)
            grid.add(block, attenuation, threads)
            arrivals.forget(place)
        if threads is None and self._finishes_early and grid.n_added > n_before:
            to_come = arrivals.theta[np.r_[*spans[grid.n_added :]]]
            grid.finish(self._gridding.grid.reach(to_come, _TOLERANCE))
        arrivals.plan_ahead()

    def _again(self, block: Block) -> torch.Tensor:
        """Attenuation of a block that was added before, from what is retained."""
        first, stop = block.projections.start, block.projections.stop
        assert self._retained is not None  # who begins again saw to that
        attenuation = self._retained(block.projections).clone()
        shape = (self.n_slices, stop - first, self.geometry.n_columns)
        if tuple(attenuation.shape) != shape or not torch.isfinite(attenuation).all():
            raise ReconstructionError(
                f"projections {first} to {stop - 1}: expected finite attenuation of shape (slice, "
                f"projection, column) = {shape} from what is retained, got shape "
                f"{tuple(attenuation.shape)}, not all of it finite or of that shape"
            )
        for index, projection in self._superseding.items():
            if first <= index < stop:
                attenuation[:, index - first] = projection
        return attenuation
