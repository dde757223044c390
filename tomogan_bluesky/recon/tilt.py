"""A rotation axis that is not quite along the detector's columns: each row has its own centre.

Enters: attenuation (row, angle, column), and how far the centre of each row is from that of the
middle one. Leaves: the same, shifted so that all rows have the same centre, which is what every
reconstruction here takes.
"""

import math

import numpy as np
import torch

from ..errors import ConfigurationError
from .filters import transform_size

# Length of the transform in detector widths: in what is beyond the detector, a row's last value
# turns into its first one, and there is room for the shift.
_LENGTH = 1.25


def row_shifts(tilt_deg: float, n_rows: int, n_columns: int) -> np.ndarray:
    """Centres of rotation of all rows, seen from that of the middle one.

    Parameters
    ----------
    tilt_deg : float
        Angle of the axis to the detector's columns; positive where the centre moves to higher
        columns with the row.
    n_rows, n_columns : int

    Returns
    -------
    numpy.ndarray, float64, shape (row,)
        In columns.

    Raises
    ------
    ConfigurationError
        A tilt that moves the centre by more than an eighth of the detector.
    """
    shifts = math.tan(math.radians(tilt_deg)) * (np.arange(n_rows) - (n_rows - 1) / 2)
    most = (_LENGTH - 1) / 2 * n_columns
    if np.abs(shifts).max() > most:
        raise ConfigurationError(
            f"preprocessing.axis_tilt_deg: expected a tilt that moves the rotation centre by at "
            f"most {most:.0f} columns from the middle row to the outer ones, got {tilt_deg:g} "
            f"degrees, which is {np.abs(shifts).max():.1f} columns on {n_rows} rows; align the axis"
        )
    return shifts


def align_rows(attenuation: torch.Tensor, shifts: np.ndarray) -> torch.Tensor:
    """Move the centre of rotation of each row to where that of the middle row is.

    By a shift in Fourier space, which smooths nothing. Its bits depend neither on the rows beside
    nor on the projections.

    Parameters
    ----------
    attenuation : torch.Tensor, float32, shape (row, angle, column)
    shifts : numpy.ndarray, shape (row,)
        Columns by which each centre is too high; see `row_shifts`.

    Returns
    -------
    torch.Tensor, float32, shape (row, angle, column)
    """
    n = attenuation.shape[-1]
    size = transform_size(_LENGTH * n)
    device = attenuation.device
    share = torch.arange(1, size - n + 1, device=device) / (size - n + 1)
    first, last = attenuation[..., :1], attenuation[..., -1:]
    spectra = torch.fft.rfft(torch.cat((attenuation, last + (first - last) * share), dim=-1))
    angle = 2 * math.pi * np.outer(shifts, np.arange(size // 2 + 1)) / size
    cos, sin = (
        torch.from_numpy(f(angle).astype(np.float32)).to(device)[:, None] for f in (np.cos, np.sin)
    )
    # Not as one complex product, whose last bit depends on how threads share it out.
    real, imaginary = spectra.real, spectra.imag
    turned = torch.complex(real * cos - imaginary * sin, real * sin + imaginary * cos)
    return torch.fft.irfft(turned, size)[..., :n].contiguous()
