"""The rotation centre: found in several ways, and trusted as far as these agree.

Enters: angles and attenuation. Leaves: the detector column of the rotation axis. `find_centre` asks
all methods that apply. The first of them is here: of two projections half a turn apart, the later
one, mirrored, is the earlier one shifted by twice the distance of the axis from the detector's
middle. The others are in `wedge` and `centroid`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch.nn import functional as F

from ..errors import ReconstructionError, RotationCentreError
from ..geometry import ScanGeometry
from .centroid import centre_by_centroid
from .checks import check_stack, first_not_finite
from .wedge import centre_by_wedge

if TYPE_CHECKING:  # reconstruction needs numpy and torch only, and this needs pydantic
    from ..config import CentreMethod

AGREEMENT = 1.0
"""Most columns between the results of the methods for them to agree. On simulated scans at a tenth
of the dose each is within 0.3 of the truth, nearly always; half a column is visible in a slice."""
_UNCONFIRMED = 0.4

# Of a column, that are kept of what a method finds: far below what matters, and above what sums in
# another order change. So a scan has the same centre with any number of threads.
_DECIMALS = 3

# Beyond 5 degrees from half a turn, the two projections show the sample too differently.
_LARGEST_MISS = math.radians(5)
# The mirrored projections must share at least this part of the columns: a chance agreement of few
# columns is easily found.
_LEAST_OVERLAP = 0.25
# Binomial smoothing along the columns, of standard deviation 1 column. On simulated scans of few
# photons it halves the error, and it moves no centre.
_SMOOTHING = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
# Share of the values that are still independent after it: 1 / sum of squared correlations.
_INDEPENDENT = 0.28
# Two projections of pure noise reach about 4 standard deviations somewhere (measured on 64 to 2048
# columns and 1 to 8 rows).
_LEAST_SIGNIFICANCE = 6.0


@dataclass(frozen=True)
class CentreEstimate:
    """A rotation centre, and why to trust it."""

    centre: float
    """Detector column of the rotation axis."""
    confidence: float
    """In [0, 1]; from 0.5 on exactly if `agreed`."""
    methods: dict[CentreMethod, float]
    """What each method that applies has found, to a thousandth of a column."""
    agreed: bool
    """Whether two methods at least have been asked, and are all within `AGREEMENT`."""
    reason: str
    """What the confidence rests on, and which methods did not apply and why."""


def find_centre(
    attenuation: torch.Tensor,
    theta: np.ndarray,
    method: Literal["auto"] | CentreMethod = "auto",
) -> CentreEstimate:
    """Find the rotation centre, and say how far it is to be trusted.

    Of methods that agree, the median is taken, and the confidence falls linearly with their spread:
    from 1 to 0.5 at `AGREEMENT`, and to 0 at twice that. Of two that do not agree the centre is
    that of the first, in the order of `methods`, and of three the median, with the low confidence
    that the spread deserves. A single method is given a confidence of 0.4, for nothing confirms it.

    Parameters
    ----------
    attenuation : torch.Tensor, float32, shape (row, angle, column)
        A few rows with much of the sample in them; 8 are plenty.
    theta : array, shape (angle,)
        Angles in radians, in any order.
    method : {"auto", "pair", "wedge", "centroid"}
        "auto" asks all three.

    Returns
    -------
    CentreEstimate

    Raises
    ------
    RotationCentreError
        No method applies, or none finds anything.
    ReconstructionError, AnglesError
        Shapes that do not belong together, values that are not finite, angles in degrees.
    """
    if attenuation.ndim != 3 or 0 in attenuation.shape:
        raise ReconstructionError(
            "rotation centre: expected attenuation (row, angle, column), got "
            f"{tuple(attenuation.shape)}"
        )
    n_columns = attenuation.shape[2]
    geometry = ScanGeometry(theta, (n_columns - 1) / 2, n_columns)
    shape = (geometry.n_angles, n_columns)
    check_stack(attenuation, shape, "attenuation", ("slice", "angle", "column"))
    found: dict[CentreMethod, float] = {}
    failed: list[str] = []
    for name, centre_by in _METHODS.items():
        if method in ("auto", name):
            try:
                found[name] = round(centre_by(attenuation, geometry.theta), _DECIMALS)
            except RotationCentreError as error:
                failed.append(f"'{name}' failed: {str(error).removeprefix('rotation centre: ')}")
    if not found:
        raise RotationCentreError(
            "rotation centre: expected at least one method to find it, but " + "; ".join(failed)
        )
    centres = list(found.values())
    spread = max(centres) - min(centres)
    agreed = len(centres) > 1 and spread <= AGREEMENT
    listed = ", ".join(f"{name} {centre:.2f}" for name, centre in found.items())
    if len(centres) == 1:
        verdict = f"nothing confirms {listed}"
    else:
        does = "agree" if agreed else "do not agree"
        verdict = f"{listed} {does} to within {AGREEMENT:g} columns: {spread:.2f} apart"
    return CentreEstimate(
        centre=median(centres) if agreed or len(centres) > 2 else centres[0],
        confidence=max(0.0, 1 - spread / (2 * AGREEMENT)) if len(centres) > 1 else _UNCONFIRMED,
        methods=found,
        agreed=agreed,
        reason="; ".join((verdict, *failed)),
    )


def opposed_pair(theta: np.ndarray) -> tuple[int, int]:
    """The two projections that are closest to half a turn apart.

    Scans over half a turn often leave its last angle out, so that the best pair is one angular
    step short; it is accepted. The centre it gives is off by the share of the sample's own
    displacement in that step, at most ``radius * step / 2``.

    Parameters
    ----------
    theta : array, shape (angle,)
        Angles in radians, in any order, over any number of turns.

    Returns
    -------
    tuple of int
        Indices (first, second), in ascending order.

    Raises
    ------
    RotationCentreError
        No two projections are half a turn apart, within one median angular step and 5 degrees.
    """
    theta = np.asarray(theta, dtype=np.float64)
    if len(theta) < 2:
        raise RotationCentreError(
            f"rotation centre: expected two projections half a turn apart, got {len(theta)} "
            "projection; give the rotation centre in the configuration"
        )
    turn = 2 * np.pi
    phase = theta % turn
    order = np.argsort(phase, kind="stable")
    place = np.searchsorted(phase[order], (theta + np.pi) % turn)
    neighbours = order[np.stack((place - 1, place % len(theta)))]
    # Rounded, so that among equals the first pair of the scan is taken, not the luckiest rounding.
    miss = np.abs((phase[neighbours] - phase) % turn - np.pi).round(9)
    first = int(miss.min(axis=0).argmin())
    side = int(miss[:, first].argmin())
    second = int(neighbours[side, first])
    steps = np.diff(np.unique(phase.round(9)))
    allowed = min(1.01 * float(np.median(steps)), _LARGEST_MISS) if len(steps) else 0.0
    if miss[side, first] > allowed:
        apart = np.rad2deg(np.abs(np.pi - miss[side, first]))
        raise RotationCentreError(
            "rotation centre: expected two projections 180 degrees apart, to within "
            f"{np.rad2deg(allowed):.4g} degrees, but the closest are projections {first} and "
            f"{second}, {apart:.4g} degrees apart; give the rotation centre in the configuration, "
            "or record a projection at 180 degrees"
        )
    return min(first, second), max(first, second)


def centre_from_pair(first: torch.Tensor, second: torch.Tensor) -> float:
    """The rotation centre from two projections that are half a turn apart.

    The correlation coefficient of the one with the mirrored other, over the columns that they
    share, is computed for each shift; its maximum is located between the columns by a parabola.

    Parameters
    ----------
    first, second : torch.Tensor, shape (row, column)
        Attenuation, or transmission.

    Returns
    -------
    float
        Detector column of the rotation axis.

    Raises
    ------
    RotationCentreError
        Projections of different shapes, with values that are not finite, or in which nothing is
        found again: too noisy, no sample in the beam, or an axis too close to the detector's edge.
    """
    if first.ndim != 2 or first.shape != second.shape:
        raise RotationCentreError(
            "rotation centre: expected two projections (row, column) of the same shape, got "
            f"{tuple(first.shape)} and {tuple(second.shape)}"
        )
    for name, image in (("first", first), ("second", second)):
        if (bad := first_not_finite(image)) is not None:
            raise RotationCentreError(
                f"rotation centre: expected finite values, but the {name} projection has "
                f"{image[bad].item()} at row {bad[0]}, column {bad[1]}"
            )
    n_columns = first.shape[1]
    correlation, count = _correlation(_smoothed(first), _smoothed(second).flip(1))
    freedom = (_INDEPENDENT * count - 3).clamp_min(0)
    # Fisher's transformation: standard deviations from what unrelated images give.
    significance = torch.atanh(correlation.clamp(-0.999999, 0.999999)) * freedom.sqrt()
    best = int(significance.argmax())
    if significance[best] < _LEAST_SIGNIFICANCE or not 0 < best < len(correlation) - 1:
        raise RotationCentreError(
            "rotation centre: expected to find the first projection again in the mirrored second "
            f"one, but their best agreement is a correlation of {correlation[best]:.2f} "
            f"({significance[best]:.1f} standard deviations, {_LEAST_SIGNIFICANCE:g} are needed); "
            "see whether there is a sample in the beam, or give the rotation centre in the "
            "configuration"
        )
    below, at, above = correlation[best - 1 : best + 2].tolist()
    curvature = 2 * at - below - above
    shift = best - len(correlation) // 2 + ((above - below) / (2 * curvature) if curvature else 0)
    return (n_columns - 1 + shift) / 2


def _smoothed(image: torch.Tensor) -> torch.Tensor:
    values = image.detach().to("cpu", torch.float64)
    kernel = torch.tensor(_SMOOTHING, dtype=torch.float64)[None, None]
    margin = len(_SMOOTHING) // 2
    padded = F.pad(values[:, None], (margin, margin), mode="replicate")
    smooth = F.conv1d(padded, kernel)[:, 0]
    return smooth - smooth.mean()


def _correlation(fixed: torch.Tensor, moved: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Correlation coefficients of `fixed[:, j + shift]` with `moved[:, j]`.

    Returns
    -------
    correlation, count : torch.Tensor, float64, shape (2 * largest + 1,)
        For the shifts -largest ... largest that leave enough overlap, and the number of values in
        the overlap. 0 where an image is constant there.
    """
    n = fixed.shape[1]
    largest = math.floor(n * (1 - _LEAST_OVERLAP))
    everywhere = torch.ones_like(fixed)

    def sums(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        spectrum = torch.fft.rfft(a, 2 * n) * torch.fft.rfft(b, 2 * n).conj()
        all_shifts = torch.fft.irfft(spectrum.sum(0), 2 * n)
        return torch.cat((all_shifts[-largest:], all_shifts[: largest + 1]))

    count = sums(everywhere, everywhere)
    sum_fixed, sum_moved = sums(fixed, everywhere), sums(everywhere, moved)
    covariance = sums(fixed, moved) - sum_fixed * sum_moved / count
    power = torch.sqrt(
        (sums(fixed**2, everywhere) - sum_fixed**2 / count).clamp_min(0)
        * (sums(everywhere, moved**2) - sum_moved**2 / count).clamp_min(0)
    )
    # What is left of a constant image is rounding.
    constant = power <= 1e-9 * torch.sqrt(fixed.square().sum() * moved.square().sum())
    return torch.where(constant, 0.0, covariance / power.clamp_min(1e-300)), count


def _centre_by_pair(attenuation: torch.Tensor, theta: np.ndarray) -> float:
    first, second = opposed_pair(theta)
    return centre_from_pair(attenuation[:, first], attenuation[:, second])


_METHODS: dict[CentreMethod, Callable[[torch.Tensor, np.ndarray], float]] = {
    "pair": _centre_by_pair,
    "wedge": centre_by_wedge,
    "centroid": centre_by_centroid,
}
