"""The rotation centre from the Fourier transform of a sinogram.

Enters: sinograms over half a turn. Leaves: the detector column of the rotation axis. A sinogram
followed by its mirror image is one over a full turn, and smooth where they meet, if they are
mirrored at the axis. Then its Fourier transform is confined to a double wedge; what lies outside
measures how wrong a centre is (Vo, Drakopoulos, Atwood and Reinhard, Opt. Express 22, 19078, 2014).
"""

import math

import numpy as np
import torch
from torch.nn import functional as F

from ..errors import RotationCentreError

# The search goes from coarse columns to those of the detector, four times finer each time.
_COARSEST = 128  # columns
_FINER = 4
# Half columns, on either side of the best, that are searched at the finer steps.
_AROUND = 8
_MOST_ANGLES = 384
# Share of the columns, on either side, where the axis is not looked for.
_MARGIN = 0.25
# Half columns, on either side, over which a minimum is the lowest.
_BASIN = 3
# Values of sinograms that are worked on at once.
_BATCH = 1 << 22
# The largest gap in the half turn: two steps, or one degree.
_LARGEST_GAP = math.radians(1)
# Frequencies along the angles, on either side of 0, that the mean shape of the sample fills.
_SLOWEST = 0.05
_MOST_SLOW = 20
# Depth of the minimum over the roughness of the curve (measured). Simulated samples at a tenth of
# the dose have 50 and more. Noise alone reaches 14 over 300 angles, but more over few: there only
# the other methods tell.
_LEAST_DEPTH = 20.0


def centre_by_wedge(attenuation: torch.Tensor, theta: np.ndarray) -> float:
    """The centre for which least of the spectrum lies outside the double wedge.

    Parameters
    ----------
    attenuation : torch.Tensor, float32, shape (row, angle, column)
        One or several sinograms; their mean is used.
    theta : array, shape (angle,)
        Angles in radians, in any order. Those within half a turn from the smallest are used.

    Returns
    -------
    float
        Detector column of the rotation axis.

    Raises
    ------
    RotationCentreError
        Angles that leave a gap in the half turn, or a sinogram without a clear minimum.
    """
    sinogram = _half_turn(attenuation.detach().to(torch.float32).mean(0), np.asarray(theta))
    n = sinogram.shape[1]
    widths = [1]
    while n // widths[-1] > 2 * _COARSEST:
        widths.append(widths[-1] * _FINER)
    centre, reach = (n - 1) / 2, (0.5 - _MARGIN) * n
    for width in reversed(widths):
        binned = _smooth(_binned(sinogram, width))
        middle = 2 * ((centre + 0.5) / width - 0.5) - (binned.shape[1] - 1)
        n_around = max(_AROUND, round(2 * reach / width))
        shifts = range(round(middle) - n_around, round(middle) + n_around + 1)
        outside = _outside(binned, shifts)
        best = _lowest(outside)
        if width == widths[-1]:
            _check_depth(outside)
        shift = shifts[best] + _vertex(outside, best)
        centre = ((binned.shape[1] - 1 + shift) / 2 + 0.5) * width - 0.5
        reach = 0.0
    return centre


def _half_turn(sinogram: torch.Tensor, theta: np.ndarray) -> torch.Tensor:
    """Projections evenly over [first, first + half a turn), at most `_MOST_ANGLES` or twice."""
    order = np.argsort(theta, kind="stable")
    angles = theta[order] - theta.min()
    inside = angles < np.pi - 1e-6
    order, angles = order[inside], angles[inside]
    steps = np.diff(np.append(angles, np.pi))
    if len(order) < 8 or steps.max() > max(2.01 * np.median(steps), _LARGEST_GAP):
        widest = np.rad2deg(steps.max()) if len(steps) else 180.0
        raise RotationCentreError(
            "rotation centre: expected angles all over half a turn for the method 'wedge', got "
            f"{len(order)} of them with a gap of {widest:.4g} degrees; use another method, or give "
            "the rotation centre in the configuration"
        )
    group = max(1, len(order) // _MOST_ANGLES)
    n_groups = len(order) // group
    picked = sinogram[torch.from_numpy(order[: n_groups * group]).to(sinogram.device)]
    grouped = picked.unflatten(0, (n_groups, group)).mean(1).cpu()
    at = angles[: n_groups * group].reshape(n_groups, group).mean(1)
    even = at[0] + np.arange(n_groups) * (np.pi / n_groups)
    place = np.interp(even, at, np.arange(n_groups))
    before = np.minimum(place.astype(int), max(n_groups - 2, 0))
    share = torch.from_numpy(place - before).float()[:, None]
    return (1 - share) * grouped[before] + share * grouped[before + 1]


def _binned(sinogram: torch.Tensor, width: int) -> torch.Tensor:
    n = sinogram.shape[1] // width
    return sinogram[:, : n * width].unflatten(1, (n, width)).mean(2)


def _smooth(sinogram: torch.Tensor) -> torch.Tensor:
    """Binomial smoothing, of standard deviation 1, along both axes: less noise, the same centre."""
    binomial = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    padded = F.pad(sinogram[None, None], (2, 2, 2, 2), mode="replicate")
    return F.conv2d(padded, binomial[:, None] * binomial[None, None, None])[0, 0]


def _outside(sinogram: torch.Tensor, shifts: range) -> torch.Tensor:
    """Mean amplitude outside the wedge for each shift of the mirror image, in columns."""
    n_angles, n = sinogram.shape
    mask = _outside_wedge(2 * n_angles, n)
    # From some frequency along the columns on, nothing is outside.
    kept = int(mask.any(0).nonzero().max()) + 1
    first = torch.fft.rfft(sinogram)[:, :kept]
    mirrored = sinogram.flip(1)
    # Where the mirror image does not reach, what half a turn later looks alike, roughly.
    filled = sinogram.flip(0)
    amplitudes = []
    # Many shifts at once: few large operations suffer less from a busy processor than many small.
    for batch in torch.tensor(shifts).split(max(1, _BATCH // sinogram.numel())):
        source = torch.arange(n) - batch[:, None]
        reached = ((source >= 0) & (source < n))[:, None]
        second = torch.where(reached, mirrored[:, source.remainder(n)].transpose(0, 1), filled)
        rows = torch.fft.rfft(second)[..., :kept]
        turn = torch.cat((first.expand(len(batch), -1, -1), rows), dim=1)
        spectrum = torch.fft.fft(turn, dim=1).abs()
        amplitudes.append((spectrum * mask[:, :kept]).sum((1, 2), dtype=torch.float64))
    return torch.cat(amplitudes) / mask.sum()


def _outside_wedge(n_angles: int, n_columns: int) -> torch.Tensor:
    """1 outside the double wedge: a sample as wide as the detector has no such frequencies."""
    turn = (torch.fft.fftfreq(n_angles) * n_angles).abs()[:, None]
    column = torch.fft.rfftfreq(n_columns)
    slow = min(_MOST_SLOW, math.ceil(_SLOWEST * n_angles))
    radius = n_columns / 2
    return (
        (turn > 2 * math.pi * radius * column) & (turn > slow) & (column > 1 / n_columns)
    ).float()


def _lowest(values: torch.Tensor) -> int:
    """Index of the lowest minimum that is not at an end.

    Towards the ends the mirror images share nothing but air, which agrees with anything.
    """
    lowest_around = -F.max_pool1d(-values[None], 2 * _BASIN + 1, stride=1, padding=_BASIN)[0]
    minima = (values == lowest_around).nonzero()[:, 0]
    inside = minima[(minima >= _BASIN) & (minima < len(values) - _BASIN)]
    return int(inside[values[inside].argmin()] if len(inside) else values.argmin())


def _vertex(values: torch.Tensor, best: int) -> float:
    """Position of the minimum beside `best`, by a parabola through 5 values; 0 at an end."""
    if not 2 <= best < len(values) - 2:
        return 0.0
    around, place = values[best - 2 : best + 3], torch.arange(-2.0, 3.0, dtype=torch.float64)
    slope = float((place * around).sum()) / 10
    curvature = float(((place**2 - 2) * around).sum()) / 14
    return max(-1.0, min(1.0, -slope / (2 * curvature))) if curvature > 0 else 0.0


def _check_depth(outside: torch.Tensor) -> None:
    rough = outside.diff(n=2).abs().median()
    depth = float((outside.median() - outside.min()) / rough) if rough > 0 else 0.0
    if depth < _LEAST_DEPTH:
        raise RotationCentreError(
            "rotation centre: expected a clear minimum outside the double wedge, but it is only "
            f"{depth:.1f} times as deep as the curve is rough ({_LEAST_DEPTH:g} are needed); see "
            "whether there is a sample in the beam, or give the rotation centre in the "
            "configuration"
        )
