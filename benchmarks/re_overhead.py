"""What a subscribed callback costs a scan, on a real RunEngine, side by side in one run.

    python benchmarks/re_overhead.py [--pairs 20] [--events 500] [--quick] [--json]

Each round runs the same unpaced scan once without a callback and once with each of the methods, in
an order that turns from round to round; "scan time" is the median over the rounds of the ratio to
the scan without a callback of the same round, with its 95 % interval by bootstrap. `__call__` is
timed from outside, on the RunEngine's thread. Cases:

- small: events of two numbers, while the worker has nothing else to do
- images: 2048 x 2048 uint16 inside each event
- busy: small events, while the worker reconstructs and denoises another scan
- overload: small events, to a worker that is stopped and may hold next to nothing

The methods: our callback with a process and with a thread; bluesky's `BufferingWrapper` around a
callback that does nothing; "synchronous", which reconstructs on the RunEngine's thread what a
projection of that size costs (a back-projection of one detector row).
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import numpy as np
from bluesky import RunEngine
from bluesky.callbacks.buffer import BufferingWrapper
from ophyd import Device, Kind, Signal

from tomogan_bluesky import ReconstructionConfig, TomoGANCallback, WorkerConfig

WITH_IMAGES = 2048


class Timed:
    """A callback, and how long each of its calls took."""

    def __init__(self, callback: Callable) -> None:
        self._callback = callback
        self.seconds: list[float] = []

    def __call__(self, name: str, doc: dict) -> None:
        start = time.perf_counter()
        self._callback(name, doc)
        self.seconds.append(time.perf_counter() - start)


class Image(Signal):
    """A signal whose value is one array, described as what it is."""

    def describe(self) -> dict:
        """The data key."""
        array = self.get()
        return {
            self.name: {
                "source": "benchmark",
                "dtype": "array",
                "shape": list(array.shape),
                "dtype_numpy": array.dtype.str,
            }
        }


class Detector(Device):
    """A number, and an image where there is one."""

    def __init__(self, image: np.ndarray | None) -> None:
        super().__init__(name="detector")
        self.signals = [Signal(name="intensity", value=1.0)]
        if image is not None:
            self.signals.append(Image(name="camera", value=image))
        for signal_ in self.signals:
            signal_.kind = Kind.normal

    def read(self) -> dict:
        """Of all signals."""
        return {k: v for signal_ in self.signals for k, v in signal_.read().items()}

    def describe(self) -> dict:
        """Of all signals."""
        return {k: v for signal_ in self.signals for k, v in signal_.describe().items()}


def plan(image: np.ndarray | None, n_events: int) -> Iterator:
    """As many events as quickly as the RunEngine makes them."""
    detector, rotation = Detector(image), Signal(name="rotation", value=0.0)

    @bpp.run_decorator(md={"plan_name": "overhead"})
    def inner():
        for n in range(n_events):
            yield from bps.abs_set(rotation, n * 180.0 / n_events, wait=True)
            yield from bps.trigger_and_read([detector, rotation])

    return inner()


def run(image: np.ndarray | None, n_events: int, callback: Callable | None) -> tuple[float, Timed]:
    """Seconds of one scan, and the times of the callback."""
    RE = RunEngine()
    timed = Timed(callback or (lambda name, doc: None))
    if callback is not None:
        RE.subscribe(timed)
    start = time.perf_counter()
    RE(plan(image, n_events))
    return time.perf_counter() - start, timed


# Methods ---------------------------------------------------------------------------------------


class Ours:
    """Our callback, with its worker up; before each scan the worker is put into a state."""

    nice = 19

    def __init__(self, kind: str, state: str = "idle") -> None:
        memory_gib = 1e-4 if state == "overload" else None
        config = WorkerConfig(kind=kind, nice=self.nice, memory_gib=memory_gib)
        self._state = state
        self.callback = TomoGANCallback(
            lambda name, doc: None, reconstruction=ReconstructionConfig(slab_rows=1), worker=config
        )
        for name, doc in other_scan(32, 2):
            self.callback(name, doc)
        self.callback.wait()

    def before(self) -> None:
        """Give the worker work that takes it longer than the scan, or stop it."""
        if self._state == "busy":
            for name, doc in other_scan(256, 32):
                self.callback(name, doc)
        if self._state == "overload" and self.callback.worker_pid is not None:
            os.kill(self.callback.worker_pid, signal.SIGSTOP)

    def after(self) -> None:
        """Let the worker finish: the next scan, without a callback, is alone."""
        if self._state == "overload" and self.callback.worker_pid is not None:
            os.kill(self.callback.worker_pid, signal.SIGCONT)
        self.callback.wait()

    def close(self) -> None:
        """End the worker."""
        self.callback.close()


def other_scan(columns: int, rows: int) -> list[tuple[str, dict]]:
    """The documents of a scan with images inside its events."""
    from event_model import compose_run

    said = {"rotation_centre": (columns - 1) / 2}
    bundle = compose_run(metadata={"plan_name": "tomo_scan", "tomogan": said})
    docs = [("start", bundle.start_doc)]
    rng = np.random.default_rng(0)
    key = {"source": "s", "dtype": "array", "shape": [rows, columns], "dtype_numpy": "<u2"}
    angle = {"source": "s", "dtype": "number", "shape": [], "units": "deg"}
    for stream, n in (("dark", 1), ("flat", 1), ("primary", 91)):
        keys = {"camera": key, **({"angle": angle} if stream == "primary" else {})}
        described = bundle.compose_descriptor(
            name=stream, data_keys=keys, object_keys={k: [k] for k in keys}
        )
        docs.append(("descriptor", described.descriptor_doc))
        for i in range(n):
            level = 100 if stream == "dark" else 10_000
            data = {"camera": rng.integers(level, level + 50, (rows, columns), dtype=np.uint16)}
            if stream == "primary":
                data["angle"] = i * 2.0
            event = described.compose_event(
                data=data, timestamps=dict.fromkeys(data, 0.0), validate=False
            )
            docs.append(("event", event))
    docs.append(("stop", bundle.compose_stop()))
    return docs


class Other:
    """A callback without a state."""

    def __init__(self, callback: Callable, close: Callable = lambda: None) -> None:
        self.callback, self.close = callback, close

    def before(self) -> None:
        """Nothing."""

    after = before


def buffering() -> Other:
    """Bluesky's own way, around nothing."""
    wrapper = BufferingWrapper(lambda name, doc: None)
    return Other(wrapper, wrapper.shutdown)


def synchronous() -> Other:
    """What people write first: the work is done in the callback."""
    y, x = np.mgrid[-1:1:512j, -1:1:512j]
    row, slice_ = np.random.default_rng(0).random(512), np.zeros((512, 512))

    def callback(name: str, doc: dict) -> None:
        if name == "event":
            theta = np.deg2rad(doc["data"]["rotation"])
            at = np.clip((x * np.cos(theta) + y * np.sin(theta) + 1) * 256, 0, 511)
            slice_[:] += np.interp(at, np.arange(512), row)

    return Other(callback)


METHODS = {
    "small": {
        "process": lambda: Ours("process"),
        "thread": lambda: Ours("thread"),
        "BufferingWrapper": buffering,
        "synchronous": synchronous,
    },
    "images": {"process": lambda: Ours("process"), "thread": lambda: Ours("thread")},
    "busy": {
        "process": lambda: Ours("process", "busy"),
        "thread": lambda: Ours("thread", "busy"),
    },
    "overload": {"process": lambda: Ours("process", "overload")},
}


# Figures ---------------------------------------------------------------------------------------


def interval(ratios: list[float]) -> tuple[float, float, float]:
    """Median, and its 95 % interval by bootstrap."""
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(ratios, (2000, len(ratios))), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return float(np.median(ratios)), float(low), float(high)


def measure(case: str, n_events: int, pairs: int) -> Iterator[tuple[str, str, float, str]]:
    """Method, metric, value and unit."""
    image = None
    if case == "images":
        image = np.random.default_rng(0).integers(0, 4096, (WITH_IMAGES,) * 2, dtype=np.uint16)
    methods = METHODS[case]
    ratios: dict[str, list[float]] = {name: [] for name in methods}
    shares: dict[str, list[float]] = {name: [] for name in methods}
    calls: dict[str, list[float]] = {name: [] for name in methods}
    made = {name: make() for name, make in methods.items()}
    run(image, min(n_events, 50), None)  # warm
    for n in range(pairs):
        order = sorted(methods)
        for name in order[n % len(order) :] + order[: n % len(order)]:
            times: dict[bool, float] = {}
            for subscribed in (True, False) if n % 2 else (False, True):
                if subscribed:
                    made[name].before()
                    times[True], timed = run(image, n_events, made[name].callback)
                    made[name].after()
                else:
                    times[False], _ = run(image, n_events, None)
            ratios[name].append(times[True] / times[False])
            shares[name].append(sum(timed.seconds) / times[True])
            calls[name] += timed.seconds
    for method in made.values():
        method.close()
    for name in methods:
        microseconds = 1e6 * np.array(calls[name])
        for metric, q in (("call p50", 50), ("call p99", 99), ("call max", 100)):
            yield name, metric, float(np.percentile(microseconds, q)), "us"
        yield name, "calls, share of scan", 100 * float(np.median(shares[name])), "%"
        middle, low, high = interval(ratios[name])
        yield name, "scan time", middle, "of none"
        yield name, "scan time, low", low, "of none"
        yield name, "scan time, high", high, "of none"


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--events", type=int, default=500)
    parser.add_argument("--cases", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--quick", action="store_true", help="few and short, to see that it works")
    parser.add_argument("--json", action="store_true", help="one object a line")
    arguments = parser.parse_args()
    if arguments.quick:
        Ours.nice = 0  # nothing is measured, and a worker that gives way may take minutes to start
    pairs, n_events = (1, 20) if arguments.quick else (arguments.pairs, arguments.events)
    with tempfile.TemporaryDirectory() as state:
        os.environ["XDG_STATE_HOME"] = state
        for case in arguments.cases:
            events = min(n_events, 50) if case == "images" else n_events
            if not arguments.json:
                print(f"\n{case}: {events} events, {pairs} pairs")
            for method, metric, value, unit in measure(case, events, pairs):
                row = {"benchmark": "re_overhead", "case": case, "method": method}
                if arguments.json:
                    print(json.dumps({**row, "metric": metric, "value": value, "unit": unit}))
                else:
                    print(f"{method:<18}{metric:<24}{value:>12.3f} {unit}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
