"""Stripes in sinograms, which defective detector pixels leave and which become rings in slices.

Enters: sinograms (row, angle, column), of attenuation or transmission. Leaves: the same with what
is constant along the angles, and does not fit the columns beside, taken out. Each sinogram is
treated alone. Names of the parameters and the steps follow TomoPy's `remove_stripe_based_sorting`
and `remove_all_stripe` (Vo, Atwood and Drakopoulos, Opt. Express 26, 28396, 2018); the third
method is in `wavelets`.
"""

import torch
from torch.nn import functional as F

from ..errors import ReconstructionError
from .checks import check_stack
from .median import moving_median, reflected

# Share of the angles, the largest and smallest values of a column, that do not enter its mean.
_DROPPED = 0.1
# Angles over which a fluctuating column is compared with its own mean.
_FLUCTUATION = 10


def remove_stripes_by_sorting(sinograms: torch.Tensor, size: int | None = None) -> torch.Tensor:
    """Compare columns rank by rank instead of angle by angle (Vo 2018, algorithm 3).

    A column whose pixel responds too strongly or weakly has all its sorted values shifted against
    those of its neighbours: a median over the columns corrects each rank, and the values return to
    their angles. It works for stripes narrower than half the window, and softens nothing else much.

    Parameters
    ----------
    sinograms : torch.Tensor, float32, shape (row, angle, column)
    size : int, optional
        Columns of the median's window; None: 1 % of the columns, from 5 to 21, as in TomoPy.

    Returns
    -------
    torch.Tensor, float32, shape (row, angle, column)
        On the same device.

    Raises
    ------
    ReconstructionError
        A wrong shape or setting, or values that are not finite.
    """
    check_sinograms(sinograms)
    if size is None:
        columns = sinograms.shape[2]
        size = 21 if columns > 2000 else max(5, int(0.01 * columns))
    _check_window("size", size)
    cleaned = torch.empty_like(sinograms)
    for sinogram, result in zip(sinograms, cleaned, strict=True):
        result[:] = _sorted_and_smoothed(sinogram, size)
    return cleaned


def remove_all_stripes(
    sinograms: torch.Tensor, snr: float = 3.0, la_size: int = 61, sm_size: int = 21
) -> torch.Tensor:
    """Remove dead and fluctuating, then large, then small stripes (Vo 2018, algorithms 6, 5, 3).

    Parameters
    ----------
    sinograms : torch.Tensor, float32, shape (row, angle, column)
    snr : float
        How far a column must stand out to count as dead or as part of a large stripe. Greater is
        less sensitive.
    la_size, sm_size : int
        Columns of the medians' windows against large and small stripes.

    Returns
    -------
    torch.Tensor, float32, shape (row, angle, column)
        On the same device.

    Raises
    ------
    ReconstructionError
        A wrong shape or setting, fewer than 8 columns, or values that are not finite.
    """
    check_sinograms(sinograms)
    _check_window("la_size", la_size)
    _check_window("sm_size", sm_size)
    if not snr > 0 or sinograms.shape[2] < 8:
        raise ReconstructionError(
            "stripes: expected a positive snr and at least 8 columns, got "
            f"snr={snr} and {sinograms.shape[2]} columns"
        )
    cleaned = torch.empty_like(sinograms)
    for sinogram, result in zip(sinograms, cleaned, strict=True):
        alive = _without_dead_columns(sinogram, snr, la_size)
        even = _without_large_stripes(alive, snr, la_size)
        result[:] = _sorted_and_smoothed(even, sm_size)
    return cleaned


def check_sinograms(sinograms: torch.Tensor) -> None:
    """Refuse what is not a float32 stack of finite sinograms with at least one value.

    Raises
    ------
    ReconstructionError
    """
    if sinograms.ndim != 3 or 0 in sinograms.shape[1:]:
        raise ReconstructionError(
            f"stripes: expected sinograms (row, angle, column), got {tuple(sinograms.shape)}"
        )
    _, angles, columns = sinograms.shape
    check_stack(sinograms, (angles, columns), "sinograms", ("row", "angle", "column"))


def _check_window(name: str, size: int) -> None:
    if size < 1:
        raise ReconstructionError(f"stripes: expected {name} from 1, got {size}")


def _sorted_and_smoothed(sinogram: torch.Tensor, size: int) -> torch.Tensor:
    """Median over the columns of the values of each rank, put back to their angles."""
    values, order = sinogram.t().contiguous().sort(dim=1, stable=True)
    return torch.empty_like(values).scatter_(1, order, moving_median(values, size)).t()


def _without_dead_columns(sinogram: torch.Tensor, snr: float, size: int) -> torch.Tensor:
    """Interpolate columns that fluctuate much more, or less, than those around them."""
    n_angles, n_columns = sinogram.shape
    before = _FLUCTUATION // 2
    source = sinogram[reflected(n_angles, before, _FLUCTUATION - 1 - before, sinogram.device)]
    mean = sum(source[i : i + n_angles] for i in range(_FLUCTUATION)) / _FLUCTUATION
    fluctuation = (sinogram - mean).abs().t().contiguous().sum(1)
    dead = _stands_out(_ratio(fluctuation, moving_median(fluctuation[:, None], size)[:, 0]), snr)
    dead[:2] = dead[-2:] = False
    if not dead.any():
        return sinogram
    good = (~dead).nonzero()[:, 0]
    columns = torch.arange(n_columns, device=sinogram.device)
    right = torch.searchsorted(good, columns).clamp(1, len(good) - 1)
    left, right = good[right - 1], good[right]
    share = ((columns - left) / (right - left)).to(sinogram.dtype)
    between = (1 - share) * sinogram[:, left] + share * sinogram[:, right]
    return torch.where(dead, between, sinogram)


def _without_large_stripes(sinogram: torch.Tensor, snr: float, size: int) -> torch.Tensor:
    """Scale each column to those around it; where it stood out, replace its sorted values."""
    values, order = sinogram.t().contiguous().sort(dim=1, stable=True)
    smooth = moving_median(values, size)
    dropped = int(0.5 * _DROPPED * len(sinogram))
    kept = slice(dropped, len(sinogram) - dropped)
    factor = _ratio(values[:, kept].mean(1), smooth[:, kept].mean(1))
    # In air, where attenuation is noise about 0, a factor may be negative, which turns the order
    # round: one sorts, as TomoPy, what has been scaled.
    order = torch.where(factor[:, None] < 0, order.flip(1), order)
    replaced = torch.empty_like(smooth).scatter_(1, order, smooth).t()
    return torch.where(_stands_out(factor, snr), replaced, sinogram / factor)


def _ratio(values: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    return torch.where(reference != 0, values / reference, 1.0)


def _stands_out(values: torch.Tensor, snr: float) -> torch.Tensor:
    """Columns whose values are outliers, and their neighbours (Vo 2018, algorithm 4).

    The values between the quartiles, sorted, are fitted by a line; its ends are where the extreme
    values ought to be, and its rise is the measure of how far they may be from there.
    """
    n = len(values)
    ordered = values.double().sort(descending=True).values
    rank = torch.arange(n, dtype=torch.float64, device=values.device)
    middle = slice(n // 4, n - n // 4 - 1)
    x, y = rank[middle], ordered[middle]
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    top = y.mean() - slope * x.mean()
    bottom = top + slope * (n - 1)
    rise = (top - bottom).abs().clamp_min(1e-6)
    high = ((ordered[0] - top).abs() >= snr * rise) & (values > top + 0.5 * snr * rise)
    low = ((ordered[-1] - bottom).abs() >= snr * rise) & (values <= bottom - 0.5 * snr * rise)
    return F.max_pool1d((high | low)[None].float(), 3, stride=1, padding=1)[0] > 0
