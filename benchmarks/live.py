"""From the last projection of a scan to slices that a Tiled client can read.

    python benchmarks/live.py [--sizes 128 256 512] [--devices cpu cuda] [--rounds 3] [--nice 19]
                              [--quick] [--json]

A real RunEngine scans a simulated sample; the callback works in a process of its own; a Tiled
server runs in a third one. A client asks the server again and again for the first preview, the
first and the last denoised slice, until it has read the pixels. Each size is measured on each
device; without --devices, on all that there are. Times are medians over rounds, on one clock:

- first preview: from the first projection
- first slice, last slice: from the last projection
- sustained: projections a second at which the worker keeps up, which is the number of projections
  over the time until all slices are there, if the documents come as quickly as they can
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from bluesky import RunEngine

from tomogan_bluesky import PublishingConfig, TomoGANCallback, WorkerConfig
from tomogan_bluesky.config import LiveConfig
from tomogan_bluesky.publish.catalog import derived_runs
from tomogan_bluesky.publish.server import serve_catalog
from tomogan_bluesky.recon.beam import Beam
from tomogan_bluesky.recon.phantoms import make_phantom
from tomogan_bluesky.sim.beamline import SimBeamline
from tomogan_bluesky.sim.plans import tomo_scan

ROWS = 16  # two slabs: the first slice and the last one come apart

_SERVE = """
import sys
from tomogan_bluesky.publish.server import serve_catalog
with serve_catalog(sys.argv[1]):
    print("serving", flush=True)
    sys.stdin.read()
"""


@contextmanager
def catalog(folder: str) -> Iterator:
    """A Tiled server in a process of its own."""
    command = [sys.executable, "-c", _SERVE, folder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        with serve_catalog(folder) as server:
            yield server
        process.stdin.close()


class Watcher(threading.Thread):
    """Asks until something is there; when that was."""

    def __init__(self, ask: Callable[[], bool]) -> None:
        super().__init__(daemon=True)
        self._ask = ask
        self.at = float("nan")
        self.ended = threading.Event()
        self.start()

    def run(self) -> None:
        """Ask."""
        while not self.ended.wait(0.02):
            try:
                if self._ask():
                    self.at = time.perf_counter()
                    return
            except (LookupError, OSError):  # not there yet
                pass


def measure(
    size: int, device: str, rounds: int, nice: int, folder: str
) -> Iterator[tuple[str, float, str]]:
    """Metric, value and unit."""
    n_angles = size * 3 // 2 + 1
    angles_deg = np.linspace(0.0, 180.0, n_angles)
    phantom = make_phantom("foam", 2 * size, np.random.default_rng(1), ROWS)
    times: dict[str, list[float]] = {}
    with catalog(folder) as server:
        os.environ["TILED_API_KEY"] = server.api_key
        client = server.client()
        with TomoGANCallback(
            server.uri,
            publishing=PublishingConfig(directory=server.volumes),
            live=LiveConfig(preview_every=max(n_angles // 8, 2), preview_every_s=None),
            worker=WorkerConfig(nice=nice),
            device=device,
        ) as callback:
            for n in range(rounds + 1):
                docs: list[tuple[float, str]] = []
                beamline = SimBeamline(phantom, angles_deg, Beam(), rotation_centre=size / 2)
                RE = RunEngine()
                RE.subscribe(lambda name, doc, docs=docs: docs.append((time.perf_counter(), name)))
                RE.subscribe(callback)
                raw: dict[str, str] = {}
                RE.subscribe(lambda name, doc, raw=raw: raw.update(uid=doc["uid"]), "start")

                def derived(raw: dict[str, str] = raw) -> Any:
                    return client[derived_runs(client, raw)[-1]]

                def has_preview(derived: Callable[[], Any] = derived) -> bool:
                    return len(derived()["preview"]["n_projections"].read()) > 0

                def has_slices(least: int, derived: Callable[[], Any] = derived) -> bool:
                    slices = derived()["primary"]["denoised"]
                    return len(slices) >= least and bool(np.isfinite(slices[least - 1]).all())

                watchers = {}
                if n > 0:  # in the first round the worker has to start
                    watchers = {
                        "first preview": Watcher(has_preview),
                        "first slice": Watcher(partial(has_slices, 1)),
                        "last slice": Watcher(partial(has_slices, ROWS)),
                    }
                RE(
                    tomo_scan(
                        beamline.camera,
                        beamline.rotation,
                        beamline.shutter,
                        beamline.sample,
                        angles_deg,
                        md={"num_projections": n_angles},
                    )
                )
                callback.wait()
                for watcher in watchers.values():
                    watcher.join(20)  # what has not come by now does not come
                    watcher.ended.set()
                events = [at for at, name in docs if name == "event"][-n_angles:]
                if not watchers:
                    continue
                since = {"first preview": events[0]}
                for metric, watcher in watchers.items():
                    times.setdefault(metric, []).append(watcher.at - since.get(metric, events[-1]))
                whole = watchers["last slice"].at - events[0]
                times.setdefault("sustained", []).append(n_angles / whole)
    for metric, values in times.items():
        yield metric, float(np.nanmedian(values)), "1/s" if metric == "sustained" else "s"


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", type=int, default=[128, 256, 512])
    parser.add_argument("--devices", nargs="+", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--nice", type=int, default=19)
    parser.add_argument("--quick", action="store_true", help="small and once, to see that it works")
    parser.add_argument("--json", action="store_true", help="one object a line")
    arguments = parser.parse_args()
    sizes, rounds = ([32], 1) if arguments.quick else (arguments.sizes, arguments.rounds)
    nice = 0 if arguments.quick else arguments.nice
    devices = arguments.devices or ["cpu", *["cuda"] * torch.cuda.is_available()]
    for size, device in product(sizes, devices):
        case = f"{ROWS} slices of {size}, {size * 3 // 2 + 1} projections"
        method = f"process, {device}"
        if not arguments.json:
            print(f"\n{case}; {method}")
        with tempfile.TemporaryDirectory() as folder:
            os.environ["XDG_STATE_HOME"] = f"{folder}/state"
            for metric, value, unit in measure(size, device, rounds, nice, f"{folder}/catalog"):
                row = {"benchmark": "live", "case": case, "method": method, "metric": metric}
                if arguments.json:
                    print(json.dumps({**row, "value": value, "unit": unit}))
                else:
                    print(f"{metric:<24}{value:>10.3f} {unit}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
