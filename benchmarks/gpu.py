"""Speed of reconstruction and denoising on a CUDA GPU, as shares of what an H200 could do.

    python benchmarks/gpu.py [--quick] [--json] [--device cpu]

Needs numpy and torch only. Reconstruction is measured on attenuation that lies on the device, and
"end-to-end": uint16 counts in pinned host memory come in, slices go out, and copies overlap with
computing. The bounds are those of one H200, in slices/s: dense products on tensor cores for direct
back-projection, memory bandwidth for the Fourier methods, and PCIe for end-to-end. The networks
run on 512 x 512 slices, with random weights. Without a GPU it says so; `--device cpu` is there to
see that everything runs.
"""

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch

from tomogan_bluesky.geometry import ScanGeometry
from tomogan_bluesky.models.generator import PRESETS, build_generator
from tomogan_bluesky.recon.fbp import FBP
from tomogan_bluesky.recon.flatfield import attenuation, transmission
from tomogan_bluesky.recon.gridrec import BATCH, Gridrec

# Slices/s of an H200 by columns: tensor cores, memory, PCIe in (uint16) and out (float32).
BOUNDS = {
    512: {"tensor cores": 116e3, "memory": 299e3, "PCIe": 52e3},
    1024: {"tensor cores": 14.5e3, "memory": 75e3, "PCIe": 13e3},
    2048: {"tensor cores": 3.5e3, "memory": 19.7e3, "PCIe": 3.3e3},
}
Row = tuple[str, str, str, float, str]
"""Case, method, metric, value, unit."""


def seconds(function: Callable[[], object], device: torch.device, at_least: float) -> float:
    """Time of one call, over as many as take `at_least` seconds, after two to warm up."""
    for _ in range(2):
        function()
    wait(device)
    n_calls, start = 0, time.perf_counter()
    while True:
        function()
        n_calls += 1
        # Waiting costs microseconds; not to wait would queue calls without end.
        wait(device)
        if time.perf_counter() - start > at_least:
            return (time.perf_counter() - start) / n_calls


def wait(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def speed(
    case: str, method: str, n_slices: int, time_s: float, limit: str, n_columns: int
) -> Iterator[Row]:
    """Rows of one method: slices/s, and the share of what limits it where that is known."""
    rate = n_slices / time_s
    yield case, method, "speed", rate, "slices/s"
    if n_columns in BOUNDS:
        bound = BOUNDS[n_columns][limit]
        yield case, method, f"share of bound ({limit})", 100 * rate / bound, "%"


def on_device(geometry: ScanGeometry, device: torch.device, at_least: float) -> Iterator[Row]:
    """Reconstruction of sinograms that lie on the device."""
    n = geometry.n_columns
    case = f"{n}x{geometry.n_angles}"
    n_slices = BATCH[device.type]
    sinograms = torch.rand((n_slices, geometry.n_angles, n), device=device)
    for name, make, limit in (
        ("gridrec 1.25", lambda: Gridrec(geometry, "shepp", 1.25, device), "memory"),
        ("gridrec 1.5", lambda: Gridrec(geometry, "shepp", 1.5, device), "memory"),
        ("fbp", lambda: FBP(geometry, "shepp", device), "tensor cores"),
    ):
        reconstruct = make()
        time_s = seconds(lambda r=reconstruct: r(sinograms), device, at_least)
        yield from speed(case, name, n_slices, time_s, limit, n)


class Lane:
    """Takes slabs of counts from host memory to slices in host memory, on a stream of its own.

    While one lane waits for its copies, the other computes.
    """

    def __init__(self, geometry: ScanGeometry, device: torch.device, n_slices: int) -> None:
        n, on_gpu = geometry.n_columns, device.type == "cuda"
        self.stream = torch.cuda.Stream(device) if on_gpu else None
        self.device = device
        self.reconstruct = Gridrec(geometry, "shepp", device=device)
        self.dark = torch.full((n_slices, n), 100.0, device=device)
        self.flat = torch.full((n_slices, n), 50000.0, device=device)
        self.slices = torch.empty((n_slices, n, n), pin_memory=on_gpu)

    def __call__(self, counts: torch.Tensor) -> None:
        """Queue one slab (row, angle, column)."""
        with torch.cuda.stream(self.stream):
            projections = counts.to(self.device, non_blocking=True)
            corrected = transmission(projections, self.dark, self.flat)
            lines, _ = attenuation(corrected, 1e-6)
            self.slices.copy_(self.reconstruct(lines), non_blocking=True)


def end_to_end(geometry: ScanGeometry, device: torch.device, at_least: float) -> Iterator[Row]:
    """Counts in host memory to slices in host memory."""
    n, on_gpu = geometry.n_columns, device.type == "cuda"
    n_slices = BATCH[device.type]
    counts = np.random.default_rng(0).integers(
        1000, 50000, (n_slices, geometry.n_angles, n), dtype=np.uint16
    )
    slab = torch.from_numpy(counts)
    slab = slab.pin_memory() if on_gpu else slab
    lanes = [Lane(geometry, device, n_slices) for _ in range(2)]
    n_slabs = 8

    def run() -> None:
        for i in range(n_slabs):
            lanes[i % 2](slab)

    time_s = seconds(run, device, at_least)
    case = f"{n}x{geometry.n_angles}"
    yield from speed(case, "gridrec 1.5, end-to-end", n_slabs * n_slices, time_s, "PCIe", n)


def network(name: str, size: int, device: torch.device, at_least: float) -> Iterator[Row]:
    """A generator in each precision and layout; errors are to the same network in float32."""
    torch.manual_seed(0)
    model = build_generator(name).to(device).eval()
    n_slices = 8 if device.type == "cuda" else 1
    x = torch.rand((n_slices, model.depth, size, size), device=device)
    noise = torch.full((n_slices,), 0.1, device=device)
    formats = [("", torch.contiguous_format), (", channels_last", torch.channels_last)]
    with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
        wanted = model(x, noise)
    for precision, dtype in (
        ("fp32", torch.float32),
        ("tf32", torch.float32),
        ("fp16", torch.float16),
        ("bf16", torch.bfloat16),
    ):
        for layout, memory_format in formats:
            cast = copy.deepcopy(model).to(dtype=dtype, memory_format=memory_format)
            values = x.to(dtype=dtype, memory_format=memory_format)
            level = noise.to(dtype)
            for kind, run in (("", cast), (", TorchScript", torch.jit.script(cast))):
                label = f"{precision}{layout}{kind}"
                with (
                    torch.inference_mode(),
                    torch.backends.cudnn.flags(allow_tf32=precision == "tf32"),
                ):
                    time_s = seconds(lambda r=run, v=values, n=level: r(v, n), device, at_least)
                    error = (run(values, level).float() - wanted).norm() / wanted.norm()
                case = f"{name} {size}x{size}"
                yield case, label, "time", 1000 * time_s / n_slices, "ms/slice"
                yield case, label, "relative error", float(error), ""


def measure(device: torch.device, quick: bool) -> Iterator[Row]:
    """All rows, as they are measured."""
    at_least = 0.0 if quick else 1.0
    sizes = [(64, 45)] if quick else [(512, 720), (1024, 1440), (2048, 1500)]
    for n_columns, n_angles in sizes:
        theta = np.arange(n_angles) * np.pi / n_angles
        geometry = ScanGeometry(theta, n_columns / 2 - 3.3, n_columns)
        yield from on_device(geometry, device, at_least)
        yield from end_to_end(geometry, device, at_least)
    for name in PRESETS:
        yield from network(name, 64 if quick else 512, device, at_least)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device: there is nothing to measure", file=sys.stderr)
        return 0
    device = torch.device(arguments.device)
    shown = ""
    for case, method, metric, value, unit in measure(device, arguments.quick):
        if arguments.json:
            row = {"benchmark": "gpu", "case": case, "method": method, "metric": metric}
            print(json.dumps({**row, "value": value, "unit": unit}), flush=True)
            continue
        if case != shown:
            print(f"\n{case}")
            shown = case
        print(f"{method:<34}{metric:<32}{value:>12.4g} {unit}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
