"""Slices as a back-projection that interpolates linearly would show them.

Enter: slices of gridrec and what they should have been. Leave: their scores, and the scores of the
same slices after smoothing. A back-projection that interpolates linearly between the columns of a
filtered projection convolves the projection with a triangle two columns wide. By the Fourier slice
theorem this multiplies the spectrum of the slice, signal and noise alike, by sinc² of the
frequency. Such a back-projection also aliases, noise for the most part; that is not imitated.
Figures of image quality can only be compared where slices are equally smooth.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from .pinned import PinnedSlices
from .scoring import Result, score

LINEAR = "-linear"
"""Ends the name of a pinned set whose slices are smoothed so."""


def interpolated(images: np.ndarray) -> np.ndarray:
    """Slices smoothed by sinc² of the radial frequency: float32, shape (slice, y, x), any unit."""
    height, width = images.shape[1:]
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    spectrum = np.fft.rfft2(images) * np.sinc(frequency) ** 2
    return np.fft.irfft2(spectrum, (height, width)).astype(np.float32)


class Views:
    """Scores images of a pinned set as they are, and again smoothed by `interpolated`.

    Parameters
    ----------
    case : str
        Name of the set.
    slices : PinnedSlices
    linear : bool
        Whether to give the second score too, under the name of the set with `LINEAR` behind it.
    """

    def __init__(self, case: str, slices: PinnedSlices, linear: bool) -> None:
        self._case, self._slices = case, slices
        self._linear: PinnedSlices | None = None
        if linear:
            clean, full_dose = interpolated(slices.clean), interpolated(slices.full_dose)
            self._linear = replace(slices, clean=clean, full_dose=full_dose)

    def score(
        self,
        dose: float,
        method: str,
        images: np.ndarray,
        ms_a_slice: float | None = None,
        share: float = 1.0,
    ) -> Iterator[Result]:
        """One result, or two: see `scoring.score`."""
        yield score(self._case, dose, method, images, self._slices, ms_a_slice, share)
        if self._linear is not None:
            case, seen = self._case + LINEAR, interpolated(images)
            yield score(case, dose, method, seen, self._linear, ms_a_slice, share)
