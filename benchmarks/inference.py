"""Milliseconds that a network takes for a slice: plain, and as a model file is used.

    python benchmarks/inference.py [--quick] [--json] [--threads 2] [--device cuda]

"eager" calls the network as it was trained, one slice at a time. "shipped" is what denoises scans:
`TorchScriptDenoiser` with a TorchScript file (frozen, channels last, one slice at a time), the
estimate of the noise included; "shipped, pt2" is the same with a file of torch.export. The first
case is the model that ships with the package, its uncertainty included, which eager does without;
the others have random weights, which do not change the time. All methods of a network take turns,
so that a busy machine slows all of them; the median of the turns counts. "processor time" is that
of all threads: it hardly depends on what else the machine does. Memory is in large pages, as in
all processes of the package: for none, set THP_MEM_ALLOC_ENABLE=0.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tomogan_bluesky.torch_environment import TORCH_ENVIRONMENT

os.environ.update(TORCH_ENVIRONMENT | os.environ)

import torch

from tomogan_bluesky.config import DEFAULT_MODEL
from tomogan_bluesky.denoise.denoiser import TorchScriptDenoiser
from tomogan_bluesky.models.artifact import export_model, load_generator
from tomogan_bluesky.models.card import ModelCard, TrainedOn
from tomogan_bluesky.models.generator import Generator, build_generator, describe_generator

# Every preset; unet4 in its default width and in that of the review.
NETWORKS: tuple[tuple[str, dict[str, int]], ...] = (
    ("unet4", {"base": 16}),
    ("unet4", {"base": 24}),
    ("tomogan3", {}),
    ("unet4", {"base": 16, "depth": 5}),
    ("unet3d", {"base": 8, "depth": 5}),
    ("msd", {"layers": 30}),
)
Row = tuple[str, str, str, float, str]
"""Case, method, metric, value, unit."""


def take_turns(
    methods: dict[str, Callable[[], object]], turns: int, device: str
) -> dict[str, tuple[float, float]]:
    """Median seconds of a call of each, of the clock and of the processor, after two to warm up."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in methods}
    for turn in range(-2, turns):
        for name, call in methods.items():
            start = time.perf_counter(), time.process_time()
            call()
            if device != "cpu":
                torch.cuda.synchronize()
            end = time.perf_counter(), time.process_time()
            if turn >= 0:
                times[name].append((end[0] - start[0], end[1] - start[1]))
    return {
        name: (statistics.median(w for w, _ in values), statistics.median(p for _, p in values))
        for name, values in times.items()
    }


def methods_of(
    generator: Generator, network: str, size: int, device: str, folder: Path, graph: bool
) -> dict[str, Callable[[], object]]:
    """Ways to denoise the middle one of as many slices as the network sees."""
    slices, context = neighbours(generator.depth, size, device)
    card = ModelCard(
        name="benchmark",
        network=network,
        depth=generator.depth,
        dose_range=(1.0, 1.0),
        reconstruction=TrainedOn(method="gridrec", filter="ramlak"),
        training_command="none",
    )
    methods: dict[str, Callable[[], object]] = {"eager": eager(generator, slices)}
    for name, file in (("shipped", "model.ts"), ("shipped, pt2", "model.pt2")):
        if file.endswith(".pt2") and not graph:
            continue
        export_model(generator, card, folder / file)
        denoiser = TorchScriptDenoiser(folder / file, device)
        methods[name] = partial(denoiser, slices, context)
    return methods


def neighbours(depth: int, size: int, device: str) -> tuple[torch.Tensor, tuple[int, int]]:
    """As many slices as a network sees, and how many of them are not the one to denoise."""
    slices = 0.01 * torch.rand(depth, size, size, device=device)
    return slices, (depth // 2, depth - 1 - depth // 2)


def eager(generator: Generator, slices: torch.Tensor) -> Callable[[], object]:
    """A call of the network, as it is trained."""
    network = generator.to(slices.device).eval()
    noise = torch.tensor([1e-3], device=slices.device)

    def plain() -> torch.Tensor:
        with torch.inference_mode():
            return network(slices[None], noise)

    return plain


def measure(device: str, quick: bool, only: str | None) -> Iterator[Row]:
    """All rows, as they are measured."""
    size, turns = (64, 2) if quick else (512, 7)
    if only in (None, DEFAULT_MODEL):
        generator, card = load_generator(DEFAULT_MODEL)
        slices, context = neighbours(generator.depth, size, device)
        methods: dict[str, Callable[[], object]] = {
            "eager": eager(generator, slices),
            "shipped": partial(TorchScriptDenoiser(DEFAULT_MODEL, device), slices, context),
        }
        case = f"{DEFAULT_MODEL}, {card.network}, {size} x {size}, {device}"
        yield from rows(case, take_turns(methods, turns, device), device)
    for name, options in NETWORKS:
        if only not in (None, name):
            continue
        torch.manual_seed(0)
        generator = build_generator(name, **options)
        network = describe_generator(name, options)
        case = f"{network}, {size} x {size}, {device}"
        with tempfile.TemporaryDirectory() as folder:
            # Tracing takes many seconds: the quick version does it for one network.
            graph = not quick or name == "msd"
            methods = methods_of(generator, network, size, device, Path(folder), graph)
            seconds = take_turns(methods, turns, device)
        yield from rows(case, seconds, device)


def rows(case: str, seconds: dict[str, tuple[float, float]], device: str) -> Iterator[Row]:
    """What is told of a network."""
    for method, (wall_s, processor_s) in seconds.items():
        yield case, method, "time", 1000 * wall_s, "ms/slice"
        if device == "cpu":
            yield case, method, "processor time", 1000 * processor_s, "ms/slice"
    plain = seconds["eager"]
    for method, (wall_s, processor_s) in seconds.items():
        if method != "eager":
            yield case, method, "speed over eager", plain[0] / wall_s, "x"
            if device == "cpu":
                ratio = plain[1] / processor_s
                yield case, method, "speed over eager, processor time", ratio, "x"


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small slices, to see that it works")
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--threads", type=int, help="of the processor (default: torch's choice)")
    parser.add_argument("--network", help="this preset alone, or the shipped model")
    parser.add_argument("--device", help="cpu, cuda, … (default: cpu, and cuda where there is one)")
    arguments = parser.parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    found = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for device in [arguments.device] if arguments.device else found:
        shown = ""
        for case, method, metric, value, unit in measure(
            device, arguments.quick, arguments.network
        ):
            if arguments.json:
                row = {"benchmark": "inference", "case": case, "method": method, "metric": metric}
                print(json.dumps({**row, "value": value, "unit": unit}), flush=True)
                continue
            if case != shown:
                print(f"\n{case}")
                shown = case
            print(f"{method:<16}{metric:<34}{value:>12.4g} {unit}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
