"""Fewer, larger pixels; and a scan over a full turn as one of half a turn and twice the width.

Enters: frames, or sinograms. Leaves: the same scan on another detector, and where its rotation axis
is there.
"""

from functools import reduce

import numpy as np
import torch

from ..errors import ReconstructionError, RotationCentreError

# Largest difference from half a turn between the two angles of a pair, in angular steps.
_LARGEST_MISS = 0.1


def bin_frames(frames: torch.Tensor, k: int) -> torch.Tensor:
    """Mean over squares of k x k pixels. Rows and columns that fill no square are left out.

    Parameters
    ----------
    frames : torch.Tensor, any real dtype, shape (row, angle, column)
        Counts, or transmission: what is proportional to the number of photons, so that the mean is
        what a detector of larger pixels would see. The mean of attenuations is not.
    k : int

    Returns
    -------
    torch.Tensor, float32, shape (row // k, angle, column // k)
        On the same device. Counts below 2^24 / k^2 lose nothing but the last rounding.

    Raises
    ------
    ReconstructionError
        A wrong shape, or k not between 1 and the number of rows and columns.
    """
    if frames.ndim != 3:
        raise ReconstructionError(
            f"binning: expected frames (row, angle, column), got {tuple(frames.shape)}"
        )
    rows, _, columns = frames.shape
    if not 1 <= k <= min(rows, columns):
        raise ReconstructionError(
            f"binning: expected k between 1 and the {rows} rows and {columns} columns of the "
            f"frames, got {k}"
        )
    # Sums in a fixed order, so that the bits do not depend on the frames beside.
    rows, columns = rows // k * k, columns // k * k
    tall = reduce(torch.add, (frames[i:rows:k].to(torch.float32) for i in range(k)))
    return reduce(torch.add, (tall[..., i:columns:k] for i in range(k))) / (k * k)


def binned_column(column: float, k: int) -> float:
    """Where a detector column, such as the rotation centre, lies on columns k times as wide."""
    return (column + 0.5) / k - 0.5


def unbinned_column(column: float, k: int) -> float:
    """Where a column k times as wide lies on the detector: the inverse of `binned_column`."""
    return (column + 0.5) * k - 0.5


def full_to_half_turn(
    sinogram: torch.Tensor, theta: np.ndarray, centre: float
) -> tuple[torch.Tensor, np.ndarray, float]:
    """Stitch a scan over a full turn, whose axis is near the detector's edge, to half a turn.

    The projections of the second half turn, mirrored at the axis, continue those of the first
    beyond that edge. Where both see the sample, their weights rise and fall linearly (TomoPy's
    `sino_360_to_180`, with the overlap that follows from the centre). Unlike there, a mirrored
    column that falls between two others is interpolated linearly, so that the centre need not be a
    multiple of half a column.

    Parameters
    ----------
    sinogram : torch.Tensor, float32, shape (row, angle, column)
    theta : array, shape (angle,)
        Angles in radians, evenly over a full turn in one direction. A last angle that repeats the
        first, or has no partner, is left out.
    centre : float
        Detector column of the rotation axis.

    Returns
    -------
    stitched : torch.Tensor, float32, shape (row, angle // 2, wider column)
    theta : array of float64, shape (angle // 2,)
    centre : float
        Column of the rotation axis in `stitched`.

    Raises
    ------
    ReconstructionError
        Shapes that do not belong together, or angles that do not come in pairs.
    RotationCentreError
        An axis that is not on the detector, or is in its middle, where nothing is gained.
    """
    theta = np.asarray(theta, dtype=np.float64)
    if sinogram.ndim != 3 or theta.shape != sinogram.shape[1:2]:
        raise ReconstructionError(
            "full turn: expected sinograms (row, angle, column) and one angle a projection, got "
            f"{tuple(sinogram.shape)} and {theta.shape} angles"
        )
    half = _half_turn(theta)
    n = sinogram.shape[2]
    if not 0 <= centre <= n - 1 or abs(2 * centre - (n - 1)) < 1:
        raise RotationCentreError(
            f"full turn: expected a rotation centre on the detector, columns 0 to {n - 1}, at "
            f"least half a column beside its middle, got {centre:g}; a scan whose axis is in the "
            "middle needs no stitching"
        )
    near_right = centre > (n - 1) / 2
    # As if the axis were near the right edge, in columns from the left one.
    place = centre if near_right else n - 1 - centre
    n_new = int(np.floor(2 * place)) + 1
    first, second = sinogram[:, :half], sinogram[:, half : 2 * half]
    if not near_right:
        first, second = first.flip(2), second.flip(2)
    # Column j of the mirrored half shows what lies at 2 * place - j.
    share = 2 * place - np.floor(2 * place)
    mirrored = second.flip(2)
    if share:
        mirrored = (1 - share) * mirrored[..., 1:] + share * mirrored[..., :-1]
    overlap = n + mirrored.shape[2] - n_new
    fall = torch.linspace(1, 0, overlap, device=sinogram.device)
    both = fall * first[..., n - overlap :] + (1 - fall) * mirrored[..., :overlap]
    parts = (first[..., : n - overlap], both, mirrored[..., overlap:])
    stitched = torch.cat(parts, dim=2)
    if not near_right:
        return stitched.flip(2).contiguous(), theta[:half], n_new - 1 - place
    return stitched, theta[:half], place


def _half_turn(theta: np.ndarray) -> int:
    """Number of projections in half a turn."""
    half = len(theta) // 2
    if half:
        step = np.abs(theta[half] - theta[0]) / half
        miss = np.abs(np.abs(theta[half : 2 * half] - theta[:half]) - np.pi).max()
        if miss <= _LARGEST_MISS * step:
            return half
    raise ReconstructionError(
        "full turn: expected angles evenly over 360 degrees, so that the second half repeats the "
        f"first half a turn later, got {len(theta)} angles from {np.rad2deg(theta.min()):.6g} to "
        f"{np.rad2deg(theta.max()):.6g} degrees"
        if len(theta)
        else "full turn: expected angles over 360 degrees, got none"
    )
