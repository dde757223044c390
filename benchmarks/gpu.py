"""Speed of reconstruction and denoising on a CUDA GPU, as shares of what an H200 could do.

    python benchmarks/gpu.py [--quick] [--json] [--sizes 512 1024 2048] [--device cpu]

Needs numpy and torch only. Reconstruction is measured on attenuation that lies on the device, and
"end-to-end": uint16 counts in pinned host memory come in, slices go out, and copies in both
directions overlap with computing. The bounds are those of one H200, in slices/s: dense products on
tensor cores for direct back-projection, memory bandwidth for the Fourier methods, and PCIe for
end-to-end. What this machine itself copies and multiplies is measured first. The networks run on
512 x 512 slices, with random weights; "graph" is a CUDA graph.

A measurement that fails, or for which no time is left, is named on stderr, and the others go on.
Without a GPU it says so; `--device cpu` is there to see that everything runs.
"""

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from tomogan_bluesky.geometry import ScanGeometry
from tomogan_bluesky.models.base import channels_last
from tomogan_bluesky.models.generator import PRESETS, build_generator
from tomogan_bluesky.recon.fbp import FBP
from tomogan_bluesky.recon.flatfield import attenuation, transmission
from tomogan_bluesky.recon.gridrec import BATCH, Gridrec
from tomogan_bluesky.recon.iterative import SIRT, TotalVariation

if TYPE_CHECKING:  # numpy and torch are all that a machine with a GPU needs to have
    from tomogan_bluesky.recon.backends import Reconstructor

N_ANGLES = {512: 720, 1024: 1440, 2048: 1500}
# Slices/s of an H200 by columns: tensor cores, memory, PCIe in (uint16) and out (float32).
BOUNDS = {
    512: {"tensor cores": 116e3, "memory": 299e3, "PCIe": 52e3},
    1024: {"tensor cores": 14.5e3, "memory": 75e3, "PCIe": 13e3},
    2048: {"tensor cores": 3.5e3, "memory": 19.7e3, "PCIe": 3.3e3},
}
ITERATIONS = 20
Row = tuple[str, str, str, float, str]
"""Case, method, metric, value, unit."""


class Bench:
    """A device, how long to measure on it, and when to stop."""

    def __init__(self, device: torch.device, at_least_s: float, budget_s: float) -> None:
        self.device = device
        self.on_gpu = device.type == "cuda"
        self._at_least_s = at_least_s
        self._end = time.monotonic() + budget_s

    def wait(self) -> None:
        """Wait until the device has done what it was given."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def seconds(self, function: Callable[[], object]) -> float:
        """Time of one call, over as many as take long enough, after three to warm up."""
        for _ in range(3):
            function()
        self.wait()
        n_calls, start = 0, time.perf_counter()
        while True:
            function()
            n_calls += 1
            # Waiting costs microseconds; not to wait would queue calls without end.
            self.wait()
            if time.perf_counter() - start > self._at_least_s:
                return (time.perf_counter() - start) / n_calls

    def attempt(self, case: str, method: str, rows: Callable[[], Iterator[Row]]) -> Iterator[Row]:
        """Rows of one measurement; if it fails, a line on stderr."""
        if time.monotonic() > self._end:
            print(f"{case}, {method}: skipped, no time is left", file=sys.stderr, flush=True)
            return
        try:
            yield from rows()
        # One that fails, for want of memory or a kernel, must not cost the others.
        except Exception as error:
            what = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            print(f"{case}, {method}: failed, {what}", file=sys.stderr, flush=True)
        if self.on_gpu:
            torch.cuda.empty_cache()


def speed(
    case: str, method: str, n_slices: int, time_s: float, limit: str | None, n_columns: int
) -> Iterator[Row]:
    """Rows of one method: slices/s, and the share of what limits it where that is known."""
    rate = n_slices / time_s
    yield case, method, "speed", rate, "slices/s"
    if limit is not None and n_columns in BOUNDS:
        bound = BOUNDS[n_columns][limit]
        yield case, method, f"share of bound ({limit})", 100 * rate / bound, "%"


def machine(bench: Bench, quick: bool) -> Iterator[Row]:
    """What the device copies and multiplies, to judge the shares by."""
    case, size = "machine", 2**20 if quick else 2**28

    def copies() -> Iterator[Row]:
        source = torch.zeros(size, device=bench.device)
        target = torch.zeros_like(source)
        rate = 8 * size / bench.seconds(lambda: target.copy_(source)) / 1e9
        yield case, "memory", "speed, read and written", rate, "GB/s"
        if not bench.on_gpu:
            return
        host = torch.empty(size, pin_memory=True)
        for name, to, of in (("PCIe in", source, host), ("PCIe out", host, source)):
            time_s = bench.seconds(partial(to.copy_, of, non_blocking=True))
            yield case, name, "speed", 4 * size / time_s / 1e9, "GB/s"

    def products() -> Iterator[Row]:
        n = 128 if quick else 8192
        for name, dtype in (("fp16", torch.float16), ("bf16", torch.bfloat16)):
            a = torch.ones((n, n), dtype=dtype, device=bench.device)
            rate = 2 * n**3 / bench.seconds(partial(torch.matmul, a, a)) / 1e12
            yield case, f"matrix product, {name}", "speed", rate, "TFLOP/s"

    yield from bench.attempt(case, "copies", copies)
    yield from bench.attempt(case, "products", products)


def on_device(bench: Bench, geometry: ScanGeometry) -> Iterator[Row]:
    """Reconstruction of sinograms that lie on the device."""
    n, device = geometry.n_columns, bench.device
    case = f"{n}x{geometry.n_angles}"
    n_slices = BATCH[device.type]
    shape = (n_slices, geometry.n_angles, n)

    def rows(name: str, limit: str | None, make: "Callable[[], Reconstructor]") -> Iterator[Row]:
        reconstruct = make()
        sinograms = torch.rand(shape, device=device)
        time_s = bench.seconds(lambda: reconstruct(sinograms))
        yield from speed(case, name, n_slices, time_s, limit, n)

    for name, limit, make in (
        ("gridrec 1.25", "memory", lambda: Gridrec(geometry, "shepp", 1.25, device)),
        ("fbp", "tensor cores", lambda: FBP(geometry, "shepp", device)),
        (f"sirt, {ITERATIONS} iterations", None, lambda: SIRT(geometry, ITERATIONS, device=device)),
        (
            f"tv, {ITERATIONS} iterations",
            None,
            lambda: TotalVariation(geometry, ITERATIONS, device=device),
        ),
    ):
        yield from bench.attempt(case, name, partial(rows, name, limit, make))


class Conveyor:
    """Slabs of counts in host memory to slices in host memory, on three streams.

    While one slab is computed, the next one comes in, and the one before goes out.
    """

    def __init__(self, bench: Bench, reconstruct: Gridrec, n_slices: int) -> None:
        n, device = reconstruct.geometry.n_columns, bench.device
        self.device = device
        self.reconstruct = reconstruct
        self.dark = torch.full((n_slices, n), 100.0, device=device)
        self.flat = torch.full((n_slices, n), 50000.0, device=device)
        # Two of each: one is filled while the other is used.
        shape = (n_slices, reconstruct.geometry.n_angles, n)
        self.counts = [torch.empty(shape, dtype=torch.uint16, device=device) for _ in range(2)]
        self.slices = [torch.empty((n_slices, n, n), pin_memory=bench.on_gpu) for _ in range(2)]
        self.into, self.out = (torch.cuda.Stream(device) if bench.on_gpu else None for _ in "io")

    def __call__(self, slabs: list[torch.Tensor]) -> None:
        """Queue slabs (row, angle, column)."""
        self._fetch(0, slabs)
        for index in range(len(slabs)):
            self._wait(None, self.into)
            self._fetch(index + 1, slabs)
            corrected = transmission(self.counts[index % 2], self.dark, self.flat)
            lines, _ = attenuation(corrected, 1e-6)
            slices = self.reconstruct(lines)
            self._wait(self.out, None)
            with torch.cuda.stream(self.out):
                self.slices[index % 2].copy_(slices, non_blocking=True)
                if self.out is not None:
                    slices.record_stream(self.out)

    def _fetch(self, index: int, slabs: list[torch.Tensor]) -> None:
        if index < len(slabs):
            # Not before what was computed from this memory is done.
            self._wait(self.into, None)
            with torch.cuda.stream(self.into):
                self.counts[index % 2].copy_(slabs[index], non_blocking=True)

    def _wait(self, who: "torch.cuda.Stream | None", for_whom: "torch.cuda.Stream | None") -> None:
        """Let a stream wait for what another was given so far; None: the one that computes."""
        if self.into is not None:
            computing = torch.cuda.current_stream(self.device)
            (who or computing).wait_stream(for_whom or computing)


def fourier(bench: Bench, geometry: ScanGeometry) -> Iterator[Row]:
    """Gridrec with an oversampling of 1.5: its plan, on the device, and end-to-end."""
    n, device = geometry.n_columns, bench.device
    case, name = f"{n}x{geometry.n_angles}", "gridrec 1.5"
    n_slices = BATCH[device.type]

    made: list[Gridrec] = []

    def of_sinograms() -> Iterator[Row]:
        start = time.perf_counter()
        made.append(Gridrec(geometry, "shepp", 1.5, device))
        yield case, name, "plan, once a scan", time.perf_counter() - start, "s"
        sinograms = torch.rand((n_slices, geometry.n_angles, n), device=device)
        time_s = bench.seconds(lambda: made[0](sinograms))
        yield from speed(case, name, n_slices, time_s, "memory", n)
        if bench.on_gpu:
            peak = torch.cuda.max_memory_allocated(device) / 2**30
            yield case, name, "peak memory so far", peak, "GiB"

    def of_counts() -> Iterator[Row]:
        counts = np.random.default_rng(0).integers(
            1000, 50000, (n_slices, geometry.n_angles, n), dtype=np.uint16
        )
        slab = torch.from_numpy(counts)
        slabs = [slab.pin_memory() if bench.on_gpu else slab] * 8
        conveyor = Conveyor(bench, made[0], n_slices)
        time_s = bench.seconds(lambda: conveyor(slabs))
        n_in_all = len(slabs) * n_slices
        yield from speed(case, f"{name}, end-to-end", n_in_all, time_s, "PCIe", n)

    yield from bench.attempt(case, name, of_sinograms)
    yield from bench.attempt(case, f"{name}, end-to-end", of_counts)


def as_graph(
    run: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], x: torch.Tensor, level: torch.Tensor
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """A network's kernels for one input, recorded once and launched as one."""
    side = torch.cuda.Stream(x.device)
    side.wait_stream(torch.cuda.current_stream(x.device))
    with torch.cuda.stream(side):
        for _ in range(3):
            run(x, level)
    torch.cuda.current_stream(x.device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run(x, level)

    def replay(x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        graph.replay()
        return result

    return replay


def network(bench: Bench, name: str, size: int, n_slices: int) -> Iterator[Row]:
    """A generator in each precision and layout; errors are to the same network in float32."""
    device = bench.device
    case = f"{name} {size}x{size}, {n_slices} at once"
    torch.manual_seed(0)
    model = build_generator(name).to(device).eval()
    x = torch.rand((n_slices, model.depth, size, size), device=device)
    noise = torch.full((n_slices,), 0.1, device=device)
    wanted: list[torch.Tensor] = []
    kinds = ("eager", "TorchScript", "graph", "TorchScript, graph")
    layouts = {"": torch.contiguous_format, ", channels_last": torch.channels_last}
    if any(parameter.ndim == 5 for parameter in model.parameters()):
        del layouts[", channels_last"]  # it is for two-dimensional convolutions
    for precision, dtype in (
        ("fp32", torch.float32),
        ("tf32", torch.float32),
        ("fp16", torch.float16),
        ("bf16", torch.bfloat16),
    ):
        for layout, memory_format in layouts.items():
            cast = copy.deepcopy(model).to(dtype=dtype)
            if memory_format == torch.channels_last:
                channels_last(cast)
            values = x.to(dtype=dtype, memory_format=memory_format)
            level = noise.to(dtype)
            for kind in kinds if bench.on_gpu else kinds[:2]:
                label = f"{precision}{layout}, {kind}"

                def rows(
                    label: str = label,
                    kind: str = kind,
                    cast: torch.nn.Module = cast,
                    values: torch.Tensor = values,
                    level: torch.Tensor = level,
                ) -> Iterator[Row]:
                    run = torch.jit.freeze(torch.jit.script(cast)) if "Torch" in kind else cast
                    run = as_graph(run, values, level) if "graph" in kind else run
                    time_s = bench.seconds(lambda: run(values, level))
                    yield case, label, "time", 1000 * time_s / n_slices, "ms/slice"
                    found = run(values, level).float()
                    if not wanted:
                        wanted.append(found.clone())
                    error = (found - wanted[0]).norm() / wanted[0].norm()
                    yield case, label, "relative error", float(error), ""

                with (
                    torch.inference_mode(),
                    # Without enabled=True this would switch cuDNN off.
                    torch.backends.cudnn.flags(
                        enabled=True, benchmark=True, allow_tf32=precision == "tf32"
                    ),
                ):
                    yield from bench.attempt(case, label, rows)


def measure(bench: Bench, sizes: list[int], quick: bool) -> Iterator[Row]:
    """All rows, as they are measured: what was asked for first comes first."""
    yield from machine(bench, quick)
    geometries = [
        ScanGeometry(np.arange(a) * np.pi / a, n / 2 - 3.3, n)
        for n, a in ((n, N_ANGLES.get(n, n)) for n in sizes)
    ]
    for geometry in geometries:
        yield from fourier(bench, geometry)
    for n_slices in (1, 8) if bench.on_gpu else (1,):
        yield from network(bench, "unet4", 32 if quick else 512, n_slices)
    for geometry in geometries:
        yield from on_device(bench, geometry)
    for name in PRESETS:
        if name != "unet4":
            yield from network(bench, name, 32 if quick else 512, 8 if bench.on_gpu else 1)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--sizes", type=int, nargs="+", help="columns (default: 512 1024 2048)")
    parser.add_argument("--seconds", type=float, default=400.0, help="start nothing new after")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device: there is nothing to measure", file=sys.stderr)
        return 0
    quick = arguments.quick
    device = torch.device(arguments.device)
    bench = Bench(device, 0.0 if quick else 0.5, arguments.seconds)
    name = torch.cuda.get_device_name(device) if bench.on_gpu else "the processor"
    print(f"torch {torch.__version__} on {name}", file=sys.stderr)
    shown = ""
    sizes = arguments.sizes or ([64] if quick else list(N_ANGLES))
    for case, method, metric, value, unit in measure(bench, sizes, quick):
        if arguments.json:
            row = {"benchmark": "gpu", "case": case, "method": method, "metric": metric}
            print(json.dumps({**row, "value": value, "unit": unit}), flush=True)
            continue
        if case != shown:
            print(f"\n{case}")
            shown = case
        print(f"{method:<42}{metric:<32}{value:>12.4g} {unit}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
