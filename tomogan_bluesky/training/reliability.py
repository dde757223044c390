"""How far intervals around denoised pixels can be relied on.

Enter: denoised slices, half-widths, and what the slices should have been. Leave: which share of the
errors the intervals hold, over all and where it is hard, how wide they are, and whether pixels that
are said to be uncertain are those that are wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .metrics import field_of_view, sobel_magnitude

_EDGE_SHARE = 0.1  # the strongest tenth of the reference's gradients are its edges
_FLAT_SHARE = 0.5
_REMOVED = np.linspace(0, 0.95, 20)  # shares of the pixels, the most uncertain first

FIGURES = ("coverage", "coverage_edges", "coverage_flat", "width", "width_edges", "ause")


def pixel_kinds(reference: np.ndarray) -> dict[str, np.ndarray]:
    """Pixels of the field of view by kind, bool (y, x): all, edges (the tenth of the steepest
    gradients of the reference) and flat (the half of the least)."""
    inside = field_of_view(len(reference))
    steepness = sobel_magnitude(reference)
    flat, edge = np.quantile(steepness[inside], [_FLAT_SHARE, 1 - _EDGE_SHARE])
    return {
        "all": inside,
        "edges": inside & (steepness > edge),
        "flat": inside & (steepness <= flat),
    }


@dataclass(frozen=True)
class Reliability:
    """The intervals of a model on a set at one dose.

    Attributes
    ----------
    case : str
    dose : float
    method : str
    figures : dict of str to float64 array, shape (slice,)
        Those of `FIGURES`: shares of errors that are held; half-widths as shares of the reference's
        range; and the area between the sparsification curve and the best one there is, as a share
        of the root mean square error (AUSE; Ilg et al., ECCV 2018): 0 is a perfect order.
    """

    case: str
    dose: float
    method: str
    figures: dict[str, np.ndarray]

    def mean(self, name: str) -> float:
        """Mean over slices."""
        return float(self.figures[name].mean())


def reliability(
    case: str,
    dose: float,
    method: str,
    denoised: np.ndarray,
    half_width: np.ndarray,
    reference: np.ndarray,
) -> Reliability:
    """Measure intervals; arrays of shape (slice, y, x) in 1/pixel."""
    rows = [_figures(*of) for of in zip(denoised, half_width, reference, strict=True)]
    columns = zip(*rows, strict=True)
    return Reliability(case, dose, method, dict(zip(FIGURES, map(np.array, columns), strict=True)))


def _figures(
    denoised: np.ndarray, half_width: np.ndarray, reference: np.ndarray
) -> tuple[float, ...]:
    kinds = pixel_kinds(reference)
    error = np.abs(denoised - reference)
    held = error <= half_width
    size = np.ptp(reference[kinds["all"]])
    coverage = [float(held[kinds[kind]].mean()) for kind in ("all", "edges", "flat")]
    widths = [float(half_width[kinds[kind]].mean() / size) for kind in ("all", "edges")]
    return (*coverage, *widths, ause(error[kinds["all"]], half_width[kinds["all"]]))


def ause(error: np.ndarray, uncertainty: np.ndarray) -> float:
    """Area between what is left of the error when the most uncertain pixels are taken away, and
    when the worst are; relative to the error of all. Arrays of shape (pixel,)."""
    squares = error.astype(np.float64) ** 2
    by_uncertainty, best = (
        _left(squares[np.argsort(order, kind="stable")]) for order in (uncertainty, squares)
    )
    whole = by_uncertainty[0]
    return float(np.mean(by_uncertainty - best) / whole) if whole > 0 else 0.0


def _left(squares: np.ndarray) -> np.ndarray:
    """Root mean squares without the last pixels, for each of the shares that are taken away."""
    sums, n = np.cumsum(squares), len(squares)
    kept = np.maximum(1, np.rint((1 - _REMOVED) * n).astype(int))
    left: np.ndarray = np.sqrt(sums[kept - 1] / kept)
    return left


_HEAD = {
    "coverage": "held",
    "coverage_edges": "at edges",
    "coverage_flat": "flat",
    "width": "width/%",
    "width_edges": "at edges",
    "ause": "AUSE",
}


def reliability_table(results: Sequence[Reliability]) -> str:
    """As lines of text. Widths are half-widths, in percent of the reference's range; "worst" is the
    slice of which the least is held."""
    head = f"{'set':12s} {'dose':>6s} {'intervals of':28s}"
    lines = [head + "".join(f"{name:>10s}" for name in _HEAD.values()) + f"{'worst':>8s}"]
    for r in results:
        line = f"{r.case:12s} {r.dose:6g} {r.method:28s}"
        for name in _HEAD:
            percent = name.startswith("width")
            line += f"{100 * r.mean(name):10.2f}" if percent else f"{r.mean(name):10.3f}"
        lines.append(line + f"{r.figures['coverage'].min():8.3f}")
    return "\n".join(lines)
