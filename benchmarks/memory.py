"""Peak memory of the reconstruction of a large scan, predicted and measured.

    python benchmarks/memory.py [--quick] [--json] [--slabs N] [--memory-gib G] [--steps]

A scan of 2048 rows x 2048 columns and 1500 projections, whose frames are made up when they are
read, goes the way of a scan in files: blocks of frames, slabs, slices, and documents to a sink that
drops them. As many slabs are taken as `--slabs` says, from the middle of the detector, which is
enough to come to the peak. It is the largest resident size of this process; what is predicted is
what `scan.memory_gib` is compared with. `--steps` switches on what takes most memory besides:
stripes and phase retrieval.
"""

import argparse
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

# As the command line of the package does; read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch

from tomogan_bluesky.config import PreprocessingConfig, PublishingConfig, ReconstructionConfig
from tomogan_bluesky.geometry import ScanGeometry
from tomogan_bluesky.intake.frames import StoredFrame
from tomogan_bluesky.intake.references import References
from tomogan_bluesky.intake.scan import FrameAccount, Scan
from tomogan_bluesky.pipeline.memory import MemoryPlan
from tomogan_bluesky.pipeline.slabs import SlabPipeline
from tomogan_bluesky.publish.documents import DerivedRun
from tomogan_bluesky.recon.preprocess import Fields
from tomogan_bluesky.report import RunRecord
from tomogan_bluesky.run.volumes import SliceCounts, VolumePublisher

_GIB = 1 << 30
DARK, FLAT = 100, 40_000
PHASE = {"pixel_size_um": 1.0, "distance_mm": 30.0, "energy_kev": 25.0, "alpha": 0.01}


class MadeUpFrames:
    """A source of frames that are the same everywhere, and hold no memory."""

    dtype = np.dtype(np.uint16)

    def __init__(self, n_frames: int, frame_shape: tuple[int, int]) -> None:
        self._n = n_frames
        self.frame_shape = frame_shape

    def count(self, at_least: int) -> int:
        return self._n

    def absent(self, indices: object) -> dict[int, str]:
        return {}

    def has(self, index: int) -> bool:
        return index < self._n

    def read(self, indices: slice | list[int], rows: slice) -> np.ndarray:
        n = len(range(*indices.indices(self._n))) if isinstance(indices, slice) else len(indices)
        n_rows = len(range(*rows.indices(self.frame_shape[0])))
        frames = np.empty((n, n_rows, self.frame_shape[1]), self.dtype)
        column = np.arange(self.frame_shape[1]) / self.frame_shape[1] * 2 - 1
        frames[:] = DARK + (FLAT - DARK) * np.exp(-np.sqrt(np.maximum(0.5 - column**2, 0)))
        return frames

    def times(self, indices: slice) -> None:
        return None

    def close(self) -> None:
        pass


def reconstruct(
    shape: tuple[int, int, int], n_slabs: int, bound_gib: float, config: ReconstructionConfig
) -> MemoryPlan:
    """Take a scan through the pipeline; returns what was predicted."""
    n_angles, *frame = shape
    rows, columns = frame
    source = MadeUpFrames(n_angles, (rows, columns))
    flats = np.full((1, rows, columns), FLAT, np.float32)
    scan = Scan(
        projections=[StoredFrame(source, i) for i in range(n_angles)],
        theta=np.arange(n_angles) * np.pi / n_angles,
        times=np.arange(n_angles, dtype=float),
        references=References(np.full((rows, columns), DARK, np.float32), flats, np.zeros(1)),
        account=FrameAccount(expected=n_angles, used=n_angles),
    )
    fields = Fields(scan.references.dark, flats, np.ones((n_angles, 1), np.float32))
    geometry = ScanGeometry(scan.theta, columns / 2 - 3.3, columns)
    pipeline = SlabPipeline(geometry, config, None, fields)
    n_taken = min(n_slabs * config.slab_rows, rows)
    taken = ((rows - n_taken) // 2, (rows + n_taken) // 2)
    plan = pipeline.keep_within(bound_gib, shape, source.dtype, taken, in_files=True)
    scan = Scan(**{**vars(scan), "frames_bytes": plan.frames_bytes})
    derived = DerivedRun(
        lambda name, doc: None,
        {"uid": "raw"},
        derivation="1c4e5e2a-94c4-5c4c-8f3b-3a6c7e6f3b6a",
        attempt=1,
        metadata={},
        config=PublishingConfig(),
    )
    derived.start()
    record, counts = RunRecord("raw"), SliceCounts()
    VolumePublisher(pipeline, derived, record, counts)(taken, scan.slabs)
    derived.stop("success", "", {})
    if record.failure or counts.slices != n_taken:
        raise SystemExit(f"{counts.slices} of {n_taken} slices: {record.failure}")
    return plan


def peak_bytes() -> int:
    """Largest resident size of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage counts what the process was before it became this program
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small scan, to see that it works")
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--slabs", type=int, default=4, help="that are reconstructed (default: 4)")
    parser.add_argument("--memory-gib", type=float, default=4.0, help="bound (default: 4)")
    parser.add_argument("--steps", action="store_true", help="with stripes and phase retrieval")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    shape = (90, 64, 128) if arguments.quick else (1500, 2048, 2048)
    steps: dict[str, Any] = (
        {"stripes": {"method": "sorting"}, "phase": PHASE} if arguments.steps else {}
    )
    config = ReconstructionConfig(preprocessing=PreprocessingConfig(**steps))
    plan = reconstruct(shape, arguments.slabs, arguments.memory_gib, config)
    peak = peak_bytes()
    case = f"{shape[1]}x{shape[2]}x{shape[0]}, {arguments.slabs} slabs of {plan.slab_rows} rows"
    figures = [("predicted", part, size / _GIB) for part, size in plan.parts.items()]
    figures += [("predicted", "peak", plan.total_gib), ("measured", "peak", peak / _GIB)]
    if not arguments.json:
        print(f"{case}, bound {arguments.memory_gib:g} GiB")
    for method, metric, value in figures:
        if arguments.json:
            row = {"benchmark": "memory", "case": case, "method": method, "metric": metric}
            print(json.dumps({**row, "value": value, "unit": "GiB"}))
        else:
            print(f"{method:<12}{metric:<24}{value:>8.2f} GiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
