"""How fast batches of crops come from pairs on disk, beside the same pairs in memory.

    python benchmarks/loader.py [--quick] [--json] [--device cuda] [--gigabytes 4] [--folder DIR]

All in turns, in one run. "mapped" is a file as training reads it; "from disk" the same, its pages
dropped from memory before each batch, as where the file is larger than what is free. "step" is one
step of training a ``unet4`` on the device, forward and back: batches are cut out in a thread of
their own beside a GPU, so the loader keeps it busy as long as its share of a step is below 1.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

# As the command line of the package does; read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch

from tomogan_bluesky.models.base import channels_last
from tomogan_bluesky.models.generator import build_generator
from tomogan_bluesky.training.crops import Batch, Crops
from tomogan_bluesky.training.pairs import Pairs
from tomogan_bluesky.training.pairs_file import open_pairs, write_pairs
from tomogan_bluesky.training.settings import TrainingConfig

Loader = tuple[Callable[[np.random.Generator], Batch], Callable[[], None] | None]
"""Draws a batch; what is to be done before, and not timed."""

_REALISATIONS = 3
_SLAB = 8
_PIXELS = 4 * 2  # bytes a pixel of a crop: of the noisy slice and of its target


def slabs(n_slices: int, size: int) -> Iterator[tuple[int, Pairs]]:
    """Slices of noise: what is in them does not matter here."""
    random = torch.Generator().manual_seed(0)
    noisy = torch.randn(_SLAB, _REALISATIONS, size, size, generator=random)
    pairs = Pairs.of(noisy, noisy[:, 0].clone(), torch.ones(_SLAB, _REALISATIONS))
    for first in range(0, n_slices, _SLAB):
        yield first, pairs


def in_memory(pairs: Pairs) -> Pairs:
    """The same, copied."""
    return Pairs.of(pairs.noisy.clone(), pairs.target.clone(), pairs.dose)


def seconds(
    work: Callable[[], object], rounds: int, before: Callable[[], None] | None = None
) -> float:
    """Of one call, what is done before each of them not counted."""
    spent = 0.0
    for _ in range(rounds):
        if before is not None:
            before()
        start = time.perf_counter()
        work()
        spent += time.perf_counter() - start
    return spent / rounds


class FromDisk:
    """Crops of a file of which nothing is in memory when a batch is drawn."""

    def __init__(self, path: Path, config: TrainingConfig) -> None:
        self._path, self._config = path, config
        self._crops: Crops | None = None

    def forget(self) -> None:
        """Drop the file's pages. Those that are mapped stay: so the mapping goes first."""
        self._crops = None
        with self._path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        self._crops = Crops([open_pairs(self._path)], self._config)

    def draw(self, rng: np.random.Generator) -> Batch:
        """The next batch."""
        assert self._crops is not None
        return self._crops.draw(rng)


def step_of(config: TrainingConfig, device: str) -> Callable[[], None]:
    """One step of training, on crops that are there already."""
    network = build_generator("unet4", base=16).to(device)
    channels_last(network)
    optimiser = torch.optim.Adam(network.parameters(), 1e-4)
    shape = (config.batch, 1, config.crop, config.crop)
    x = torch.randn(shape, device=device).contiguous(memory_format=torch.channels_last)
    noise = torch.ones(config.batch, device=device)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        (network(x, noise) - x).abs().mean().backward()
        optimiser.step()
        if device != "cpu":
            torch.cuda.synchronize()

    return step


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="\n".join(__doc__.splitlines()[2:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="small, to see that it works")
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument(
        "--gigabytes", type=float, default=2.0, help="size of the file, of which there are two (2)"
    )
    parser.add_argument("--size", type=int, default=512, help="width of a slice (512)")
    parser.add_argument("--folder", type=Path, help="on the disk to be measured")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    size, rounds = (64, 3) if args.quick else (args.size, 30)
    n_bytes = 2e7 if args.quick else args.gigabytes * 1e9
    n_slices = max(1, round(n_bytes / (4 * (_REALISATIONS + 1) * size**2 * _SLAB))) * _SLAB
    rows = []
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / "pairs.h5"
        mapped = write_pairs(path, n_slices, slabs(n_slices, size), {})
        cold = None
        if hasattr(os, "posix_fadvise"):
            cold = Path(shutil.copy(path, path.with_name("cold.h5")))
        else:
            print("left out: from disk (needs posix_fadvise)", file=sys.stderr)
        for crop, batch in ((32, 8),) if args.quick else ((96, 8), (256, 16)):
            config = TrainingConfig(steps=1, crop=crop, batch=batch)
            case = f"{batch} crops of {crop} from {n_slices} slices of {size}"
            loaders: dict[str, Loader] = {
                "mapped": (Crops([mapped], config).draw, None),
                "in memory": (Crops([in_memory(mapped)], config).draw, None),
            }
            if cold is not None:
                from_disk = FromDisk(cold, config)
                loaders["from disk"] = (from_disk.draw, from_disk.forget)
            times: dict[str, list[float]] = {name: [] for name in loaders}
            rng = np.random.default_rng(0)
            for _ in range(3):
                for name, (draw, before) in loaders.items():
                    times[name].append(seconds(partial(draw, rng), rounds, before))
            step = step_of(config, args.device)
            step()
            one = seconds(step, 1 if args.quick else 3)
            for name, found in times.items():
                rows.append((case, name, "batch", 1000 * min(found), "ms"))
                rows.append((case, name, "crops", batch / min(found), "1/s"))
                megabytes = batch * _PIXELS * crop**2 / 1e6
                rows.append((case, name, "pixels", megabytes / min(found), "MB/s"))
                rows.append((case, name, "share of a step", min(found) / one, f"{args.device}"))
            rows.append((case, "training", "step", 1000 * one, f"ms on {args.device}"))
    for case, method, metric, value, unit in rows:
        if args.json:
            row = {"benchmark": "loader", "case": case, "method": method, "metric": metric}
            print(json.dumps({**row, "value": value, "unit": unit}))
        else:
            print(f"{case:48s}{method:12s}{metric:18s}{value:12.3f} {unit}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
