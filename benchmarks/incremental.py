"""Cost of reconstruction while a scan is taken, against reconstruction afterwards, in one run.

    python benchmarks/incremental.py [--quick] [--json]

Projections are given one at a time, as corrected attenuation, in the order of the scan. "batch" is
the same reconstruction from all sinograms in memory; the last two rows count per slice. Times are
the best of several rounds, in which all are measured one after the other; "share" is the time from
the last projection to the last slice, as a share of batch, in the same round (the median round).
"""

import argparse
import json
import os
import sys
import time

# As the command line of the package does; read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch

from tomogan_bluesky.geometry import ScanGeometry
from tomogan_bluesky.recon.gridrec import Gridrec
from tomogan_bluesky.recon.incremental import IncrementalGridrec, state_bytes


def milliseconds(start: float) -> float:
    """Time since `start`."""
    return 1000 * (time.perf_counter() - start)


def measure(geometry: ScanGeometry, n_slices: int, rounds: int) -> list[tuple[str, str, float]]:
    """Method, metric and value of each figure."""
    generator = torch.Generator().manual_seed(0)
    shape = (n_slices, geometry.n_angles, geometry.n_columns)
    sinograms = torch.rand(shape, generator=generator)
    projections = sinograms.transpose(0, 1).contiguous()
    batch = Gridrec(geometry, "shepp")
    wanted = batch(sinograms)
    figures: dict[str, list[float]] = {key: [] for key in ("add", "most", "preview", "end", "all")}
    for _ in range(rounds):
        reconstruct = IncrementalGridrec(geometry, n_slices, "shepp")
        times = []
        for index, projection in enumerate(projections[:-1]):
            start = time.perf_counter()
            reconstruct.add(index, projection)
            times.append(milliseconds(start))
        start = time.perf_counter()
        reconstruct.preview([n_slices // 2])
        figures["preview"].append(milliseconds(start))
        start = time.perf_counter()
        reconstruct.add(geometry.n_angles - 1, projections[-1])
        volume = reconstruct.result()
        figures["end"].append(milliseconds(start))
        start = time.perf_counter()
        batch(sinograms)
        figures["all"].append(milliseconds(start))
        figures["add"].append(float(np.mean(times)))
        figures["most"].append(max(times))
        if not torch.equal(volume, wanted):
            raise SystemExit("incremental and batch differ")
    share = float(np.median(np.divide(figures["end"], figures["all"])))
    return [
        ("incremental", "projection", min(figures["add"])),
        ("incremental", "slowest projection", min(figures["most"])),
        ("incremental", "preview of a slice", min(figures["preview"])),
        ("incremental", "state", state_bytes(geometry) / 1e6),
        ("incremental", "last projection to last slice", min(figures["end"]) / n_slices),
        ("incremental", "share", share),
        ("batch", "time", min(figures["all"]) / n_slices),
    ]


UNITS = {
    "projection": "ms",
    "slowest projection": "ms",
    "preview of a slice": "ms",
    "state": "MB/slice",
    "last projection to last slice": "ms/slice",
    "share": "of batch",
    "time": "ms/slice",
}


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    sizes = [(128, 180, 16)] if arguments.quick else [(512, 720, 16), (512, 720, 64)]
    for n_columns, n_angles, n_slices in sizes:
        theta = np.arange(n_angles) * np.pi / n_angles
        geometry = ScanGeometry(theta, n_columns / 2 - 3.3, n_columns)
        case = f"{n_slices} slices {n_columns}x{n_angles}"
        if not arguments.json:
            print(f"\n{case}, {arguments.threads} threads")
        for method, metric, value in measure(geometry, n_slices, 1 if arguments.quick else 7):
            row = {"benchmark": "incremental", "case": case, "method": method, "metric": metric}
            if arguments.json:
                print(json.dumps({**row, "value": value, "unit": UNITS[metric]}))
            else:
                print(f"{method:<14}{metric:<32}{value:>10.3f} {UNITS[metric]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
