"""Runs after runs on a real RunEngine with the callback: does anything grow, does anything raise?

    python benchmarks/soak.py [--minutes M | --runs N] [--worker process|thread] [--model NAME]
                              [--tiled [URI]] [--quick] [--json]

Small scans are taken one after the other, without waiting for their slices. After every few of them
all is worked off, and memory, threads and open files of this process and of its workers are read.
Growth is the slope of a straight line through the readings after the first quarter, in which caches
fill. With --tiled the derived runs go to a Tiled server: one of its own in another process, or that
of the address (its key in TILED_API_KEY); otherwise to a callable. Files of slices are removed as
they come. Exit code 1: something grew, or raised.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import psutil
from bluesky import RunEngine

from tomogan_bluesky import PublishingConfig, ReconstructionConfig, TomoGANCallback
from tomogan_bluesky.config import WorkerConfig
from tomogan_bluesky.recon.beam import Beam
from tomogan_bluesky.sim.beamline import SimBeamline
from tomogan_bluesky.sim.plans import tomo_scan

SIZE = 32
ANGLES_DEG = np.linspace(0.0, 180.0, 13)

# What may grow by each run before it counts as a leak: 10 MiB in a thousand runs. The allocator
# alone wanders by some hundred KiB over a soak.
MAX_GROWTH_KIB = 10.0


def make_beamline() -> SimBeamline:
    """A disc in a beam."""
    y, x = np.mgrid[: 2 * SIZE, : 2 * SIZE] / SIZE - 1
    phantom = np.stack([((x - 0.2) ** 2 + y**2 < r**2).astype(np.float32) for r in (0.4, 0.5)])
    return SimBeamline(phantom, ANGLES_DEG, Beam(), rotation_centre=(SIZE - 1) / 2)


def read_state() -> dict[str, dict[str, float]]:
    """Memory, threads and files of this process and of its workers together."""
    state = {}
    us = psutil.Process()
    workers = [child for child in us.children() if "tomogan_bluesky.worker" in child.cmdline()]
    for who, processes in (("parent", [us]), ("worker", workers)):
        if processes:
            state[who] = {
                "memory": sum(process.memory_info().rss for process in processes) / 1024,
                "threads": sum(process.num_threads() for process in processes),
                "files": sum(process.num_fds() for process in processes),
            }
    return state


@contextmanager
def own_server(folder: Path) -> Iterator[str]:
    """Address of a Tiled server in another process; its key goes into the environment."""
    os.environ["TILED_API_KEY"] = "f" * 64
    (folder / "api_key").write_text(os.environ["TILED_API_KEY"])
    command = [sys.executable, "-m", "tomogan_bluesky", "serve-catalog", str(folder), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield json.loads(server.stdout.readline())["uri"]
        finally:
            server.terminate()


class Soak:
    """Takes scans, and reads the state after every few of them."""

    def __init__(self, arguments: argparse.Namespace, volumes: Path | None) -> None:
        self.n_runs = self.n_raised = self.n_failed = 0
        self.readings: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
        self._every = arguments.every
        self._beamline = make_beamline()
        self._callback = TomoGANCallback(
            arguments.tiled or (lambda name, doc: None),
            None if arguments.model == "none" else arguments.model,
            reconstruction=ReconstructionConfig(rotation_centre=(SIZE - 1) / 2),
            publishing=PublishingConfig(directory=volumes),
            worker=WorkerConfig(kind=arguments.worker, nice=arguments.nice),
        )
        self._RE = RunEngine()
        self._RE.subscribe(self._callback)

    def run(self, enough: Any) -> None:
        """Take scans until `enough(number of runs)`."""
        beamline = self._beamline
        with self._callback:
            while not enough(self.n_runs):
                for _ in range(self._every):
                    try:
                        self._RE(
                            tomo_scan(
                                beamline.camera,
                                beamline.rotation,
                                beamline.shutter,
                                beamline.sample,
                                ANGLES_DEG,
                                n_darks=1,
                                n_flats=1,
                            )
                        )
                    except Exception as error:
                        self.n_raised += 1
                        print(f"a scan raised {type(error).__name__}: {error}", file=sys.stderr)
                    self.n_runs += 1
                for report in self._callback.wait():
                    if report.exit_status != "success":
                        self.n_failed += 1
                        print(f"run {report.raw_uid}: {report.reason}", file=sys.stderr)
                    if report.volume_path is not None:
                        report.volume_path.unlink(missing_ok=True)
                for who, state in read_state().items():
                    for what, value in state.items():
                        self.readings[who, what].append((self.n_runs, value))

    def growth(self, who: str, what: str) -> float:
        """Slope of a reading, by run, after the first quarter."""
        runs, values = np.array(self.readings[who, what]).T
        later = runs > runs[-1] / 4
        return float(np.polyfit(runs[later], values[later], 1)[0]) if later.sum() > 1 else np.nan


def figures(soak: Soak) -> list[tuple[str, str, float, str]]:
    """Who, what, value and unit of each figure."""
    rows: list[tuple[str, str, float, str]] = [
        ("parent", "runs", soak.n_runs, ""),
        ("parent", "scans that raised", soak.n_raised, ""),
        ("parent", "derived runs that failed", soak.n_failed, ""),
    ]
    for (who, what), readings in soak.readings.items():
        unit = "MiB" if what == "memory" else ""
        scale = 1024 if what == "memory" else 1
        rows.append((who, what, readings[-1][1] / scale, unit))
        growth = soak.growth(who, what)
        rows.append((who, f"growth of {what}", growth, f"{'KiB' if unit else what}/run"))
    return rows


def verdict(soak: Soak) -> list[str]:
    """What is not as it should be."""
    faults = []
    if soak.n_raised or soak.n_failed:
        faults.append(f"{soak.n_raised} scans raised, {soak.n_failed} derived runs failed")
    for who, what in soak.readings:
        growth = soak.growth(who, what)
        # Of threads and files, not even one in twenty runs.
        if growth > (MAX_GROWTH_KIB if what == "memory" else 0.05):
            faults.append(f"{what} of the {who} grow by {growth:.3g} a run")
    return faults


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, help="how long (10)")
    length.add_argument("--runs", type=int, help="how many runs instead")
    parser.add_argument("--worker", choices=("process", "thread"), default="process")
    parser.add_argument(
        "--nice", type=int, default=19, help="of a process (19): less on a busy machine"
    )
    parser.add_argument("--model", default="none", help="name or path of a model (none)")
    parser.add_argument(
        "--tiled",
        nargs="?",
        const="own",
        metavar="URI",
        help="publish to a server (its own)",
    )
    parser.add_argument("--quick", action="store_true", help="a few runs, to see that it works")
    parser.add_argument("--json", action="store_true", help="one object a line")
    arguments = parser.parse_args()
    arguments.every = 2 if arguments.quick else 10
    n_runs = 6 if arguments.quick else arguments.runs
    ends = time.monotonic() + 60 * (arguments.minutes or 10)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        os.environ["XDG_STATE_HOME"] = f"{folder}/state"
        volumes: Path | None = Path(folder, "volumes")
        if arguments.tiled == "own":
            arguments.tiled = stack.enter_context(own_server(Path(folder)))
        elif arguments.tiled is not None:
            volumes = None  # a folder of ours is none that it can read
        soak = Soak(arguments, volumes)
        soak.run(lambda n: n >= n_runs if n_runs else time.monotonic() > ends)
    minutes = (time.monotonic() - started) / 60
    rows = [*figures(soak), ("parent", "time", minutes, "min")]
    faults = [] if arguments.quick and not soak.n_raised + soak.n_failed else verdict(soak)
    about = {"benchmark": "soak", "case": f"{len(ANGLES_DEG)} projections"}
    for who, what, value, unit in rows:
        if arguments.json:
            print(
                json.dumps({**about, "method": who, "metric": what, "value": value, "unit": unit})
            )
        else:
            print(f"{who:<10}{what:<28}{value:>12.3f} {unit}")
    told = "; ".join(faults) or "nothing grew, nothing raised"
    if arguments.json:
        found = {"method": "verdict", "metric": "faults", "value": len(faults), "unit": told}
        print(json.dumps({**about, **found}))
    else:
        print(f"\n{told}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
