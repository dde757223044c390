"""Phase retrieval for a sample of one material, from one distance.

Enters: transmission. Leaves: the transmission that the sample would have had in contact with the
detector: the bright and dark fringes that propagation adds at edges become contrast of areas
(Paganin, Mayo, Gureyev, Miller and Wilkins, J. Microsc. 206, 33, 2002; TomoPy's `retrieve_phase`).
"""

import math

import torch
from torch.nn import functional as F

from ..errors import ReconstructionError
from .checks import first_not_finite

_PLANCK_TIMES_LIGHT = 1.2398419843320026e-7  # keV cm


def retrieve_phase(
    transmission: torch.Tensor,
    pixel_size: float = 1e-4,
    dist: float = 50.0,
    energy: float = 20.0,
    alpha: float = 1e-3,
    pad: bool = True,
) -> torch.Tensor:
    """Filter each frame by ``alpha / (wavelength * dist * f**2 / (4 * pi) + alpha)``.

    f is the spatial frequency in cycles per cm. In TomoPy's convention `alpha` stands for beta /
    delta of the material divided by 4 pi². TomoPy samples the filter half a frequency beside the
    transform's, and so takes some of the mean away; here it is sampled where it belongs, and even
    illumination stays as it is.

    The filter reaches over several `length` of rows and columns (see `reach`): this works on whole
    frames. Rows that are processed apart from their neighbours come out differently near their
    edges; whoever works in slabs passes `reach` more rows on both sides and cuts them off.

    Parameters
    ----------
    transmission : torch.Tensor, float32, shape (row, angle, column)
        Before the logarithm.
    pixel_size : float
        Of the detector, as seen in the sample, in cm.
    dist : float
        From the sample to the detector, in cm.
    energy : float
        Of the photons, in keV.
    alpha : float
        Regularization; smaller is smoother.
    pad : bool
        Continue the frames with their edge values, to a power of two with room for the fringes.

    Returns
    -------
    torch.Tensor, float32, shape (row, angle, column)
        On the same device.

    Raises
    ------
    ReconstructionError
        A wrong shape or setting, or values that are not finite.
    """
    if transmission.ndim != 3 or 0 in transmission.shape or transmission.dtype != torch.float32:
        raise ReconstructionError(
            "phase retrieval: expected float32 transmission (row, angle, column), got "
            f"{transmission.dtype} {tuple(transmission.shape)}"
        )
    if (bad := first_not_finite(transmission)) is not None:
        raise ReconstructionError(
            f"phase retrieval: expected finite values, got {transmission[bad].item()} at row "
            f"{bad[0]}, angle {bad[1]}, column {bad[2]}; leave broken frames out"
        )
    blur = _blur(pixel_size, dist, energy)
    _check_positive(alpha=alpha)
    rows, _, columns = transmission.shape
    fringes = math.ceil(4 * math.pi**2 * blur) if pad else 0
    margins = [_margin(n, fringes) if pad else 0 for n in (columns, rows)]
    sides = tuple(m for margin in margins for m in (margin, margin))
    shape = (rows + 2 * margins[1], columns + 2 * margins[0])
    y = torch.fft.fftfreq(shape[0], dtype=torch.float64, device=transmission.device)
    x = torch.fft.rfftfreq(shape[1], dtype=torch.float64, device=transmission.device)
    response = (alpha / (blur * (y[:, None] ** 2 + x**2) + alpha)).float()[..., None]
    retrieved = torch.empty_like(transmission)
    # Frame by frame: a frame is large, and its bits do not depend on those beside.
    for angle in range(transmission.shape[1]):
        frame = F.pad(transmission[None, :, angle], sides, mode="replicate")[0]
        spectrum = torch.view_as_real(torch.fft.rfft2(frame)).mul_(response)
        whole = torch.fft.irfft2(torch.view_as_complex(spectrum), shape)
        retrieved[:, angle] = whole.narrow(0, margins[1], rows).narrow(1, margins[0], columns)
    return retrieved


def reach(
    pixel_size: float, dist: float, energy: float, alpha: float, precision: float = 1e-3
) -> int:
    """Rows beyond which a row has next to no influence on another through `retrieve_phase`.

    The response is that of an exponential decay, with a length of ``sqrt(wavelength * dist / (4 *
    pi * alpha)) / (2 * pi)``.

    Parameters
    ----------
    pixel_size, dist, energy, alpha : float
        As for `retrieve_phase`.
    precision : float
        What the rows beyond would contribute, as a share of the whole.

    Returns
    -------
    int
        Number of rows on each side.
    """
    _check_positive(alpha=alpha, precision=precision)
    length = math.sqrt(_blur(pixel_size, dist, energy) / alpha) / (2 * math.pi)
    return max(1, math.ceil(-length * math.log(min(2 * precision, 1.0))))


def _blur(pixel_size: float, dist: float, energy: float) -> float:
    """``wavelength * dist / (4 * pi)`` in square pixels."""
    _check_positive(pixel_size=pixel_size, dist=dist, energy=energy)
    return _PLANCK_TIMES_LIGHT / energy * dist / (4 * math.pi) / pixel_size**2


def _check_positive(**settings: float) -> None:
    for name, value in settings.items():
        if not (value > 0 and math.isfinite(value)):
            raise ReconstructionError(
                f"phase retrieval: expected a positive {name}, got {value}; pixel_size and dist "
                "are in cm, energy in keV"
            )


def _margin(n: int, fringes: int) -> int:
    return (2 ** math.ceil(math.log2(n + fringes)) - n) // 2
