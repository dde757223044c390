"""How much noise there is in a slice, told from the slice alone.

Enter: slices (slice, y, x). Leaves: the standard deviation of the noise of each.
"""

import torch

from ..errors import ModelError

# Noise is looked for within this fraction of the half width around the centre, where the sample
# is: outside the circle that all projections see, a reconstruction means nothing.
_NOISE_RADIUS = 0.7
# Median of the absolute value of a standard normal variable.
_NORMAL_MAD = 0.6745


def estimate_noise(slices: torch.Tensor) -> torch.Tensor:
    """Standard deviation of the noise of each slice, blind.

    The median absolute value of the diagonal details of the Haar transform (Donoho and Johnstone,
    Biometrika 81, 425, 1994), within a disc around the centre. Reconstruction noise is not white,
    so this is a level rather than the exact deviation: networks are trained with the same one.

    Parameters
    ----------
    slices : torch.Tensor, float32, shape (N, H, W)
        H and W at least 2; on any device.

    Returns
    -------
    torch.Tensor, float32, shape (N,)
        In the slices' units, on their device.

    Raises
    ------
    ModelError
        An input of another shape.
    """
    if slices.ndim != 3 or min(slices.shape[1:]) < 2:
        raise ModelError(
            "slices: expected (slice, y, x) with at least 2 x 2 pixels to estimate noise from, got "
            f"{tuple(slices.shape)}"
        )
    height, width = (n // 2 for n in slices.shape[1:])
    even = slices[:, : 2 * height, : 2 * width]
    details = (
        even[:, ::2, ::2] - even[:, 1::2, ::2] - even[:, ::2, 1::2] + even[:, 1::2, 1::2]
    ) / 2
    y, x = ((torch.arange(n, device=slices.device) - (n - 1) / 2) * 2 / n for n in (height, width))
    disc = y[:, None] ** 2 + x**2 <= _NOISE_RADIUS**2
    return details[:, disc].abs().median(dim=1).values / _NORMAL_MAD
