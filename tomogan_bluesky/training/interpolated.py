"""Slices as a back-projection that interpolates linearly would show them.

Enter: slices of gridrec and what they should have been. Leave: their scores, and those of the same
slices as smooth as a back-projection makes them that interpolates linearly between the columns of a
filtered projection. That convolves it with a triangle two columns wide, which by the Fourier slice
theorem multiplies the spectrum of the slice, signal and noise alike, by sinc² of the frequency.
What it aliases besides, noise for the most part, is left out. Figures of image quality can only be
compared where slices are equally smooth.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from .pinned import PinnedSlices
from .scoring import Result, score

LINEAR = "-linear"
"""What the name of a pinned set ends with, when it is seen so."""


def interpolated(images: np.ndarray) -> np.ndarray:
    """Slices through sinc² of the radial frequency: float32, shape (slice, y, x), any unit."""
    height, width = images.shape[1:]
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    spectrum = np.fft.rfft2(images) * np.sinc(frequency) ** 2
    return np.fft.irfft2(spectrum, (height, width)).astype(np.float32)


class Views:
    """Scores what was made of a pinned set, and does so again as it would look interpolated.

    Parameters
    ----------
    case : str
        Name of the set.
    slices : PinnedSlices
    linear : bool
        Whether to give the second view too, whose case ends with `LINEAR`.
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
        """One result a view: see `scoring.score`."""
        yield score(self._case, dose, method, images, self._slices, ms_a_slice, share)
        if self._linear is not None:
            case, seen = self._case + LINEAR, interpolated(images)
            yield score(case, dose, method, seen, self._linear, ms_a_slice, share)
