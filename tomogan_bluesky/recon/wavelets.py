"""Stripes removed in wavelet and Fourier space (TomoPy's `remove_stripe_fw`).

Enters: sinograms (row, angle, column). Leaves: the same without what is both narrow along the
columns and nearly constant along the angles. A sinogram is split by a wavelet into bands; in each
band of vertical detail, the lowest frequencies along the angles are damped (Münch, Trtik, Marone
and Stampanoni, Opt. Express 17, 8567, 2009). Only what the damping takes away is transformed back,
and subtracted.
"""

import math
from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
from torch.nn import functional as F

from ..errors import ReconstructionError
from .median import reflected
from .stripes import check_sinograms

# Beyond, the roots of the polynomial below are not found exactly enough.
_HIGHEST_ORDER = 20


def remove_stripes_by_wavelets(
    sinograms: torch.Tensor,
    level: int | None = None,
    wname: str = "db5",
    sigma: float = 2.0,
    pad: bool = True,
) -> torch.Tensor:
    """Damp, band by band, what does not change with the angle.

    Parameters
    ----------
    sinograms : torch.Tensor, float32, shape (row, angle, column)
    level : int, optional
        Number of bands; None: as many as the longer of the angles and columns has binary digits, as
        in TomoPy. That takes away broad shapes too (on a real scan, a quarter of the sinogram's
        norm): a level of 3 or 4 removes stripes of up to some 8 or 16 columns and leaves those.
    wname : str
        Wavelet: "haar", or "db1" to "db20" of Daubechies.
    sigma : float
        Width of the damping, in cycles over the angles.
    pad : bool
        Continue the sinogram by an eighth of its angles, with zeros, half on each side.

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
    _, n_angles, n_columns = sinograms.shape
    if level is None:
        level = math.ceil(math.log2(max(n_angles, n_columns, 2)))
    if level < 1 or not sigma > 0:
        raise ReconstructionError(
            f"stripes: expected a level from 1 and a positive sigma, got {level} and {sigma}"
        )
    low, high = wavelet_filters(wname)
    padding = n_angles // 8 if pad else 0
    above = padding // 2
    cleaned = torch.empty_like(sinograms)
    for sinogram, result in zip(sinograms, cleaned, strict=True):
        padded = F.pad(sinogram, (0, 0, above, padding - above))
        stripes = _stripes(padded, level, sigma, low, high)
        torch.sub(sinogram, stripes[above : above + n_angles], out=result)
    return cleaned


@cache
def wavelet_filters(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Filters of an orthogonal wavelet of Daubechies, as they reconstruct.

    The factor of the half-band polynomial with all roots inside the unit circle (Daubechies, Ten
    Lectures on Wavelets, 1992, section 6.1).

    Returns
    -------
    low, high : tuple of float
        Of unit norm; `low` sums to the root of 2.

    Raises
    ------
    ReconstructionError
        Another name than "haar" and "db1" to "db20".
    """
    digits = "1" if name == "haar" else name.removeprefix("db")
    if not digits.isdecimal() or not 1 <= int(digits) <= _HIGHEST_ORDER:
        raise ReconstructionError(
            f"stripes: expected the wavelet 'haar' or 'db1' to 'db{_HIGHEST_ORDER}', got {name!r}"
        )
    order = int(digits)
    half_band = [math.comb(order - 1 + k, k) for k in reversed(range(order))]
    # A root y of it is a pair of roots z, 1 / z with z + 1 / z = 2 - 4 y.
    middle = 1 - 2 * np.roots(half_band).astype(complex)
    root = np.sqrt(middle**2 - 1)
    inside = np.where(np.abs(middle + root) < 1, middle + root, middle - root)
    low = np.poly(np.concatenate((inside, -np.ones(order)))).real
    low *= math.sqrt(2) / low.sum()
    high = low[::-1] * (-1.0) ** np.arange(2 * order)
    return tuple(low.tolist()), tuple(high.tolist())


def _stripes(
    image: torch.Tensor, level: int, sigma: float, low: tuple[float, ...], high: tuple[float, ...]
) -> torch.Tensor:
    """What the damping takes away from a padded sinogram."""
    bands, shapes = [], []
    for _ in range(level):
        shapes.append(image.shape)
        detail = _split(_split(image, high, 1), low, 0)
        bands.append(_slow(detail, sigma))
        image = _split(_split(image, low, 1), low, 0)
    stripes = torch.zeros_like(image)
    for band, (height, width) in zip(reversed(bands), reversed(shapes), strict=True):
        wide = _join(_join(stripes, low, 0), low, 1) + _join(_join(band, low, 0), high, 1)
        stripes = wide[:height, :width]
    return stripes


def _slow(band: torch.Tensor, sigma: float) -> torch.Tensor:
    """The share of a band that is damped: a Gaussian about frequency 0 along the angles."""
    n = len(band)
    # TomoPy's damping is centred half a frequency beside 0 where n is even; the real part that it
    # takes in the end makes that the mean of both sides.
    frequency = torch.arange(n // 2 + 1, dtype=torch.float64, device=band.device)
    side = 0.5 if n % 2 == 0 else 0.0
    below, above = (torch.exp(-((frequency + s) ** 2) / (2 * sigma**2)) for s in (-side, side))
    slow = (below + above) / 2
    if n % 2 == 0:
        slow[-1] = math.exp(-(((n - 1) / 2) ** 2) / (2 * sigma**2))
    spectrum = torch.view_as_real(torch.fft.rfft(band.t().contiguous()))
    spectrum *= slow.float()[:, None]
    return torch.fft.irfft(torch.view_as_complex(spectrum), n).t()


def _split(image: torch.Tensor, taps: tuple[float, ...], axis: int) -> torch.Tensor:
    """Filter along an axis, with reflected edges, and keep every other value."""
    n, n_taps = image.shape[axis], len(taps)
    count = (n + n_taps - 1) // 2
    image = image.index_select(axis, reflected(n, n_taps - 1, n_taps - 1, image.device))
    phases = [_every_other(image, start, axis) for start in (0, 1)]
    # Decomposition takes the taps in reverse.
    return _weighted_sum(
        (phases[j % 2].narrow(axis, j // 2, count), tap) for j, tap in enumerate(taps, start=1)
    )


def _join(band: torch.Tensor, taps: tuple[float, ...], axis: int) -> torch.Tensor:
    """The transpose of `_split` without what lies beyond the edges."""
    n_taps = len(taps)
    count = band.shape[axis] - n_taps // 2 + 1
    phases = [
        _weighted_sum(
            (band.narrow(axis, (n_taps - 2 + parity - k) // 2, count), taps[k])
            for k in range(parity, n_taps, 2)
        )
        for parity in (0, 1)
    ]
    return torch.stack(phases, dim=axis + 1).flatten(axis, axis + 1)


def _weighted_sum(terms: Iterator[tuple[torch.Tensor, float]]) -> torch.Tensor:
    values, weight = next(terms)
    total = values * weight
    for values, weight in terms:
        total.add_(values, alpha=weight)
    return total


def _every_other(image: torch.Tensor, start: int, axis: int) -> torch.Tensor:
    return (image[start::2] if axis == 0 else image[:, start::2]).contiguous()
