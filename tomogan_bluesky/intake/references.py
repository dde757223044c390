"""Dark and flat references of a scan.

Enter: the dark or flat frames of a run. Leaves: one mean frame.
"""

from collections.abc import Sequence

import numpy as np


def mean_frame(frames: Sequence[np.ndarray]) -> np.ndarray:
    """Mean of reference frames, summed in float64 in the given order.

    Parameters
    ----------
    frames : sequence of arrays, each (row, column), any real dtype

    Returns
    -------
    float32 array, shape (row, column)
    """
    total = np.zeros(frames[0].shape, dtype=np.float64)
    for frame in frames:
        total += frame
    return (total / len(frames)).astype(np.float32)
