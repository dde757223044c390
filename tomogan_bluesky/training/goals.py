"""What a model of this package must reach on the pinned sets.

Enter: results, of the model and of what it is compared with. Leave: verdicts, each with the figure
that was found, the one that is needed, and whether it is met. What was not run has no verdict.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .interpolated import LINEAR
from .scoring import NOISY, Result, find

# As the benchmark names them.
BM3D_SPECTRUM = "BM3D, true spectrum"
BM3D_ORACLE = "BM3D, true sigma"
BM3D_ESTIMATED = "BM3D, estimated sigma"


@dataclass(frozen=True)
class Verdict:
    """One goal: a figure that should be at least another, PSNR in dB."""

    case: str
    goal: str
    found: float
    needed: float

    @property
    def met(self) -> bool:
        """Whether the goal is reached: all of them are "at least"."""
        return self.found >= self.needed


# The goals were set with slices of a back-projection that interpolates linearly, so that they are
# asked of both views. Set: gain in dB at doses 1/4 and 1/10, SSIM at dose 1/4, gain over BM3D with
# estimated sigma.
_BY_SET = {"512": (7.0, 8.5, 0.935, 1.5), "256": (6.0, 7.8, 0.945, 2.2)}


def verdicts(results: Sequence[Result], method: str) -> list[Verdict]:
    """The verdicts of a method on the pinned sets on which it was run."""
    cases = [set_ + view for set_ in _BY_SET for view in ("", LINEAR)]
    return [verdict for case in cases for verdict in _of_set(results, case, method)]


def _of_set(results: Sequence[Result], case: str, method: str) -> Iterator[Verdict]:
    gain_quarter, gain_tenth, ssim_quarter, over_estimated = _BY_SET[case.removesuffix(LINEAR)]

    def over(
        dose: float, score: str, other: str, needed: float, worst: bool = False
    ) -> Iterator[Verdict]:
        """Difference to another method; of the family where it is smallest, with `worst`."""
        ours, theirs = (find(results, case, dose, m) for m in (method, other))
        if ours is None or theirs is None:
            return
        kinds = dict.fromkeys(ours.families) if worst else [None]
        found = min(ours.mean(score, kind) - theirs.mean(score, kind) for kind in kinds)
        goal = f"dose {dose:g}: {score} over {other}" + (", worst kind" if worst else "")
        yield Verdict(case, goal, found, needed)

    def at_least(dose: float, found: float | None, what: str, needed: float) -> Iterator[Verdict]:
        if found is not None:
            yield Verdict(case, f"dose {dose:g}: {what}", found, needed)

    quarter, full = find(results, case, 0.25, method), find(results, case, 1.0, method)
    noisy = find(results, case, 1.0, NOISY)
    yield from over(0.25, "psnr", NOISY, gain_quarter)
    if quarter is not None:
        yield from at_least(0.25, quarter.mean("ssim"), "ssim", ssim_quarter)
    if quarter is not None and noisy is not None:
        gain = quarter.mean("psnr") - noisy.mean("psnr")
        yield from at_least(0.25, gain, "psnr over noisy at dose 1", 0.0)
    yield from over(0.25, "edge_fidelity", NOISY, 0.02)
    yield from over(0.25, "edge_f1", NOISY, 0.0)
    yield from over(0.1, "psnr", NOISY, gain_tenth)
    yield from over(1.0, "psnr", NOISY, 2.5)
    if full is not None and noisy is not None:
        worst = float(np.min(full.scores["psnr"] - noisy.scores["psnr"]))
        yield from at_least(1.0, worst, "psnr over noisy, worst slice", 0.0)
    yield from over(4.0, "psnr", NOISY, 0.0)
    yield from over(16.0, "psnr", NOISY, -0.3)
    yield from over(0.25, "psnr", BM3D_SPECTRUM, 1.0)
    yield from over(0.25, "psnr", BM3D_SPECTRUM, 0.0, worst=True)
    yield from over(0.25, "ssim", BM3D_SPECTRUM, 0.005)
    yield from over(0.25, "edge_fidelity", BM3D_SPECTRUM, 0.005)
    yield from over(0.25, "edge_f1", BM3D_SPECTRUM, 0.0)
    yield from over(0.25, "psnr", BM3D_ORACLE, 1.5)
    yield from over(0.25, "psnr", BM3D_ESTIMATED, over_estimated)


def verdict_table(found: Sequence[Verdict]) -> str:
    """Verdicts as lines of text."""
    lines = [f"{'set':12s} {'goal':58s}{'found':>9s}{'needed':>9s}  verdict"]
    for v in found:
        figures = f"{v.found:9.3f}{v.needed:9.3f}"
        lines.append(f"{v.case:12s} {v.goal:58s}{figures}  {'met' if v.met else 'MISSED'}")
    return "\n".join(lines)
