"""The rotation centre from the sinogram's centre of mass.

Enters: sinograms over any angles. Leaves: the detector column of the rotation axis. The centre of
mass of each projection is that of the sample, projected: over the angles it follows a sinusoid
about the axis (the first of the conditions of Helgason and Ludwig). All projections take part, and
none must be half a turn from another; but the whole sample must be in the field of view.
"""

import numpy as np
import torch
from torch.nn import functional as F

from ..errors import RotationCentreError

# Share of the columns, on either side, that must see air, and their most attenuation there, as a
# share of the sample's largest.
_AIR = 0.02
_MOST_IN_AIR = 0.03
# Angles over which it is averaged before it is judged: noise must not decide.
_JUDGED_TOGETHER = 5
_LARGEST_ERROR = 0.5  # columns


def centre_by_centroid(attenuation: torch.Tensor, theta: np.ndarray) -> float:
    """The constant of the sinusoid that the centre of mass follows.

    A straight line between the air on both sides is subtracted from each projection first.

    Parameters
    ----------
    attenuation : torch.Tensor, float32, shape (row, angle, column)
        One or several sinograms; their mean is used.
    theta : array, shape (angle,)
        Angles in radians, in any order.

    Returns
    -------
    float
        Detector column of the rotation axis.

    Raises
    ------
    RotationCentreError
        A sample that is wider than the field of view, too few or too close angles, or too much
        noise.
    """
    sinogram = attenuation.detach().to(torch.float32).mean(0).cpu()
    n_angles, n = sinogram.shape
    left, right = _air(sinogram)
    sinogram = sinogram.double()
    ends = sinogram[:, :left].mean(1), sinogram[:, n - right :].mean(1)
    column = torch.arange(n, dtype=torch.float64)
    share = (column - (left - 1) / 2) / (n - (left + right) / 2)
    mass = sinogram - torch.outer(ends[0], 1 - share) - torch.outer(ends[1], share)
    mass, column = mass[:, left : n - right], column[left : n - right]
    centroid = ((mass @ column) / mass.sum(1)).numpy()
    waves = np.stack((np.ones_like(theta), np.cos(theta), np.sin(theta)), axis=1)
    fit, _, rank, _ = np.linalg.lstsq(waves, centroid)
    error = np.inf
    if rank == 3 and n_angles > 3:
        variance = np.square(centroid - waves @ fit).sum() / (n_angles - 3)
        error = float(np.sqrt(variance * np.linalg.inv(waves.T @ waves)[0, 0]))
    if not error <= _LARGEST_ERROR:
        raise RotationCentreError(
            "rotation centre: expected the sample's centre of mass to follow a sinusoid over the "
            f"angles, but its middle is uncertain by {error:.3g} columns ({_LARGEST_ERROR:g} are "
            f"allowed) over {n_angles} angles; use another method, or give the rotation centre in "
            "the configuration"
        )
    return float(fit[0])


def _air(sinogram: torch.Tensor) -> tuple[int, int]:
    """Numbers of columns on the left and on the right that see air at all angles."""
    n_angles, n = sinogram.shape
    band = max(1, round(_AIR * n))
    window = (min(_JUDGED_TOGETHER, n_angles), band)
    seen = F.avg_pool2d(sinogram[None], window, stride=1)[0].abs().amax(0)
    largest = float(sinogram.mean(0).max())
    sample = (seen > _MOST_IN_AIR * largest).nonzero()[:, 0]
    if len(sample) == 0 or sample[0] == 0 or sample[-1] == len(seen) - 1:
        raise RotationCentreError(
            "rotation centre: expected air on both sides of the sample for the method 'centroid', "
            f"but the outermost {band} columns attenuate {float(seen[0]):.3g} and "
            f"{float(seen[-1]):.3g}, of {max(largest, 0.0):.3g} at most; use another method, or "
            "give the rotation centre in the configuration"
        )
    # Next to the sample, what is faint may still be the sample.
    free = int(sample[0]) - band, len(seen) - 1 - int(sample[-1]) - band
    return max(band, free[0]), max(band, free[1])
