"""How much slices jump from one to the next, where the sample does not.

Enters: a volume and its truth, arrays (slice, y, x). Leaves: one number.
"""

import numpy as np

from ..errors import ConfigurationError
from .metrics import field_of_view


def jumps(volume: np.ndarray, reference: np.ndarray) -> float:
    """Variance of the difference of neighbours, against that of the truth.

    ``var((v[i + 1] - v[i]) - (r[i + 1] - r[i]))`` inside the field of view, over the square of the
    reference's range. Errors that neighbours share do not count: it is what the eye sees flicker
    when it scrolls through a volume, and a seam when it looks from the side.

    Raises
    ------
    ConfigurationError
        Volumes of different shapes, or of fewer than two slices.
    """
    if volume.shape != reference.shape or volume.ndim != 3 or len(volume) < 2:
        raise ConfigurationError(
            "jumps: expected two volumes (slice, y, x) of one shape and at least two slices, got "
            f"{volume.shape} and {reference.shape}"
        )
    inside = field_of_view(volume.shape[1])
    error = np.asarray(volume, np.float64) - reference
    steps = np.diff(error, axis=0)[:, inside]
    return float(steps.var() / np.ptp(reference[:, inside]) ** 2)
