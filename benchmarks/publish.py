"""What it costs to publish slices, and when somebody who watches can see them.

    python benchmarks/publish.py [--slices 128] [--rounds 5] [--quick] [--json]

Slabs of float32 slices, which do not compress, go one after the other as fast as they are taken,
all methods in turns in each round, the first two in an order that turns as well. Every file is gone
before the next one is made: a second one would need memory for its pages that the first has still,
and where a virtual machine has to get that from its host, it is several times as slow. They go to

- "h5py": a file, as plainly as h5py can: flushed for readers after each slab, closed, and synced to
  the disk (fsync), once, as ours is;
- "tomogan_bluesky": the same on the same disk, and a derived run in a Tiled server of a process of
  its own, which has the raw run, by the way that a callback's slices take (spool, thread,
  documents);
- "write_array": the same server over HTTP, an array a slice;
- "patch": the same, one array that grows by a slab.

"rate" is the median of the rounds; from before the file or the run is made until the last slice is
on the disk, the run has its stop document, and the server has answered. "ratio" is that of
tomogan_bluesky to the other's rate in the same round. What each run costs once is thus spread over
the slices of a small scan; over HTTP, where nothing is spread, 16 of them will do. "processor" is
the time of this process and of the server's for all slices, which says more than the rates
do on a machine that is busy with other things.

"visible" is the time from a finished slab to word of its last slice at a client that has subscribed
to the run over a websocket, in a thread of this process, while nothing else is written; "readable"
includes reading that slab.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import event_model
import h5py
import numpy as np
import psutil
from bluesky_tiled_plugins.streaming import subscribe_to_streams

from tomogan_bluesky.config import PublishingConfig
from tomogan_bluesky.publish.documents import DerivedRun
from tomogan_bluesky.publish.identity import derivation_of
from tomogan_bluesky.publish.publishers import Publishers
from tomogan_bluesky.publish.server import CatalogServer, serve_catalog
from tomogan_bluesky.publish.tiled_publisher import TiledPublisher

_SERVE = """
import sys
from tomogan_bluesky.publish.server import serve_catalog
with serve_catalog(sys.argv[1]) as server:
    print(server.uri, flush=True)
    sys.stdin.read()
"""
QUANTITY = "reconstruction"


@contextmanager
def server_elsewhere(folder: Path) -> Iterator[tuple[CatalogServer, int]]:
    """A catalog that another process serves, and that process."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        with serve_catalog(folder) as server:
            yield server, process.pid
        process.stdin.close()


def plain_h5py(slabs: list[np.ndarray], folder: Path) -> None:
    """A file, and nothing else."""
    image = slabs[0].shape[1:]
    path = folder / f"{uuid4()}.h5"
    with h5py.File(path, "x", libver="latest") as file:
        data = file.create_dataset(
            "data", (0, *image), np.float32, maxshape=(None, *image), chunks=(1, *image)
        )
        file.swmr_mode = True
        for slab in slabs:
            first = len(data)
            data.resize(first + len(slab), axis=0)
            data[first:] = slab
            data.flush()
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


class Watcher:
    """Sees slices of one run arrive."""

    def __init__(self, raw_uid: str) -> None:
        self.raw_uid = raw_uid
        self.seen = threading.Condition()
        self.count = {"visible": 0, "readable": 0}

    def wait(self, n_slices: int) -> dict[str, float]:
        """When so many slices were visible, and read."""
        times = {}
        for name in ("visible", "readable"):
            with self.seen:
                if not self.seen.wait_for(partial(self._has, name, n_slices), 60):
                    raise SystemExit("the subscribed client saw nothing within 60 s")
            times[name] = time.perf_counter()
        return times

    def _has(self, name: str, n_slices: int) -> bool:
        return self.count[name] >= n_slices

    def wanted(self, start: dict) -> bool:
        return start.get("original_run_uid") == self.raw_uid

    def __call__(self, update: Any) -> None:
        patch = update.update.patch
        self._note("visible", patch.offset[0] + patch.shape[0])
        update.data()
        self._note("readable", patch.offset[0] + patch.shape[0])

    def _note(self, name: str, n_slices: int) -> None:
        with self.seen:
            self.count[name] = max(self.count[name], n_slices)
            self.seen.notify_all()


def raw_run(client: Any) -> str:
    """A raw run without frames; returns its uid."""
    run = event_model.compose_run(metadata={"plan_name": "tomo_scan"})
    publisher = TiledPublisher(client)
    publisher("start", run.start_doc)
    publisher("stop", run.compose_stop())
    return run.start_doc["uid"]


def publish(
    slabs: list[np.ndarray],
    publishers: Publishers,
    directory: Path,
    raw_uid: str,
    after: Callable[[int], None] = lambda n_slices: None,
) -> None:
    """A derived run; `after` is called after each slab with the number of slices so far."""
    emit = publishers.broadcast()
    run = DerivedRun(
        emit,
        {"uid": raw_uid},
        derivation=derivation_of(raw_uid, "", ""),
        attempt=1,
        metadata={},
        config=PublishingConfig(directory=directory),
    )
    run.start()
    run.open_volume((sum(map(len, slabs)), *slabs[0].shape[1:]), (QUANTITY,))
    first = 0
    for slab in slabs:
        run.write_slab(first, {QUANTITY: slab}, {})
        first += len(slab)
        after(first)
    run.stop("success", "", {})
    emit.check()


def watched(
    slabs: list[np.ndarray], publishers: Publishers, client: Any, directory: Path
) -> dict[str, list[float]]:
    """Seconds from each slab until it is "visible" and "readable"; one is sent after the other."""
    took: dict[str, list[float]] = {"visible": [], "readable": []}
    watcher = Watcher(raw_run(client))
    finished = time.perf_counter()

    def wait(n_slices: int) -> None:
        nonlocal finished
        for name, at in watcher.wait(n_slices).items():
            took[name].append(at - finished)
        finished = time.perf_counter()

    with subscribe_to_streams(
        client,
        watcher,
        streams={"primary": (QUANTITY,)},
        metadata_filter=watcher.wanted,
        start=None,
        max_size=2**26,
    ):
        finished = time.perf_counter()
        publish(slabs, publishers, directory, watcher.raw_uid, wait)
    return took


def write_array(slabs: list[np.ndarray], client: Any) -> None:
    parent = client.create_container(str(uuid4()))
    for slab in slabs:
        for slice_ in slab:
            parent.write_array(slice_)


def patch(slabs: list[np.ndarray], client: Any) -> None:
    array = client.create_container(str(uuid4())).write_array(slabs[0])
    offset = len(slabs[0])
    for slab in slabs[1:]:
        array.patch(slab, offset=(offset, 0, 0), extend=True)
        offset += len(slab)


class Bench:
    """Runs methods in turns, and keeps what each took."""

    def __init__(self, server_pid: int) -> None:
        self._processes = [psutil.Process(), psutil.Process(server_pid)]
        self.rates: dict[str, list[float]] = {}
        self.processor: dict[str, list[float]] = {}

    def __call__(self, method: str, slabs: list[np.ndarray], run: Callable[[], None]) -> None:
        os.sync()  # nobody writes what another has left
        processor, started = self._processor(), time.perf_counter()
        run()
        seconds = time.perf_counter() - started
        self.rates.setdefault(method, []).append(sum(slab.nbytes for slab in slabs) / 1e6 / seconds)
        self.processor.setdefault(method, []).append(
            (self._processor() - processor) / sum(map(len, slabs))
        )

    def _processor(self) -> float:
        times = [process.cpu_times() for process in self._processes]
        return sum(t.user + t.system for t in times)


def clear(folder: Path) -> None:
    """Make room, on the disk and in memory, and let nobody pay for it."""
    for path in folder.glob("*.h5"):
        path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--slices", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="small, to see that it works")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    args = parser.parse_args()
    size, slab_rows, n_slices, rounds = 1024, 8, args.slices, args.rounds
    if args.quick:
        size, slab_rows, n_slices, rounds = 128, 2, 8, 1
    rng = np.random.default_rng(0)
    slabs = [rng.random((slab_rows, size, size), np.float32) for _ in range(n_slices // slab_rows)]
    some, few = slabs[: max(16 // slab_rows, 2)], slabs[:4]
    case = f"{n_slices} slices of {size}², slabs of {slab_rows}"

    visible: list[float] = []
    readable: list[float] = []
    with tempfile.TemporaryDirectory() as name, server_elsewhere(Path(name)) as (server, pid):
        client, volumes = server.client(), server.volumes
        os.environ["TILED_API_KEY"] = server.api_key
        publishers = Publishers(
            server.uri, PublishingConfig(directory=volumes, spool=Path(name) / "spool")
        )
        bench = Bench(pid)
        publish(few, publishers, volumes, raw_run(client))  # the first run makes tables
        for n in range(rounds):
            raw = raw_run(client)
            to_a_file: dict[str, Callable[[], None]] = {
                "h5py": lambda: plain_h5py(slabs, volumes),
                "tomogan_bluesky": partial(publish, slabs, publishers, volumes, raw),
            }
            for method in sorted(to_a_file, reverse=n % 2 == 1):
                bench(method, slabs, to_a_file[method])
                clear(volumes)
            bench("write_array", some, lambda: write_array(some, client))
            bench("patch", some, lambda: patch(some, client))
            seen = watched(few, publishers, client, volumes)
            visible += seen["visible"]
            readable += seen["readable"]
            clear(volumes)
        publishers.close()

    def tell(method: str, metric: str, value: float, unit: str) -> None:
        if args.json:
            row = {
                "benchmark": "publish",
                "case": case,
                "method": method,
                "metric": metric,
                "value": value,
                "unit": unit,
            }
            print(json.dumps(row))
        else:
            print(f"{method:16} {metric:22} {value:10.2f} {unit}")

    if not args.json:
        print(case)
    ours = bench.rates["tomogan_bluesky"]
    for method, rates in bench.rates.items():
        megabytes_a_slice = 4 * size**2 / 1e6
        tell(method, "rate", statistics.median(rates), "MB/s")
        tell(method, "time a slice", 1e3 * megabytes_a_slice / statistics.median(rates), "ms")
        tell(method, "processor a slice", 1e3 * statistics.median(bench.processor[method]), "ms")
    for method in ("h5py", "write_array", "patch"):
        ratios = [a / b for a, b in zip(ours, bench.rates[method], strict=True)]
        tell("tomogan_bluesky", f"ratio to {method}", statistics.median(ratios), "")
    tell("tomogan_bluesky", "visible", 1e3 * statistics.median(visible), "ms")
    tell("tomogan_bluesky", "readable", 1e3 * statistics.median(readable), "ms")


if __name__ == "__main__":
    main()
