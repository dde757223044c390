"""Whether a slice looks like those that a model has learned from.

Enters: a reconstructed slice. Leaves: one number, the strangeness: how far off its noise and its
intensities are from those of the slices of the training, in units of how these differ among
themselves. A network says nothing of slices of a kind that it has never seen; neither its denoised
slices nor its uncertainty mean anything there.
"""

from collections.abc import Sequence

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch.nn import functional as F

from .noise import estimate_noise

TRAITS = (
    "noise for its contrast",
    "noise of lower frequencies",
    "noise of middle frequencies",
    "noise beyond what projections sample",
    "median intensity",
    "lower quartile of intensities",
    "lowest intensities",
)
"""What is looked at, in the order of `traits`."""

# Frequencies, in cycles a pixel: the power of the first three is told relative to that of the last.
# A reconstruction from projections has next to nothing in the corners of its spectrum.
_BANDS = ((0.2, 0.3), (0.3, 0.4), (0.52, 0.7), (0.4, 0.5))
_QUANTILES = (0.5, 0.25, 0.01)
_BRIGHT = 0.99  # the quantile that stands for "dense matter"
_INSIDE = 0.9  # of the half width: where a reconstruction means something
_SLACK = 1.5  # strangest of the slices that were seen, times this: still familiar
# Added to all spreads: simulated scans may agree in a trait more than real ones ever do.
_LEAST_SPREAD = 0.2
_MOST = 1e6
# Of the power: what there is less of is as good as nothing.
_NOTHING = 1e-2


def traits(slice_: torch.Tensor) -> np.ndarray:
    """What `TRAITS` names, of one slice: none depends on the units of its pixels.

    Parameters
    ----------
    slice_ : torch.Tensor, float32, shape (y, x)
        Reconstructed, not denoised.

    Returns
    -------
    float64 array, shape (trait,)
        Not finite where there is nothing in the slice.
    """
    # Of pixels four wide, which hold little noise.
    coarse = F.avg_pool2d(slice_[None, None], 4)[0, 0]
    y, x = ((torch.arange(n) - (n - 1) / 2) * 2 / n for n in coarse.shape)
    pixels = coarse[y[:, None] ** 2 + x**2 <= _INSIDE**2].double()
    bright = float(pixels.quantile(_BRIGHT))
    shares = [float(pixels.quantile(q)) for q in _QUANTILES]
    noise = float(estimate_noise(slice_[None]))
    *bands, highest = _power(slice_)
    with np.errstate(divide="ignore", invalid="ignore"):
        spectrum = np.maximum(np.array(bands) / np.float64(highest), _NOTHING)
        levels = np.log([np.float64(noise) / bright, *spectrum])
        return np.concatenate([levels, np.array(shares) / np.float64(bright)])


def _power(slice_: torch.Tensor) -> list[float]:
    """Mean power of a slice in each of `_BANDS`; its border fades out."""
    height, width = slice_.shape
    window = torch.hann_window(height)[:, None] * torch.hann_window(width)
    power = torch.fft.rfft2(window * slice_).abs() ** 2
    frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width))
    return [float(power[(frequency >= a) & (frequency < b)].mean()) for a, b in _BANDS]


class Familiarity(BaseModel):
    """What the slices of a training had in common; on the model's card.

    A Gaussian of the traits; the strangeness is Mahalanobis' distance.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: tuple[float, ...]
    precision: tuple[tuple[float, ...], ...]
    """The inverse of their covariance."""
    limit: float
    """Strangeness beyond which a slice is none that the model knows."""

    @classmethod
    def of(cls, seen: Sequence[np.ndarray]) -> "Familiarity":
        """What slices have in common, from the `traits` of each."""
        table = np.stack(seen)
        spread = np.cov(table, rowvar=False) + _LEAST_SPREAD**2 * np.eye(table.shape[1])
        found = cls(
            mean=tuple(table.mean(0).tolist()),
            precision=tuple(map(tuple, np.linalg.inv(spread).tolist())),
            limit=1.0,
        )
        strangest = max(found.strangeness(row) for row in table)
        return found.model_copy(update={"limit": _SLACK * strangest})

    def strangeness(self, found: np.ndarray) -> float:
        """How strange a slice is, from its `traits`; a million at most, also where these are not
        finite: archives and JSON refuse what is infinite."""
        if not np.isfinite(found).all():
            return _MOST
        off = found - np.array(self.mean)
        return min(float(np.sqrt(off @ np.array(self.precision) @ off)), _MOST)

    def strangest(self, found: np.ndarray) -> str:
        """The trait in which a slice differs most."""
        if not np.isfinite(found).all():
            return "nothing but noise in it, or no noise at all"
        off = np.abs(found - np.array(self.mean))
        spread = np.sqrt(np.diag(np.linalg.inv(np.array(self.precision))))
        return TRAITS[int(np.argmax(off / spread))]
