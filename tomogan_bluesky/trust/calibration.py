"""Half-widths that hold what they promise, by split-conformal calibration.

Enter: what a network says of its errors, and the errors that it made on slices that it has not
learned from. Leave: factors, one for each range of noise, by which its scales become half-widths of
intervals; they travel on the model's card.

The factor of a range is the smallest with which the mean miscoverage of n units (slices, or whole
volumes), with one more that is missed altogether, is as low as promised (conformal risk control,
Angelopoulos et al., ICLR 2024): then a new unit of the same kind is expected to be covered as
promised. It is so at edges, in flat parts, and over all: the largest of the three factors is taken,
since intervals that hold "on average" hold in the flat parts that nobody asks about.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

logger = logging.getLogger(__name__)

FACTORS = np.geomspace(0.1, 30.0, 600)
"""Among which the smallest sufficient one is looked for."""

_BRIGHT = 0.99  # the quantile of a slice that stands for "dense matter", as in training
_SAMPLES = 256  # along each axis, at least, from which it is taken


class Calibration(BaseModel):
    """Factors by range of noise (see `noise_for_contrast`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    coverage: float = Field(gt=0, lt=1)
    """Share of the errors that the intervals hold."""
    noise: tuple[float, ...] = ()
    """Where one range ends and the next one begins, ascending."""
    factors: tuple[float, ...]
    """From the network's scale to a half-width."""
    noise_factors: tuple[float, ...]
    """From the estimated noise of a reconstructed slice to a half-width of that slice."""
    units: tuple[int, ...]
    """Slices, or volumes, that were not learned from and that the factors are of."""
    errors: str = ""
    """What the errors are distances to."""

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        n = len(self.noise) + 1
        if not n == len(self.factors) == len(self.noise_factors) == len(self.units):
            raise ValueError(f"expected {n} factors of each kind, for {n} ranges of noise")
        return self

    def factor(self, noise_for_contrast: float) -> float:
        """From the network's scale to a half-width, at that noise."""
        return self.factors[int(np.searchsorted(self.noise, noise_for_contrast))]

    def noise_factor(self, noise_for_contrast: float) -> float:
        """From the noise of a reconstructed slice to a half-width, at that noise."""
        return self.noise_factors[int(np.searchsorted(self.noise, noise_for_contrast))]


def noise_for_contrast(denoised: torch.Tensor, noise: float) -> float:
    """Noise of a slice in units of its dense matter: what decides on the factor.

    Parameters
    ----------
    denoised : torch.Tensor, shape (y, x)
        In 1/pixel.
    noise : float
        Of the slice that it was made from, in 1/pixel.

    Returns
    -------
    float
        Infinite for a slice of nothing.
    """
    step = max(1, min(denoised.shape) // _SAMPLES)
    bright = float(denoised[::step, ::step].abs().flatten().quantile(_BRIGHT))
    return noise / bright if bright > 0 else float("inf")


@dataclass(frozen=True, eq=False)
class Misses:
    """What one slice would miss with each of `FACTORS`.

    Attributes
    ----------
    unit : int
        Which the slice belongs to: slices of one unit are not independent.
    noise_for_contrast : float
    of_scale, of_noise : dict of str to array, shape (factor,)
        Share of the pixels whose error is beyond the factor times the network's scale, or times the
        slice's noise without denoising; by kind of pixel.
    """

    unit: int
    noise_for_contrast: float
    of_scale: Mapping[str, np.ndarray]
    of_noise: Mapping[str, np.ndarray]


def misses(ratio: np.ndarray, kinds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Share of the pixels that each of `FACTORS` misses, by kind.

    Parameters
    ----------
    ratio : array, shape (pixel,)
        Error over scale.
    kinds : mapping of str to bool array, shape (pixel,)
    """
    found = {}
    for kind, chosen in kinds.items():
        ordered = np.sort(ratio[chosen])
        found[kind] = 1 - np.searchsorted(ordered, FACTORS, side="right") / max(1, len(ordered))
    return found


def calibrate(
    slices: Sequence[Misses], coverage: float, n_ranges: int = 5, errors: str = ""
) -> Calibration:
    """The factors of a network, from slices that it has not learned from.

    Parameters
    ----------
    slices : sequence of Misses
    coverage : float
    n_ranges : int
        Of noise, with as many slices in each; fewer where some of them would have too few units for
        the promise to be kept for new ones.
    errors : str
        What they are distances to, for the card.
    """
    fewest = _fewest(coverage)
    for n in range(n_ranges, 0, -1):
        borders = np.quantile([s.noise_for_contrast for s in slices], np.arange(1, n) / n)
        parts = _parts(slices, borders)
        units = [len({s.unit for s in part}) for part in parts]
        if min(units) >= fewest:
            break
    if min(units) < fewest:
        logger.warning(
            "calibration: expected %d slices or volumes that are independent, got %d: the "
            "intervals hold %.0f %% for these, and there is no promise for others",
            *(fewest, min(units), 100 * coverage),
        )
    return Calibration(
        coverage=coverage,
        noise=tuple(borders.tolist()),
        factors=tuple(_sufficient([(s.unit, s.of_scale) for s in p], coverage) for p in parts),
        noise_factors=tuple(
            _sufficient([(s.unit, s.of_noise) for s in p], coverage) for p in parts
        ),
        units=tuple(units),
        errors=errors,
    )


def _fewest(coverage: float) -> int:
    """Units with which one that is missed altogether leaves something of what may be missed."""
    return int(np.ceil(1 / (1 - coverage) - 1e-9))


def _parts(slices: Sequence[Misses], borders: np.ndarray) -> list[list[Misses]]:
    found: list[list[Misses]] = [[] for _ in range(len(borders) + 1)]
    for slice_ in slices:
        found[int(np.searchsorted(borders, slice_.noise_for_contrast))].append(slice_)
    return found


def _sufficient(slices: list[tuple[int, Mapping[str, np.ndarray]]], coverage: float) -> float:
    """The smallest of `FACTORS` that is enough for every kind of pixel."""
    units = {unit for unit, _ in slices}
    factors = []
    for kind in slices[0][1]:
        by_unit = [np.mean([m[kind] for u, m in slices if u == unit], 0) for unit in units]
        n = len(by_unit)
        risk = np.mean(by_unit, 0)
        if n >= _fewest(coverage):
            risk = (n * risk + 1) / (n + 1)
        enough = np.flatnonzero(risk <= 1 - coverage)
        factors.append(FACTORS[enough[0]] if len(enough) else FACTORS[-1])
    return float(max(factors))
