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

from ..denoise.noise import estimate_noise

TRAITS = (
    "noise for its contrast",
    "noise of one pixel against that of two",
    "noise of two pixels against that of four",
    "median intensity",
    "lower quartile of intensities",
    "intensities below zero",
)
"""What is looked at, in the order of `traits`."""

_BRIGHT = 0.99
_INSIDE = 0.9  # of the half width: where a reconstruction means something
_SLACK = 1.5  # strangest of the slices that were seen, times this: still familiar
# Added to all spreads: simulated scans may agree in a trait more than real ones ever do.
_LEAST_SPREAD = 0.02


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
    half, quarter = (F.avg_pool2d(slice_[None, None], n)[0] for n in (2, 4))
    noise, noise_2, noise_4 = (float(estimate_noise(s)) for s in (slice_[None], half, quarter))
    # Of pixels four wide, which hold little noise.
    pixels = quarter[0][_disc(quarter.shape[1:]).to(quarter.device)]
    bright, median, lower, lowest = (float(pixels.quantile(q)) for q in (_BRIGHT, 0.5, 0.25, 0.01))
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.array([median, lower, lowest]) / np.float64(bright)
        levels = np.log(np.array([noise, noise, noise_2]) / np.array([bright, noise_2, noise_4]))
    return np.concatenate([levels, shares])


def _disc(shape: torch.Size) -> torch.Tensor:
    y, x = ((torch.arange(n) - (n - 1) / 2) * 2 / n for n in shape)
    return y[:, None] ** 2 + x**2 <= _INSIDE**2


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
        """How strange a slice is, from its `traits`; infinite where these are not finite."""
        if not np.isfinite(found).all():
            return float("inf")
        off = found - np.array(self.mean)
        return float(np.sqrt(off @ np.array(self.precision) @ off))

    def strangest(self, found: np.ndarray) -> str:
        """The trait in which a slice differs most."""
        if not np.isfinite(found).all():
            return "nothing but noise in it, or no noise at all"
        off = np.abs(found - np.array(self.mean))
        spread = np.sqrt(np.diag(np.linalg.inv(np.array(self.precision))))
        return TRAITS[int(np.argmax(off / spread))]
