"""What a subscribed callback costs a scan, on a real RunEngine, side by side in one run.

    python benchmarks/re_overhead.py [--pairs 20] [--events 500] [--cases …] [--nice 19] [--quick]
                                     [--json]

Each round runs the same scan once without a callback and once with each of the methods, in an
order that turns from round to round; "scan time" is the median over the rounds of the ratio to the
scan without a callback beside it, with its 95 % interval by bootstrap. "scan CPU" is the same ratio
of the processor time of the RunEngine's process, which other programs disturb less: its excess over
1 is what the RunEngine's thread may have to wait for the interpreter. `__call__` is timed from
outside, on the RunEngine's thread. Cases:

- small: events of two numbers, while the worker has nothing else to do
- busy: the same, while the worker reconstructs and denoises another scan
- overload: the same, to a worker that is stopped and may hold next to nothing
- images: 2048 x 2048 uint16 inside each event, one every 20 ms (400 MB/s)
- unpaced images: the same as quickly as the RunEngine makes them (some GB/s)

The methods: "nothing", a callback that does nothing, which shows what this can measure; our
callback with a process and with a thread; bluesky's `BufferingWrapper` around a callback that does
nothing; "synchronous", which reconstructs on the RunEngine's thread what a projection of that size
costs (a back-projection of one detector row).
"""

import argparse
import gc
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import numpy as np
from bluesky import RunEngine
from bluesky.callbacks.buffer import BufferingWrapper
from ophyd import Device, Kind, Signal

from tomogan_bluesky import ReconstructionConfig, TomoGANCallback, WorkerConfig
from tomogan_bluesky.sim.plans import Plan

SIZE = 2048
IMAGE_EVERY_S = 0.02


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


def plan(image: np.ndarray | None, n_events: int, every_s: float) -> Plan:
    """As many events, with a pause for each."""
    detector, rotation = Detector(image), Signal(name="rotation", value=0.0)

    @bpp.run_decorator(md={"plan_name": "overhead"})
    def inner() -> Plan:
        for n in range(n_events):
            yield from bps.abs_set(rotation, n * 180.0 / n_events, wait=True)
            yield from bps.trigger_and_read([detector, rotation])
            if every_s:
                yield from bps.sleep(every_s)

    return inner()


class Scanner:
    """Takes the same scan again and again."""

    def __init__(self, image: np.ndarray | None, n_events: int, every_s: float) -> None:
        self._RE = RunEngine()
        self._arguments = image, n_events, every_s

    def scan(self, callback: Callable | None) -> tuple[float, float, Timed]:
        """Seconds of one scan by the clock and of the processor, and the times of the callback."""
        timed = Timed(callback or (lambda name, doc: None))
        token = None if callback is None else self._RE.subscribe(timed)
        gc.collect()  # one more or less of these, somewhere, is some per cent of a scan
        wall, cpu = time.perf_counter(), time.process_time()
        self._RE(plan(*self._arguments))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        if token is not None:
            self._RE.unsubscribe(token)
        return wall, cpu, timed


# Methods ---------------------------------------------------------------------------------------


class Ours:
    """Our callback, with its worker up; before each scan the worker is put into a state."""

    nice = 19

    def __init__(self, kind: str, state: str = "idle") -> None:
        self.busy: list[bool] = []  # to the end of each scan
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
        if self._state == "busy":
            self.busy.append(self._other_goes_on())
        if self._state == "overload" and self.callback.worker_pid is not None:
            os.kill(self.callback.worker_pid, signal.SIGCONT)
        self.callback.wait()

    def _other_goes_on(self) -> bool:
        try:
            self.callback.wait(0)
        except TimeoutError:
            return True
        return False

    def close(self) -> None:
        """End the worker."""
        self.callback.close()


def other_scan(columns: int, rows: int) -> list[tuple[str, Any]]:
    """The documents of a scan with images inside its events."""
    from event_model import compose_run

    said = {"rotation_centre": (columns - 1) / 2}
    bundle = compose_run(metadata={"plan_name": "tomo_scan", "tomogan": said})
    docs: list[tuple[str, Any]] = [("start", bundle.start_doc)]
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
            image = rng.integers(level, level + 50, (rows, columns), dtype=np.uint16)
            data: dict[str, Any] = {"camera": image}
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

    busy = ()

    def __init__(self, callback: Callable, close: Callable = lambda: None) -> None:
        self.callback, self.close = callback, close

    def before(self) -> None:
        """Nothing."""

    after = before


def nothing() -> Other:
    """What is measured where there is nothing to measure."""
    return Other(lambda name, doc: None)


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


METHODS: dict[str, dict[str, Callable[[], Ours | Other]]] = {
    "small": {
        "nothing": nothing,
        "process": lambda: Ours("process"),
        "thread": lambda: Ours("thread"),
        "BufferingWrapper": buffering,
        "synchronous": synchronous,
    },
    "busy": {
        "nothing": nothing,
        "process": lambda: Ours("process", "busy"),
        "thread": lambda: Ours("thread", "busy"),
    },
    "overload": {"process": lambda: Ours("process", "overload")},
    "images": {
        "nothing": nothing,
        "process": lambda: Ours("process"),
        "thread": lambda: Ours("thread"),
    },
}
METHODS["unpaced images"] = METHODS["images"]


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
    if "images" in case:
        image = np.random.default_rng(0).integers(0, 4096, (SIZE, SIZE), dtype=np.uint16)
    scanner = Scanner(image, n_events, IMAGE_EVERY_S if case == "images" else 0.0)
    methods = METHODS[case]
    ratios: dict[str, list[float]] = {name: [] for name in methods}
    cpu_ratios: dict[str, list[float]] = {name: [] for name in methods}
    shares: dict[str, list[float]] = {name: [] for name in methods}
    calls: dict[str, list[float]] = {name: [] for name in methods}
    made = {name: make() for name, make in methods.items()}
    scanner.scan(None)  # warm
    for n in range(pairs):
        order = sorted(methods)
        for name in order[n % len(order) :] + order[: n % len(order)]:
            method = made[name]
            for subscribed in (True, False) if n % 2 else (False, True):
                if subscribed:
                    method.before()
                    wall, cpu, timed = scanner.scan(method.callback)
                    method.after()
                else:
                    wall_of_none, cpu_of_none, _ = scanner.scan(None)
            ratios[name].append(wall / wall_of_none)
            cpu_ratios[name].append(cpu / cpu_of_none)
            shares[name].append(sum(timed.seconds) / wall)
            calls[name] += timed.seconds
    for method in made.values():
        method.close()
    for name in methods:
        microseconds = 1e6 * np.array(calls[name])
        for metric, q in (("call p50", 50), ("call p99", 99), ("call max", 100)):
            yield name, metric, float(np.percentile(microseconds, q)), "us"
        yield name, "calls, share of scan", 100 * float(np.median(shares[name])), "%"
        for metric, values in (("scan time", ratios[name]), ("scan CPU", cpu_ratios[name])):
            middle, low, high = interval(values)
            yield name, metric, middle, "of none"
            yield name, f"{metric}, low", low, "of none"
            yield name, f"{metric}, high", high, "of none"
        if made[name].busy:
            yield name, "scans with a busy worker", 100 * float(np.mean(made[name].busy)), "%"


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--events", type=int, default=500)
    parser.add_argument("--cases", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument(
        "--nice", type=int, default=19, help="of the worker (19); on a busy machine, less"
    )
    parser.add_argument("--quick", action="store_true", help="few and short, to see that it works")
    parser.add_argument("--json", action="store_true", help="one object a line")
    arguments = parser.parse_args()
    Ours.nice = 0 if arguments.quick else arguments.nice  # when quick, nothing is measured
    pairs, n_events = (1, 20) if arguments.quick else (arguments.pairs, arguments.events)
    with tempfile.TemporaryDirectory() as state:
        os.environ["XDG_STATE_HOME"] = state
        for case in arguments.cases:
            events = min(n_events, 50) if "images" in case else n_events
            if not arguments.json:
                print(f"\n{case}: {events} events, {pairs} pairs")
            for method, metric, value, unit in measure(case, events, pairs):
                row = {"benchmark": "re_overhead", "case": case, "method": method}
                if arguments.json:
                    print(json.dumps({**row, "metric": metric, "value": value, "unit": unit}))
                else:
                    print(f"{method:<18}{metric:<26}{value:>12.3f} {unit}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
