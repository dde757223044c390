"""Reconstruction while the scan is taken: slices are there soon after the last projection.

Enters: the attenuation of one projection at a time, in any order. Leaves: at any time a preview
of some slices, and after the last projection the slices that `gridrec` makes of all sinograms, to
the bit. What has arrived is kept in Fourier space, where what is left to do in the end is one
inverse transform a slice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import repeat
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import ReconstructionError
from ..geometry import ScanGeometry
from .checks import first_not_finite
from .filters import transform_size
from .gridding import BATCH, Block, Gridding
from .threads import Threads

if TYPE_CHECKING:  # reconstruction needs numpy and torch only, and this needs pydantic
    from ..config import FilterName

Retained = Callable[[slice], torch.Tensor]
"""Attenuation (slice, projection, column) of consecutive projections that have arrived before."""


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
        scan. Only `replace` needs it. What replaced a projection is remembered here, and need not
        be in it.

    Attributes
    ----------
    geometry : ScanGeometry
        As given.
    origin : tuple of int
        Pixel (row, column) of the rotation axis in the slices.
    n_slices : int
    arrived : numpy.ndarray, bool, shape (angle,)
        Projections that have arrived.
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
        self._shares = geometry.shares
        self._theta = geometry.theta.copy()
        self._true: np.ndarray | None = None  # shares, once all angles are known
        self._planned: dict[int, Block] = {}
        spans = self._gridding.spans
        lengths = [span.stop - span.start for span in spans]
        self._place_of = np.empty(geometry.n_angles, dtype=int)
        self._place_of[np.r_[*spans]] = np.repeat(np.arange(len(spans)), lengths)
        self.arrived = np.zeros(geometry.n_angles, dtype=bool)
        self._retained = retained
        self._superseding: dict[int, torch.Tensor] = {}
        self._waiting: dict[int, torch.Tensor] = {}
        self._n_added = 0
        batch = BATCH[self._gridding.device.type]
        self._rows = [slice(i, min(i + batch, n_slices)) for i in range(0, n_slices, batch)]
        self._states = [
            torch.zeros(self._gridding.state_shape(rows.stop - rows.start), device=device)
            for rows in self._rows
        ]
        self._gridding.reserve(min(batch, n_slices))

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
            or has arrived before.
        """
        self._check(index, projection)
        if self.arrived[index]:
            raise ReconstructionError(
                f"projection {index}: expected each projection once, this one has arrived before; "
                "if it supersedes the first, replace() it"
            )
        self.arrived[index] = True
        self._turn(index, theta)
        self._wait(index, projection)
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
        place = int(self._place_of[index])
        waits = place in self._waiting
        if self._retained is not None:
            self._superseding[index] = projection.clone()
        elif not waits:
            raise ReconstructionError(
                f"projection {index}: can't be replaced, for its block has been added to the grid "
                "and projections are not retained; make this object with retained="
            )
        self._turn(index, theta)
        if waits:
            self._wait(index, projection)
        elif place < self._n_added:
            self._n_added = 0
            self._true = None
            for state in self._states:
                state.zero_()

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
        images = torch.empty((len(chosen), n, n), device=self._gridding.device)
        with Threads(self._gridding.device) as threads:
            self._advance(threads)
            shares, blocks = self._shares_by_now()
            step = math.pi / float(shares[self.arrived].sum())
            for rows, state in zip(self._rows, self._states, strict=True):
                places = np.flatnonzero((chosen >= rows.start) & (chosen < rows.stop))
                if len(places) == 0:
                    continue
                part = slice(places[0], places[0] + rows.stop - rows.start)
                all_of_it = np.array_equal(chosen[part], np.arange(self.n_slices)[rows])
                if not self._waiting and all_of_it:
                    self._gridding.slices(state, images[part], step, threads)
                    continue
                inside = torch.from_numpy(chosen[places] - rows.start).to(state.device)
                extended = state[:, inside]
                for place, block in blocks.items():
                    attenuation = self._waiting[place][rows][inside]
                    self._gridding.add(extended, block, attenuation)
                some = torch.empty((len(places), n, n), device=images.device)
                self._gridding.slices(extended, some, step, threads)
                images[torch.from_numpy(places).to(images.device)] = some
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
            Projections have not arrived, or their true angles have other `ScanGeometry.shares` than
            the expected ones.
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
        if not np.array_equal(self._settle(), self._shares):
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

    def _shares_by_now(self) -> tuple[np.ndarray, dict[int, Block]]:
        """What projections count if the scan ends now, and the blocks that wait, planned with it.

        Where it changes nothing for those that are added already; else, what is expected.
        """
        shares, spans = self._shares, self._gridding.spans
        if self._waiting and not self.arrived.all():
            centre, n_columns = self.geometry.rotation_centre, self.geometry.n_columns
            now = ScanGeometry(self._theta[self.arrived], centre, n_columns).shares
            by_now = shares.copy()
            by_now[self.arrived] = now
            added = np.r_[*spans[: self._n_added]] if self._n_added else np.empty(0, dtype=int)
            if np.array_equal(by_now[added], shares[added]):
                shares = by_now
        blocks = {}
        for place in sorted(self._waiting):
            span = spans[place]
            if np.array_equal(shares[span], self._shares[span]):
                blocks[place] = self._block(place)
            else:
                blocks[place] = self._gridding.plan(span, self._theta[span], shares[span])
        return shares, blocks

    def _turn(self, index: int, theta: float | None) -> None:
        """Note the true angle of a projection."""
        if theta is not None and theta != self._theta[index]:
            self._theta[index] = theta
            self._true = None
            self._planned.pop(int(self._place_of[index]), None)

    def _settle(self) -> np.ndarray:
        """Now that all angles are known, let projections that are not added yet count truly.

        Returns what each of them counts, which those that are added may have been taken not to.
        """
        if self._true is None:
            expected = self.geometry
            known = ScanGeometry(self._theta, expected.rotation_centre, expected.n_columns)
            self._true = known.shares
            for place, span in enumerate(self._gridding.spans):
                due = place >= self._n_added
                if due and not np.array_equal(self._true[span], self._shares[span]):
                    self._shares[span] = self._true[span]
                    self._planned.pop(place, None)
        return self._true

    def _block(self, place: int) -> Block:
        """The plan of a block: made when it is needed, and kept while it waits."""
        if place not in self._planned:
            span = self._gridding.spans[place]
            self._planned[place] = self._gridding.plan(span, self._theta[span], self._shares[span])
        return self._planned[place]

    def _wait(self, index: int, projection: torch.Tensor) -> None:
        """Keep a projection until its block is added."""
        place = int(self._place_of[index])
        span = self._gridding.spans[place]
        if place not in self._waiting:
            n_projections = span.stop - span.start
            shape = (self.n_slices, n_projections, self.geometry.n_columns)
            self._waiting[place] = torch.zeros(shape, device=self._gridding.device)
        self._waiting[place][:, index - span.start] = projection

    def _advance(self, threads: Threads | None = None) -> None:
        """Add the blocks that are complete and next in order."""
        if self.arrived.all():
            self._settle()
        while self._n_added < len(self._gridding.spans):
            if not self.arrived[self._gridding.spans[self._n_added]].all():
                break
            block = self._block(self._n_added)
            attenuation = self._waiting.get(self._n_added)
            if attenuation is None:
                attenuation = self._again(block)
            each = self._states, repeat(block), [attenuation[rows] for rows in self._rows]
            if threads is None:
                for some in zip(*each, strict=False):
                    self._gridding.add(*some)
            else:
                threads.map(self._gridding.add, *each)
            self._waiting.pop(self._n_added, None)
            del self._planned[self._n_added]
            self._n_added += 1
        self._plan_ahead()

    def _plan_ahead(self) -> None:
        """Plan blocks that are complete and wait for others, while there is time."""
        for place in self._waiting:
            if place not in self._planned and self.arrived[self._gridding.spans[place]].all():
                self._block(place)
                return

    def _again(self, block: Block) -> torch.Tensor:
        """Attenuation of a block that was added before, from what is retained."""
        first, stop = block.projections.start, block.projections.stop
        assert self._retained is not None  # replace() saw to that
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
