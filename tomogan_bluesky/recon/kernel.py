"""Interpolation between projections and slices in Fourier space.

By the Fourier slice theorem, the transform of a projection lies on a line through the origin of
the slice's transform. Enters: a scan geometry. Leaves: `FourierGrid`, which knows for each sample
on those lines its neighbours on a Cartesian grid and their weights, computed once and shared by
all slices. `gridrec` spreads the samples over the grid, `project` is the transpose and reads them
from it.
"""

import math

import numpy as np
import torch

from ..errors import ReconstructionError
from ..geometry import ScanGeometry
from .filters import transform_size

KERNEL_WIDTH = 4
"""Grid points, along each axis, that take part in a sample."""
LEAST_OVERSAMPLING = 1.25
"""Size of the smallest grid, in image widths: below 1.06 the kernel could not be undone at the edge
of a slice, and a little more is needed for what the ramp spreads."""
# Terms of which `neighbours` computes the weights at once, in double precision.
_TERMS_AT_ONCE = 2**18


def slice_origin(n_columns: int) -> tuple[int, int]:
    """Pixel (row, column) of the rotation axis in a slice, the same as in TomoPy's gridrec."""
    right = (n_columns + 1) // 2
    return n_columns - 1 - right, right


class KaiserBessel:
    """Kaiser-Bessel interpolation kernel and its Fourier transform, in float64.

    Lowered so that it ends at zero, and scaled to 1 in its middle: else the rounding of an angle
    would decide whether samples half the width from a grid point count there.

    Parameters
    ----------
    width : int
        Even number of grid points under the kernel.
    oversampling : float
        Size of the grid in image widths. It decides the kernel's shape (Beatty, Nishimura and
        Pauly, IEEE Trans. Med. Imaging 24, 799, 2005, eq. 5).
    """

    def __init__(self, width: int, oversampling: float) -> None:
        self.width = width
        self.beta = math.pi * math.sqrt((width * (1 - 0.5 / oversampling)) ** 2 - 0.8)
        self._height = float(np.i0(self.beta)) - 1

    def __call__(self, distance: torch.Tensor) -> torch.Tensor:
        """Weight of a grid point at `distance` grid steps; 0 beyond half the width."""
        inside = (1 - (2 * distance / self.width) ** 2).clamp_min(0)
        return (torch.special.i0(self.beta * inside.sqrt()) - 1) / self._height

    def transform(self, frequency: torch.Tensor) -> torch.Tensor:
        """Fourier transform at `frequency`, in cycles per grid step, within half a cycle."""
        root = (self.beta**2 - (math.pi * self.width * frequency) ** 2).sqrt()
        lowered = torch.sinh(root) / root - torch.sinc(self.width * frequency)
        return self.width / self._height * lowered


class FourierGrid:
    """Neighbours and weights of the polar samples of a scan on the half plane of a slice.

    Sample (angle, k) is the transform of one projection, about the rotation axis, at ``k / size``
    cycles per column, up to the Nyquist frequency, where a shift to the axis is not defined and
    which is left out. Samples in the left half plane are replaced by their conjugates in the right
    one. The grid has the columns and rows of `torch.fft.rfft2`, in this order, and before them
    `margin` more columns, where the kernel reaches over the edge of the half plane. Signs in the
    weights move the rotation axis to the middle of the transform, so that slices are cut from it
    in one piece.

    A transposed grid is that of the transposed slice: what is said here of columns, and of the left
    half plane, holds of the plane's rows, and of its upper half.

    Parameters
    ----------
    geometry : ScanGeometry
    oversampling : float
        Size of the grid in image widths, from `LEAST_OVERSAMPLING` on.
    kernel_width : int
        Even number of grid points, along each axis, that take part in a sample.
    device : str or torch.device
    transposed : bool

    Attributes
    ----------
    size : int
        Rows of the grid, and length of the transform of a projection.
    transposed : bool
    n_frequencies : int
        Samples of a projection, ``size // 2``.
    margin : int
    shape : tuple of int
        Columns, margin included, and rows of the grid.
    conjugated : torch.Tensor, bool, shape (angle,)
        Projections whose samples enter as their conjugates.
    centre_phase : torch.Tensor, complex128, shape (frequency,)
        Factor that moves the origin of a projection from column 0 to the rotation axis.
    roll_off : tuple of torch.Tensor, float64, shape (n_columns,)
        Factors on the rows and on the columns of the slice that undo the kernel's effect.
    origin : tuple of int
        Pixel (row, column) of the rotation axis.
    corner : tuple of int
        Place (row, column) in the grid's transform where the slice begins.

    Raises
    ------
    ReconstructionError
        A grid that is too small.
    """

    def __init__(
        self,
        geometry: ScanGeometry,
        oversampling: float,
        kernel_width: int = KERNEL_WIDTH,
        device: str | torch.device = "cpu",
        transposed: bool = False,
    ) -> None:
        n = geometry.n_columns
        if not LEAST_OVERSAMPLING <= oversampling < math.inf:
            raise ReconstructionError(
                f"oversampling: expected a Fourier grid of at least {LEAST_OVERSAMPLING:g} image "
                f"widths, got {oversampling:g}: on a smaller one what is beside the slice folds "
                "into it; the default, 1.5, is fast"
            )
        self.transposed = transposed
        self.size = transform_size(oversampling * n)
        self.n_frequencies = self.size // 2
        self.margin = kernel_width // 2
        self.shape = (self.margin + self.n_frequencies + 1, self.size)
        self.origin = slice_origin(n)
        self.corner = (self.size // 2 - self.origin[0], self.size // 2 - self.origin[1])
        self._kernel = KaiserBessel(kernel_width, self.size / n)

        k = torch.arange(self.n_frequencies, dtype=torch.float64)
        turns = geometry.rotation_centre / self.size * k
        self.centre_phase = torch.exp(2j * math.pi * turns).to(device)
        self._k = k
        self._theta = geometry.theta
        self.conjugated = self.conjugated_at(geometry.theta).to(device)

        pixel = torch.arange(n, dtype=torch.float64)
        self.roll_off = tuple(
            (1 / self._kernel.transform((pixel - o) / self.size)).to(device) for o in self.origin
        )
        # Row indices that turn v into -v.
        self._mirror = torch.remainder(-torch.arange(self.size, device=device), self.size)

    def neighbours(self, projections: slice = slice(None)) -> tuple[torch.Tensor, torch.Tensor]:
        """Grid points under the kernel of each sample. Large: computed at each call, on the CPU.

        Parameters
        ----------
        projections : slice
            Those whose samples are asked for.

        Returns
        -------
        cells : torch.Tensor, int32, shape (angle * frequency, kernel_width ** 2)
            Flat indices into the grid.
        weights : torch.Tensor, float32, as `cells`
        """
        theta = self._theta[projections]
        n_terms = self.n_frequencies * self._kernel.width**2
        at_once = max(1, _TERMS_AT_ONCE // n_terms)
        shape = (len(theta) * self.n_frequencies, self._kernel.width**2)
        cells, weights = torch.empty(shape, dtype=torch.int32), torch.empty(shape)
        for first in range(0, len(theta), at_once):
            some = slice(first * self.n_frequencies, (first + at_once) * self.n_frequencies)
            cells[some], weights[some] = self.neighbours_at(theta[first : first + at_once])
        return cells, weights

    def conjugated_at(self, theta: np.ndarray) -> torch.Tensor:
        """Which projections at these angles enter as their conjugates: bool, on the CPU."""
        return self._directions(theta)[0] < 0

    def reach(self, theta: np.ndarray, tolerance: float = 0.0) -> int:
        """Columns of the grid, counted from its first, that projections at these angles reach.

        Parameters
        ----------
        theta : array, shape (projection,)
        tolerance : float
            Radians by which the angles may turn out to be others.
        """
        if len(theta) == 0:
            return 0
        steepest = float(self._directions(theta)[0].abs().max()) + tolerance
        furthest = (
            math.ceil(min(steepest, 1.0) * (self.n_frequencies - 1)) + self._kernel.width // 2
        )
        return min(self.margin + furthest, self.shape[0])

    def neighbours_at(self, theta: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """`neighbours` of projections at other angles than the geometry's."""
        positions = self._positions(theta)
        points = [self._points(position) for position in positions]
        u_weights, v_weights = map(self._weights, positions, points)
        weights = v_weights[:, :, None] * u_weights[:, None]
        return self._cells(*points), weights.flatten(1)

    def cells_at(self, theta: np.ndarray) -> torch.Tensor:
        """The cells of `neighbours_at`, at a fifth of the cost."""
        return self._cells(*(self._points(position) for position in self._positions(theta)))

    def _positions(self, theta: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Where samples lie, in columns and in rows of the grid: float64, shape (sample, 1)."""
        u, v = self._directions(theta)
        sign = torch.where(u < 0, -1.0, 1.0)
        u, v = torch.outer(sign * u, self._k), torch.outer(sign * v, self._k)
        return u.view(-1, 1), v.view(-1, 1)

    def _directions(self, theta: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Along columns and along rows of the grid: float64, shape (projection,)."""
        angles = torch.tensor(theta)
        u, v = torch.cos(angles), -torch.sin(angles)
        return (v, u) if self.transposed else (u, v)

    def _points(self, position: torch.Tensor) -> torch.Tensor:
        """Grid points under the kernel along an axis: int32, shape (sample, point)."""
        first = torch.ceil(position - self._kernel.width / 2)
        return (first + torch.arange(self._kernel.width)).int()

    def _cells(self, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Flat indices of all pairs of points."""
        column_start = (u + self.margin).mul_(self.size)
        return (column_start[:, None] + v.remainder(self.size)[:, :, None]).flatten(1)

    def _weights(self, position: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """Of the grid points along an axis: float32, shape (sample, point).

        Every other one is negative: the transform begins half its length before the axis.
        """
        weights = self._kernel(position - points).float()
        return torch.where(points % 2 == 0, weights, -weights)

    def fold(self, grid: torch.Tensor) -> torch.Tensor:
        """The first columns of the half plane, with what lies in the margin added as conjugates.

        The rest of the half plane is as in the grid, but the last column: it is its own mirror
        image, which `torch.fft.irfft` does not add, and counts twice.

        Parameters
        ----------
        grid : torch.Tensor, complex64, shape (*shape, slice)

        Returns
        -------
        torch.Tensor, complex64, shape (margin + 1, size, slice)
        """
        edge = grid[: 2 * self.margin + 1]
        return edge[self.margin :] + edge[: self.margin + 1].flip(0)[:, self._mirror].conj()

    def unfold(self, half_plane: torch.Tensor) -> torch.Tensor:
        """Fill the margin from the half plane: the transpose of `fold`.

        Parameters
        ----------
        half_plane : torch.Tensor, complex64, shape (size // 2 + 1, size, slice)
            Half the transform of a real slice.

        Returns
        -------
        torch.Tensor, complex64, shape (*shape, slice)
        """
        margin = half_plane[1 : self.margin + 1, self._mirror].flip(0).conj()
        return torch.cat((margin, half_plane))
