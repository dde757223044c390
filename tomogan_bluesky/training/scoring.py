"""What a method makes of a pinned set, in numbers.

Enters: denoised slices and the `PinnedSlices` they came from. Leave: scores of each slice, against
the noise-free reconstruction and against a second scan at full dose, and tables of their means.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .continuity import jumps
from .metrics import edge_f1, edge_fidelity, frc_frequency, psnr, ssim
from .pinned import PinnedSlices

Score = Callable[[np.ndarray, np.ndarray], float]

NOISY = "noisy"
"""The method that does nothing: every other one is read beside it."""

SCORES: Mapping[str, tuple[Score, str]] = {
    "psnr": (psnr, "dB"),
    "ssim": (ssim, ""),
    "edge_fidelity": (edge_fidelity, ""),
    "edge_f1": (edge_f1, ""),
    "frc": (frc_frequency, "cycles/pixel"),
}
"""Scores and their units."""

JUMPS = "jumps"
"""See `continuity.jumps`; lower is better."""

_AGAINST_FULL_DOSE = ("psnr", "ssim")


@dataclass(frozen=True, eq=False)
class Result:
    """A method on a pinned set at one dose.

    Attributes
    ----------
    case : str
        Name of the set.
    dose : float
        As a fraction of the full one.
    method : str
    families : tuple of str
        Of each slice.
    scores : dict of str to float64 array, shape (slice,)
        Those of `SCORES`, and ``psnr_full`` and ``ssim_full`` against the second full dose; where
        slices are neighbours, `JUMPS` of the sample that each is of.
    ms_a_slice : float or None
        Wall time, where it was measured.
    share : float
        How much of a model's result there is; the rest is the noisy slice (see `harmless`).
    """

    case: str
    dose: float
    method: str
    families: tuple[str, ...]
    scores: Mapping[str, np.ndarray]
    ms_a_slice: float | None = None
    share: float = 1.0

    def mean(self, score: str, family: str | None = None) -> float:
        """Mean over all slices, or over those of a family."""
        chosen = [family in (None, f) for f in self.families]
        return float(np.mean(self.scores[score][chosen]))


def score(
    case: str,
    dose: float,
    method: str,
    images: np.ndarray,
    slices: PinnedSlices,
    ms_a_slice: float | None = None,
    share: float = 1.0,
) -> Result:
    """Score denoised slices, shape (slice, y, x) in 1/pixel, one for each of the set; those that
    are there as neighbours alone are left out."""
    parts = slices.scored()

    def of_each(measure: Score, reference: np.ndarray) -> np.ndarray:
        pairs = ((images[i], reference[i]) for p in parts for i in range(p.start, p.stop))
        return np.array([measure(a, b) for a, b in pairs])

    scores = {name: of_each(measure, slices.clean) for name, (measure, _) in SCORES.items()}
    for name in _AGAINST_FULL_DOSE:
        scores[f"{name}_full"] = of_each(SCORES[name][0], slices.full_dose)
    if slices.adjacent and all(p.stop - p.start > 1 for p in parts):
        of_samples = [jumps(images[p], slices.clean[p]) for p in parts]
        scores[JUMPS] = np.repeat(of_samples, [p.stop - p.start for p in parts])
    families = tuple(f for p in parts for f in slices.families[p])
    return Result(case, dose, method, families, scores, ms_a_slice, share)


def baseline(results: Sequence[Result], result: Result) -> Result | None:
    """What nothing was done to, of the same set and dose."""
    return find(results, result.case, result.dose, NOISY)


def find(results: Sequence[Result], case: str, dose: float, method: str) -> Result | None:
    """The result of a method, where it was run."""
    found = [r for r in results if (r.case, r.dose, r.method) == (case, dose, method)]
    return found[0] if found else None


_COLUMNS = {
    "PSNR": ("psnr", ".2f"),
    "SSIM": ("ssim", ".4f"),
    "EF": ("edge_fidelity", ".4f"),
    "F1": ("edge_f1", ".4f"),
    "FRC": ("frc", ".3f"),
    "PSNR/full": ("psnr_full", ".2f"),
    "jumps": (JUMPS, ".1e"),
}


def table(results: Sequence[Result], by_family: bool = False) -> str:
    """Results as lines of text: those of the noisy slices in brackets beside each figure.

    Against the noise-free reconstruction, but for the last column; FRC is the frequency up to
    which the correlation is at least 1/2; jumps between neighbours stand where slices are.
    """
    there = {score_name for result in results for score_name in result.scores}
    columns = {head: column for head, column in _COLUMNS.items() if column[0] in there}
    head = f"{'set':12s} {'dose':>6s} {'method':28s}"
    head += "".join(f"{name:>18s}" for name in columns) + f"{'gain/dB':>9s}{'worst':>8s}{'ms':>8s}"
    lines = [head]
    for result in results:
        noisy = baseline(results, result)
        for family in [None, *(dict.fromkeys(result.families) if by_family else ())]:
            lines.append(_line(result, noisy, family, columns.values()))
    return "\n".join(lines)


def _line(
    result: Result,
    noisy: Result | None,
    family: str | None,
    columns: Collection[tuple[str, str]],
) -> str:
    name = result.method if family is None else f"  {family}"
    line = f"{result.case:12s} {result.dose:6g} {name:28s}"
    for score_name, form in columns:
        if score_name not in result.scores:
            line += f"{'':18s}"
            continue
        cell = f"{result.mean(score_name, family):{form}}"
        if noisy is not None and noisy is not result:
            cell += f" ({noisy.mean(score_name, family):{form}})"
        line += f"{cell:>18s}"
    if noisy is None or noisy is result:
        return line
    gain = result.mean("psnr", family) - noisy.mean("psnr", family)
    line += f"{gain:9.2f}"
    if family is None:
        line += f"{np.min(result.scores['psnr'] - noisy.scores['psnr']):8.2f}"
        line += "" if result.ms_a_slice is None else f"{result.ms_a_slice:8.0f}"
        line += "" if result.share == 1 else f"  {result.share:.0%} denoised, to do no harm"
    return line
