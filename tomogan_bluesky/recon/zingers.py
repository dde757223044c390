"""Zingers: pixels that a stray X-ray or cosmic ray made much too bright in one frame.

Enters: frames, as counts or as transmissions. Leaves: the same, with each such pixel replaced by
the median around it in its own frame (TomoPy's `remove_outlier`).
"""

import torch

from ..errors import ReconstructionError
from .checks import first_not_finite
from .median import reflected

# Windows that are sorted at once: a few hundred MiB for windows of 5 x 5.
_BATCH = 1 << 21


def remove_zingers(frames: torch.Tensor, dif: float, size: int = 3) -> tuple[torch.Tensor, int]:
    """Replace what exceeds the median around it.

    The median of a pixel depends on ``size // 2`` rows above and below: rows that are processed
    apart from their neighbours get other values at their edges. Whoever works in slabs passes
    those rows too, and cuts them off afterwards; then the bits do not depend on the slabs.

    Parameters
    ----------
    frames : torch.Tensor, any real dtype, shape (row, angle, column)
        Counts, or transmission. Frames of darks and flats take the place of angles as well.
    dif : float
        A pixel that is brighter than the median by this, or more, is replaced. In the units of the
        frames.
    size : int
        Odd width and height of the window, from 3.

    Returns
    -------
    cleaned : torch.Tensor, float32, shape (row, angle, column)
        On the same device.
    n_replaced : int

    Raises
    ------
    ReconstructionError
        A wrong shape or setting, or values that are not finite.
    """
    if frames.ndim != 3 or 0 in frames.shape:
        raise ReconstructionError(
            f"zingers: expected frames (row, angle, column), got {tuple(frames.shape)}"
        )
    if size < 3 or size % 2 == 0 or not dif > 0:
        raise ReconstructionError(
            "zingers: expected a window of an odd size from 3 and a positive difference, got "
            f"size={size} and dif={dif}"
        )
    cleaned = frames.to(torch.float32, copy=True)
    if (bad := first_not_finite(cleaned)) is not None:
        raise ReconstructionError(
            f"zingers: expected finite values, got {cleaned[bad].item()} at row {bad[0]}, angle "
            f"{bad[1]}, column {bad[2]}; leave broken frames out"
        )
    # Few pixels exceed even the smallest of their neighbours: only those need a median.
    suspects = (cleaned - _smallest_around(cleaned, size) >= dif).nonzero()
    medians = torch.cat([_medians(cleaned, part, size) for part in suspects.split(_BATCH)])
    row, angle, column = suspects.unbind(1)
    exceeds = cleaned[row, angle, column] - medians >= dif
    cleaned[row[exceeds], angle[exceeds], column[exceeds]] = medians[exceeds]
    return cleaned, int(exceeds.sum())


def _smallest_around(frames: torch.Tensor, size: int) -> torch.Tensor:
    for axis in (0, 2):
        n, half = frames.shape[axis], size // 2
        source = frames.index_select(axis, reflected(n, half, half, frames.device))
        smallest = source.narrow(axis, 0, n).clone()
        for shift in range(1, size):
            torch.minimum(smallest, source.narrow(axis, shift, n), out=smallest)
        frames = smallest
    return frames


def _medians(frames: torch.Tensor, pixels: torch.Tensor, size: int) -> torch.Tensor:
    """Medians around single pixels, whose indices are (pixel, axis): (pixel,)."""
    row, angle, column = pixels.unbind(1)
    half = size // 2
    around = torch.arange(size, device=frames.device)
    rows = reflected(frames.shape[0], half, half, frames.device)[row[:, None] + around]
    columns = reflected(frames.shape[2], half, half, frames.device)[column[:, None] + around]
    windows = frames[rows[:, :, None], angle[:, None, None], columns[:, None, :]]
    return windows.flatten(1).median(dim=1).values
