"""How far the found rotation centre is from the true one, over simulated scans.

    python benchmarks/centre.py [--quick] [--json] [--columns N] [--dose SHARE] [--threads N]

Fifty scans of all families of phantoms, at a tenth of the dose, whose axis is up to 15 % of the
width beside the detector's middle: two in five of a sample wider than the field of view, and
over [0°, 180°], [0°, 180°) or [0°, 360°) in turn. Then ten that stop short of half a turn, where
only the centre of mass helps, or nothing does. A row is one scan; the last rows are, for each
method and for what `find_centre` makes of them, the share of scans with an error of at most half
a column, and how many of the worse ones the confidence flags.
"""

import argparse
import json
import math
import os
import sys
import time
from dataclasses import dataclass

import numpy as np
import torch

from tomogan_bluesky.errors import RotationCentreError
from tomogan_bluesky.geometry import ScanGeometry
from tomogan_bluesky.recon.beam import Beam, line_integrals
from tomogan_bluesky.recon.centre import find_centre
from tomogan_bluesky.recon.flatfield import attenuation, transmission
from tomogan_bluesky.recon.phantoms import HELD_OUT_FAMILY, TRAINING_FAMILIES, make_phantom

COMPLETE = ("[0, 180]", "[0, 180)", "[0, 360)")
SHORT = "short"
LARGEST_ERROR = 0.5
FLAGGED_BELOW = 0.5


@dataclass
class Case:
    """A simulated scan whose rotation centre is known."""

    name: str
    attenuation: torch.Tensor
    theta: np.ndarray
    centre: float


def simulate(index: int, n_columns: int, dose: float, short: bool = False, rows: int = 4) -> Case:
    """Draw a scan: equal arguments, equal scan."""
    rng = np.random.default_rng([n_columns, int(short), index])
    n, families = n_columns, (*TRAINING_FAMILIES, HELD_OUT_FAMILY)
    centre = (n - 1) / 2 + rng.uniform(-0.15, 0.15) * n
    coverage = SHORT if short else COMPLETE[index % len(COMPLETE)]
    truncated = index % 5 in (1, 3)
    family = families[int(rng.integers(len(families)))]
    n_angles = int(n * rng.uniform(1.0, 1.5))
    turn = {"[0, 360)": 2.0, SHORT: rng.uniform(0.75, 0.95)}.get(coverage, 1.0) * math.pi
    theta = np.linspace(0, turn, n_angles, endpoint=coverage == "[0, 180]")
    # The sample has a detector of its own, around the axis, which is then cut or surrounded by air.
    fits = 2 * min(centre, n - 1 - centre)
    width = 2 * int(n * rng.uniform(0.6, 0.9) if truncated else fits * rng.uniform(0.3, 0.5))
    first = round(centre - (width - 1) / 2)
    phantom = make_phantom(family, 2 * width, rng, rows)
    lines, _ = line_integrals(phantom, ScanGeometry(theta, centre - first, width))
    lines = np.pad(lines, ((0, 0), (0, 0), (n, n)))[..., n - first : 2 * n - first]
    beam = Beam(dose=dose, seed=index)
    frames = torch.from_numpy(beam.projections(lines.transpose(1, 0, 2))).permute(1, 0, 2)
    dark, flat = (
        torch.from_numpy(kind(20, (rows, n)).mean(0, dtype=np.float32))
        for kind in (beam.darks, beam.flats)
    )
    name = f"{family} {coverage}{' truncated' if truncated else ''}"
    return Case(name, attenuation(transmission(frames, dark, flat), 1e-6)[0], theta, centre)


def measure(case: Case) -> dict[str, float]:
    """Error of each method that applies and of the result, its confidence, and the time."""
    start = time.perf_counter()
    try:
        found = find_centre(case.attenuation, case.theta)
    except RotationCentreError:
        return {"time": time.perf_counter() - start}
    errors = {str(name): centre - case.centre for name, centre in found.methods.items()}
    return {
        **errors,
        "result": found.centre - case.centre,
        "confidence": found.confidence,
        "time": time.perf_counter() - start,
    }


def summary(results: list[dict[str, float]], method: str) -> dict[str, float]:
    """Scans in which a method found something, within half a column, and flagged where not."""
    found = [r for r in results if method in r]
    bad = [r for r in found if abs(r[method]) > LARGEST_ERROR]
    figures = {
        "found": len(found),
        "within half a column": len(found) - len(bad),
        "largest error": max((abs(r[method]) for r in found), default=math.nan),
    }
    if method == "result":
        figures["worse and not flagged"] = sum(r["confidence"] >= FLAGGED_BELOW for r in bad)
        figures["flagged"] = sum(r["confidence"] < FLAGGED_BELOW for r in found)
    return figures


METHODS = ("pair", "wedge", "centroid", "result")
UNITS = {**dict.fromkeys(METHODS, "columns"), "confidence": "1", "time": "s"}


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few and small, to see that it works")
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--columns", type=int, help="of the detector; 512, or 128 when quick")
    parser.add_argument("--dose", type=float, default=0.1, help="share of the full exposure")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    n_columns = arguments.columns or (128 if arguments.quick else 512)
    counts = (6, 2) if arguments.quick else (50, 10)
    for short, count in zip((False, True), counts, strict=True):
        group = f"{count} {'short ' if short else ''}scans {n_columns}, dose {arguments.dose:g}"
        results = []
        if not arguments.json:
            print(f"\n{group}: errors in columns")
            print(f"{'scan':<30}" + "".join(f"{name:>11}" for name in UNITS))
        for index in range(count):
            case = simulate(index, n_columns, arguments.dose, short)
            results.append(measure(case))
            if not arguments.json:
                cells = (f"{results[-1].get(name, math.nan):>11.2f}" for name in UNITS)
                print(f"{case.name:<30}" + "".join(cells))
                continue
            for metric, value in results[-1].items():
                method = metric if metric in METHODS else "result"
                report(
                    f"{group}, {index}: {case.name}",
                    method,
                    "error" if metric in METHODS else metric,
                    value,
                    UNITS[metric],
                )
        for method in METHODS:
            figures = summary(results, method)
            if not arguments.json:
                listed = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
                print(f"{method:<10}{listed}")
                continue
            for metric, value in figures.items():
                unit = "columns" if metric == "largest error" else "scans"
                report(group, method, metric, None if math.isnan(value) else value, unit)
    return 0


def report(case: str, method: str, metric: str, value: float | None, unit: str) -> None:
    """Print one figure as JSON."""
    row = {"benchmark": "centre", "case": case, "method": method}
    print(json.dumps({**row, "metric": metric, "value": value, "unit": unit}))


if __name__ == "__main__":
    sys.exit(main())
