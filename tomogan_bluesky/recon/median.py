"""Medians over a moving window, and how values continue beyond their edges.

Enters: a tensor and a window's size. Leaves: medians of the same shape, bit for bit those of any
other implementation, since a median is one of the values. Beyond an edge the values come back as in
a mirror that stands on it (d c b a | a b c d), as in SciPy and TomoPy.
"""

import torch

# Values in the windows that are worked on at once. They fit a processor's cache, and torch does not
# share out operations on so few among threads, whose many meetings cost seconds on a busy machine.
_AT_ONCE = 32_000


def reflected(
    length: int, before: int, after: int, device: str | torch.device = "cpu"
) -> torch.Tensor:
    """Indices of `length` values, continued by reflection.

    Parameters
    ----------
    length : int
        Number of values.
    before, after : int
        Number of indices before the first and after the last value; more than `length` will do.
    device : str or torch.device

    Returns
    -------
    torch.Tensor, int64, shape (before + length + after,)
    """
    index = torch.arange(-before, length + after, device=device).remainder(2 * length)
    return torch.minimum(index, 2 * length - 1 - index)


def moving_median(values: torch.Tensor, size: int) -> torch.Tensor:
    """Median over `size` neighbours along the first axis.

    The window is kept sorted while it moves: the value that leaves it is taken out, and the one
    that enters is put in, for many lanes at once.

    Parameters
    ----------
    values : torch.Tensor, float32, shape (position, lane)
    size : int
        From 1. Of an even number of values the upper median is taken, and the window reaches one
        value further before its position than after, as in SciPy.

    Returns
    -------
    torch.Tensor, float32, shape (position, lane)
    """
    half = size // 2
    source = values[reflected(len(values), half, size - 1 - half, values.device)]
    medians = torch.empty_like(values)
    lanes = max(1, _AT_ONCE // size if values.device.type == "cpu" else values.shape[1])
    for first in range(0, values.shape[1], lanes):
        part = slice(first, first + lanes)
        _move(source[:, part], medians[:, part], size)
    return medians


def _move(source: torch.Tensor, medians: torch.Tensor, size: int) -> None:
    """Medians of each window of `source`, which has ``size - 1`` more positions than there are."""
    n_lanes = source.shape[1]
    # A window, and what is left of it when one value has gone, both between infinities.
    window = source.new_full((size + 2, n_lanes), torch.inf)
    rest = source.new_full((size + 1, n_lanes), torch.inf)
    window[0] = rest[0] = -torch.inf
    window[1:-1] = source[:size].sort(dim=0).values
    middle = window[1 + size // 2]
    medians[0] = middle
    smaller = torch.empty((size - 1, n_lanes), dtype=torch.bool, device=source.device)
    for position in range(1, len(medians)):
        leaves, enters = source[position - 1], source[position + size - 1]
        torch.lt(window[1:-2], leaves, out=smaller)
        torch.where(smaller, window[1:-2], window[2:-1], out=rest[1:-1])
        torch.minimum(rest[1:], enters, out=window[1:-1])
        torch.maximum(rest[:-1], window[1:-1], out=window[1:-1])
        medians[position] = middle
