"""What it costs to publish slices, and when somebody who watches can see them.

    python benchmarks/publish.py [--quick] [--json]

Slabs of float32 slices, which do not compress, go one after the other, all methods in turns in each
round, to

- "h5py": a file, as plainly as h5py can, made known to the disk as often as ours (a flush a slab,
  and no fsync);
- "tomogan_bluesky": a derived run in a Tiled server of a process of its own, file and documents;
- "write_array": the same server over HTTP, an array a slice;
- "patch": the same, one array that grows by a slab.

"rate" is the median of the rounds, "ratio" that of tomogan_bluesky to the other in the same round.
"visible" is the time from a finished slab to word of its last slice at a client that has subscribed
to the run over a websocket, in a thread of this process; "readable" includes reading that slab. All
but these two include making the run and ending it.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import h5py
import numpy as np
from bluesky_tiled_plugins.streaming import subscribe_to_streams

from tomogan_bluesky.config import PublishingConfig
from tomogan_bluesky.publish.documents import DerivedRun
from tomogan_bluesky.publish.identity import derivation_of
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
def server_elsewhere(folder: Path) -> Iterator[CatalogServer]:
    """A catalog that another process serves."""
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
            yield server
        process.stdin.close()


def plain_h5py(slabs: list[np.ndarray], folder: Path) -> float:
    started = time.perf_counter()
    image = slabs[0].shape[1:]
    with h5py.File(folder / f"{uuid4()}.h5", "x", libver="latest") as file:
        data = file.create_dataset(
            "data", (0, *image), np.float32, maxshape=(None, *image), chunks=(1, *image)
        )
        file.swmr_mode = True
        for slab in slabs:
            first = len(data)
            data.resize(first + len(slab), axis=0)
            data[first:] = slab
            data.flush()
    return time.perf_counter() - started


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
                if not self.seen.wait_for(lambda n=name: self.count[n] >= n_slices, 60):
                    raise SystemExit("the subscribed client saw nothing within 60 s")
            times[name] = time.perf_counter()
        return times

    def wanted(self, start: dict) -> bool:
        return start.get("original_run_uid") == self.raw_uid

    def __call__(self, update) -> None:
        patch = update.update.patch
        self._note("visible", patch.offset[0] + patch.shape[0])
        update.data()
        self._note("readable", patch.offset[0] + patch.shape[0])

    def _note(self, name: str, n_slices: int) -> None:
        with self.seen:
            self.count[name] = max(self.count[name], n_slices)
            self.seen.notify_all()


def ours(slabs: list[np.ndarray], client, directory: Path, watch: bool) -> dict[str, list[float]]:
    """Seconds: of all ("write"), and for each slab until it is "visible" and "readable"."""
    raw_uid = str(uuid4())
    run = DerivedRun(
        TiledPublisher(client),
        {"uid": raw_uid},
        derivation=derivation_of(raw_uid, "", ""),
        attempt=1,
        metadata={"slab_rows": len(slabs[0])},
        config=PublishingConfig(directory=directory),
    )
    took: dict[str, list[float]] = {"write": [], "visible": [], "readable": []}
    n_slices = sum(map(len, slabs))

    def publish(watcher: Watcher | None) -> None:
        started = time.perf_counter()
        run.start()
        run.open_volume((n_slices, *slabs[0].shape[1:]), (QUANTITY,))
        first = 0
        for slab in slabs:
            finished = time.perf_counter()
            run.write_slab(first, {QUANTITY: slab}, {})
            first += len(slab)
            if watcher is not None:
                for name, seconds in watcher.wait(first).items():
                    took[name].append(seconds - finished)
        run.stop("success", "", {})
        took["write"].append(time.perf_counter() - started)

    if watch:
        watcher = Watcher(raw_uid)
        with subscribe_to_streams(
            client,
            watcher,
            streams={"primary": (QUANTITY,)},
            metadata_filter=watcher.wanted,
            start=None,
            max_size=2**26,
        ):
            publish(watcher)
    else:
        publish(None)
    assert run.volume_path is not None
    run.volume_path.unlink()
    return took


def write_array(slabs: list[np.ndarray], client) -> float:
    parent = client.create_container(str(uuid4()))
    started = time.perf_counter()
    for slab in slabs:
        for slice_ in slab:
            parent.write_array(slice_)
    return time.perf_counter() - started


def patch(slabs: list[np.ndarray], client) -> float:
    parent = client.create_container(str(uuid4()))
    started = time.perf_counter()
    array = parent.write_array(slabs[0])
    offset = len(slabs[0])
    for slab in slabs[1:]:
        array.patch(slab, offset=(offset, 0, 0), extend=True)
        offset += len(slab)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small, to see that it works")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    args = parser.parse_args()
    size, n_slabs, slab_rows, rounds = (128, 2, 2, 1) if args.quick else (1024, 4, 8, 5)
    rng = np.random.default_rng(0)
    slabs = [rng.random((slab_rows, size, size), np.float32) for _ in range(n_slabs)]
    megabytes = sum(slab.nbytes for slab in slabs) / 1e6
    n_slices = n_slabs * slab_rows
    case = f"{n_slices} slices of {size}², slabs of {slab_rows}"

    seconds: dict[str, list[float]] = {m: [] for m in ("h5py", "ours", "write_array", "patch")}
    visible: list[float] = []
    readable: list[float] = []
    with tempfile.TemporaryDirectory() as folder, server_elsewhere(Path(folder)) as server:
        client = server.client()
        ours(slabs[:1], client, server.volumes, watch=False)  # the first run makes tables
        for _ in range(rounds):
            seconds["h5py"].append(plain_h5py(slabs, server.volumes))
            seconds["ours"].append(ours(slabs, client, server.volumes, watch=False)["write"][0])
            seconds["write_array"].append(write_array(slabs, client))
            seconds["patch"].append(patch(slabs, client))
            watched = ours(slabs, client, server.volumes, watch=True)
            visible += watched["visible"]
            readable += watched["readable"]

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
    for method, times in seconds.items():
        name = "tomogan_bluesky" if method == "ours" else method
        tell(name, "rate", megabytes / statistics.median(times), "MB/s")
        tell(name, "time a slice", 1e3 * statistics.median(times) / n_slices, "ms")
    for method in ("h5py", "write_array", "patch"):
        ratios = [a / b for a, b in zip(seconds[method], seconds["ours"], strict=True)]
        tell("tomogan_bluesky", f"ratio to {method}", statistics.median(ratios), "")
    tell("tomogan_bluesky", "visible", 1e3 * statistics.median(visible), "ms")
    tell("tomogan_bluesky", "readable", 1e3 * statistics.median(readable), "ms")


if __name__ == "__main__":
    main()
