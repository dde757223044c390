"""Ramp filters of filtered back-projection, with TomoPy's names.

Enters: the name of a filter and the length of a discrete Fourier transform. Leaves: the filter's
response at the transform's non-negative frequencies.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from ..errors import ReconstructionError

if TYPE_CHECKING:  # reconstruction needs numpy and torch only, and this needs pydantic
    from ..config import FilterName


# Windows as functions of f, in cycles per column from 0 to 0.5 (the Nyquist frequency). hann and
# hamming are TomoPy's with filter_par=[1.0], which makes them fall until Nyquist; TomoPy's default
# lets them rise again from half of it.
_WINDOWS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "ramlak": torch.ones_like,
    "shepp": torch.sinc,
    "cosine": lambda f: torch.cos(math.pi * f),
    "hann": lambda f: 0.5 + 0.5 * torch.cos(2 * math.pi * f),
    "hamming": lambda f: 0.54 + 0.46 * torch.cos(2 * math.pi * f),
    "parzen": lambda f: (1 - 2 * f) ** 3,
    "butterworth": lambda f: 1 / (1 + (2 * f) ** 16),
}


HIGHEST = 0.48
"""Cycles per column, next to Nyquist, up to which no window is nothing."""


def band_limited_ramp(size: int) -> torch.Tensor:
    """Response of the ramp filter, as the transform of its band-limited spatial kernel.

    The sampled ``|f|`` would filter circularly and lose the mean of the object (a disc of 1 comes
    out as 0.92); the spatial kernel (Kak and Slaney, Principles of Computerized Tomographic
    Imaging, 1988, eq. 3-61) does not, provided that `size` leaves room beside the detector.

    Parameters
    ----------
    size : int
        Even length of the transform, in columns.

    Returns
    -------
    torch.Tensor, float64, shape (size // 2 + 1,)
        Response at 0, 1/size, ..., 1/2 cycles per column; 1/2 at the highest one, nearly.
    """
    distance = torch.arange(size, dtype=torch.float64)
    distance = torch.minimum(distance, size - distance)
    kernel = torch.where(distance % 2 == 1, -1 / (math.pi * distance) ** 2, 0.0)
    kernel[0] = 0.25
    return torch.fft.rfft(kernel).real


def filter_response(name: FilterName, size: int) -> torch.Tensor:
    """Response of a filter by name: the ramp times its window; 1 everywhere for ``"none"``.

    Parameters
    ----------
    name : str
        One of `config.FilterName`.
    size : int
        Even length of the transform, in columns. The convolution is free of wrap-around from
        twice the number of detector columns on.

    Returns
    -------
    torch.Tensor, float64, shape (size // 2 + 1,)
        Real response at 0, 1/size, ..., 1/2 cycles per column.

    Raises
    ------
    ReconstructionError
        There is no filter of that name.
    """
    if name == "none":
        return torch.ones(size // 2 + 1, dtype=torch.float64)
    frequency = torch.arange(size // 2 + 1, dtype=torch.float64) / size
    return band_limited_ramp(size) * filter_window(name, frequency)


def filter_window(name: FilterName, frequency: torch.Tensor) -> torch.Tensor:
    """What a filter multiplies the ramp by.

    Parameters
    ----------
    name : str
        One of `config.FilterName` but ``"none"``, which has no ramp.
    frequency : torch.Tensor
        In cycles per column, from 0 to 1/2.

    Raises
    ------
    ReconstructionError
        There is no filter of that name.
    """
    if name not in _WINDOWS:
        raise ReconstructionError(
            f"filter: expected one of {', '.join(_WINDOWS)} or none, got {name!r}"
        )
    return _WINDOWS[name](frequency)


def is_smoother(name: FilterName, other: FilterName) -> bool:
    """Whether a filter leaves of no frequency more than another one, and is another.

    So what the other one leaves, multiplied by a window, is what this one leaves.
    """
    if name == other or "none" in (name, other):
        return False
    every = torch.linspace(0, HIGHEST, 100, dtype=torch.float64)
    share = filter_window(name, every) / filter_window(other, every)
    return bool((share <= 1 + 1e-9).all())


def apply_response(spectra: torch.Tensor, response: torch.Tensor) -> torch.Tensor:
    """Multiply the spectra of projections by a response, in place.

    One slice at a time: how threads share out complex products depends on their number, and shows
    in the last bit, which must not depend on the slices beside.

    Parameters
    ----------
    spectra : torch.Tensor, complex64, shape (slice, angle, frequency)
    response : torch.Tensor, real or complex, shape (frequency,)

    Returns
    -------
    torch.Tensor
        `spectra`.
    """
    for spectrum in spectra:
        spectrum *= response
    return spectra


class LineFilter:
    """A filter by name, for projections that another library back-projects.

    Parameters
    ----------
    name : str
        One of `config.FilterName`.
    n_columns : int
    factor : float
        By which they are multiplied.
    """

    def __init__(self, name: FilterName, n_columns: int, factor: float = 1.0) -> None:
        self._n_columns = n_columns
        self._size = transform_size(2 * n_columns)  # without wrap-around
        self._response = (filter_response(name, self._size) * factor).float()

    def __call__(self, attenuation: torch.Tensor) -> torch.Tensor:
        """Filtered projections, of the shape of `attenuation`: (slice, angle, column)."""
        spectra = apply_response(torch.fft.rfft(attenuation, self._size), self._response)
        return torch.fft.irfft(spectra, self._size)[..., : self._n_columns]


def transform_size(minimum: float) -> int:
    """The smallest even length from `minimum` on whose prime factors are 2, 3 and 5.

    Transforms of such a length are fast; those of a large prime are not.
    """
    size = 2 * math.ceil(minimum / 2)
    while 30**64 % size:
        size += 2
    return size
