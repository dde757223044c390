"""Cost of reconstruction while a scan is taken, against reconstruction afterwards, in one run.

    python benchmarks/incremental.py [--quick] [--json] [--threads N]

Projections of discs are given one at a time, as corrected attenuation, in the order of the scan,
and with the angles of an encoder that jitters, which are not known before. "batch" is the same
reconstruction from all sinograms in memory, with its geometry at hand; "batch from files" reads the
frames from HDF5 (in the page cache), corrects them, and reconstructs them in slabs, as the callback
does when it cannot do better. Times are the best of several rounds, in which all are measured one
after the other. "share" is the time from the last projection to the last slice, as a share of that
of batch in the same round (the median round). The volumes are compared to the bit. "error" is
relative to the same sums in double precision, for one slice.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

# As the command line of the package does; read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import h5py
import numpy as np
import torch

from tomogan_bluesky.config import ReconstructionConfig
from tomogan_bluesky.geometry import ScanGeometry
from tomogan_bluesky.intake.frames import StoredFrame
from tomogan_bluesky.intake.hdf5_frames import Hdf5Frames
from tomogan_bluesky.intake.references import References
from tomogan_bluesky.intake.scan import FrameAccount, Scan
from tomogan_bluesky.pipeline.slabs import SlabPipeline
from tomogan_bluesky.recon.filters import filter_response
from tomogan_bluesky.recon.gridrec import Gridrec
from tomogan_bluesky.recon.incremental import IncrementalGridrec, state_bytes
from tomogan_bluesky.recon.kernel import KaiserBessel, slice_origin
from tomogan_bluesky.recon.preprocess import Fields

DARK, FLAT = 100, 60_000
CONFIG = ReconstructionConfig(filter="shepp")


def frames_of_discs(geometry: ScanGeometry, n_slices: int) -> np.ndarray:
    """Counts (angle, row, column), uint16, of other discs in each row."""
    rng = np.random.default_rng(0)
    theta = geometry.theta[:, None]
    column = np.arange(geometry.n_columns) - geometry.rotation_centre
    frames = np.empty((geometry.n_angles, n_slices, geometry.n_columns), np.uint16)
    for row in range(n_slices):
        lines = np.zeros((geometry.n_angles, geometry.n_columns))
        for _ in range(20):
            place = rng.uniform(0, 0.33) * geometry.n_columns
            direction, radius = rng.uniform(0, 2 * np.pi), rng.uniform(0.01, 0.1)
            radius *= geometry.n_columns
            at = column - place * np.cos(theta - direction)
            lines += 2 * np.sqrt(np.maximum(radius**2 - at**2, 0)) * rng.uniform(0.2, 1)
        frames[:, row] = np.rint(DARK + (FLAT - DARK) * np.exp(-2 * lines / lines.max()))
    return frames


def scan_in(path: Path, frames: np.ndarray, geometry: ScanGeometry) -> tuple[Scan, Fields]:
    """The frames as a scan in a file, a chunk a frame."""
    with h5py.File(path, "w") as file:
        file.create_dataset("frames", data=frames, chunks=(1, *frames.shape[1:]))
    source = Hdf5Frames(path, "frames", 0.0, lambda path: path)
    n_angles, *shape = frames.shape
    dark, flat = np.full(shape, DARK, np.float32), np.full((1, *shape), FLAT, np.float32)
    scan = Scan(
        projections=[StoredFrame(source, i) for i in range(n_angles)],
        theta=geometry.theta,
        times=np.arange(n_angles, dtype=float),
        references=References(dark, flat, np.zeros(1)),
        account=FrameAccount(expected=n_angles, used=n_angles),
    )
    return scan, Fields(dark, flat, np.ones((n_angles, 1), np.float32))


def in_double_precision(geometry: ScanGeometry, sinogram: torch.Tensor) -> torch.Tensor:
    """Gridrec by its definition, on the full plane of a complex grid, for one slice."""
    n, size = geometry.n_columns, Gridrec(geometry)._gridding.grid.size
    kernel = KaiserBessel(4, size / n)
    k = torch.arange(-size // 2 + 1, size // 2)
    spectra = torch.fft.fft(sinogram.double(), size)[:, k % size]
    phase = torch.exp(2j * torch.pi * geometry.rotation_centre / size * k)
    spectra *= phase * filter_response(CONFIG.filter, size)[k.abs()] / size
    spectra *= torch.tensor(geometry.weights)[:, None]
    grid = torch.zeros(size * size, dtype=torch.complex128)
    theta = torch.tensor(geometry.theta)[:, None]
    u, v = torch.cos(theta) * k, -torch.sin(theta) * k
    for du in range(-1, 3):
        for dv in range(-1, 3):
            column, row = u.floor() + du, v.floor() + dv
            weight = kernel(u - column) * kernel(v - row)
            cell = (row.long() % size) * size + column.long() % size
            grid.index_add_(0, cell.flatten(), (spectra * weight).flatten())
    image = torch.fft.ifft2(grid.view(size, size), norm="forward").real
    y, x = slice_origin(n)
    image = torch.roll(image, (y, x), (0, 1))[:n, :n]
    pixel = torch.arange(n, dtype=torch.float64)
    row, column = (1 / kernel.transform((pixel - o) / size) for o in (y, x))
    return image * torch.outer(row, column)


def milliseconds(start: float) -> float:
    """Time since `start`."""
    return 1000 * (time.perf_counter() - start)


def measure(geometry: ScanGeometry, n_slices: int, rounds: int) -> list[tuple[str, str, float]]:
    """Method, metric and value of each figure."""
    even = ScanGeometry(
        np.arange(geometry.n_angles) * np.pi / geometry.n_angles,
        geometry.rotation_centre,
        geometry.n_columns,
    )
    frames = frames_of_discs(geometry, n_slices)
    figures: dict[str, list[float]] = {
        key: [] for key in ("add", "most", "preview", "end", "batch", "files")
    }
    with tempfile.TemporaryDirectory() as folder:
        scan, fields = scan_in(Path(folder) / "scan.h5", frames, geometry)
        pipeline = SlabPipeline(geometry, CONFIG, None, fields)
        sinograms, _ = pipeline.attenuation(0, n_slices, frames.swapaxes(0, 1))
        projections = sinograms.transpose(0, 1).contiguous()
        batch = Gridrec(geometry, CONFIG.filter)
        wanted = batch(sinograms)
        for _ in range(rounds):
            reconstruct = IncrementalGridrec(even, n_slices, CONFIG.filter)
            times = []
            for index, projection in enumerate(projections[:-1]):
                start = time.perf_counter()
                reconstruct.add(index, projection, float(geometry.theta[index]))
                times.append(milliseconds(start))
            start = time.perf_counter()
            reconstruct.preview([n_slices // 2])
            figures["preview"].append(milliseconds(start))
            start = time.perf_counter()
            reconstruct.add(geometry.n_angles - 1, projections[-1], float(geometry.theta[-1]))
            volume = reconstruct.result()
            figures["end"].append(milliseconds(start))
            start = time.perf_counter()
            batch(sinograms)
            figures["batch"].append(milliseconds(start))
            start = time.perf_counter()
            pipeline = SlabPipeline(geometry, CONFIG, None, fields)
            slabs = [slab.reconstruct()[0] for slab in pipeline.slabs(0, n_slices, scan.slabs)]
            figures["files"].append(milliseconds(start))
            figures["add"].append(float(np.mean(times)))
            figures["most"].append(max(times))
            if not torch.equal(volume, wanted) or not torch.equal(torch.cat(slabs), wanted):
                raise SystemExit("incremental and batch differ")
    exact = in_double_precision(geometry, sinograms[0])
    error = float((wanted[0] - exact).norm() / exact.norm())
    shares = [
        float(np.median(np.divide(figures["end"], figures[other]))) for other in ("batch", "files")
    ]
    return [
        ("incremental", "projection", min(figures["add"])),
        ("incremental", "slowest projection", min(figures["most"])),
        ("incremental", "preview of a slice", min(figures["preview"])),
        ("incremental", "state", state_bytes(geometry) / 1e6),
        ("incremental", "last projection to last slice", min(figures["end"]) / n_slices),
        ("incremental", "share", shares[0]),
        ("incremental", "share from files", shares[1]),
        ("incremental", "error", error),
        ("batch", "time", min(figures["batch"]) / n_slices),
        ("batch from files", "time", min(figures["files"]) / n_slices),
    ]


UNITS = {
    "projection": "ms",
    "slowest projection": "ms",
    "preview of a slice": "ms",
    "state": "MB/slice",
    "last projection to last slice": "ms/slice",
    "share": "of batch",
    "share from files": "of batch from files",
    "error": "relative",
    "time": "ms/slice",
}


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    sizes = [(128, 180, 16)] if arguments.quick else [(512, 720, 16), (512, 720, 64)]
    for n_columns, n_angles, n_slices in sizes:
        jitter = np.random.default_rng(1).uniform(-0.05, 0.05, n_angles)
        theta = (np.arange(n_angles) + jitter) * np.pi / n_angles
        geometry = ScanGeometry(theta, n_columns / 2 - 3.3, n_columns)
        case = f"{n_slices} slices {n_columns}x{n_angles}"
        if not arguments.json:
            print(f"\n{case}, {arguments.threads} threads")
        for method, metric, value in measure(geometry, n_slices, 1 if arguments.quick else 7):
            row = {"benchmark": "incremental", "case": case, "method": method, "metric": metric}
            if arguments.json:
                print(json.dumps({**row, "value": value, "unit": UNITS[metric]}))
            else:
                print(f"{method:<18}{metric:<32}{value:>12.4g} {UNITS[metric]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
