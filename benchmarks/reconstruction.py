"""Speed and accuracy of reconstruction methods, side by side in one run.

    python benchmarks/reconstruction.py [--quick] [--json]

The object is a foam: a disc with round pores, whose projections are known exactly. Times are the
best of several runs on a stack of slices, without what is computed once a scan. Accuracy is the
peak signal-to-noise ratio within 0.9 of the inscribed circle, against the foam drawn on the grid
of each method, twice: as it comes, and after a fitted scale and offset ("shape"), for TomoPy's
gridrec is not in absolute units. Competitors that cannot be imported are named and skipped.
"""

import argparse
import importlib
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from tomogan_bluesky.errors import BackendUnavailableError
from tomogan_bluesky.geometry import ScanGeometry
from tomogan_bluesky.recon.fbp import FBP
from tomogan_bluesky.recon.gridrec import Gridrec
from tomogan_bluesky.recon.kernel import slice_origin
from tomogan_bluesky.recon.tomopy_backend import TomopyFBP, TomopyGridrec, import_tomopy


@dataclass
class Method:
    """A way from sinograms (slice, angle, column) to slices, and how many to give it at once."""

    name: str
    run: Callable[[np.ndarray], np.ndarray]
    origin: tuple[float, float]
    n_slices: int


class Foam:
    """A disc of 1 with round pores of 0, in units of half the detector's width."""

    def __init__(self, n_pores: int = 120) -> None:
        rng = np.random.default_rng(0)
        self.circles = [(1.0, 0.02, -0.03, 0.85)]
        pores: list[tuple[float, float, float]] = []
        while len(pores) < n_pores:
            x, y, r = *rng.uniform(-0.8, 0.8, 2), rng.uniform(0.015, 0.08)
            inside = np.hypot(x - 0.02, y + 0.03) + r < 0.83
            if inside and all(np.hypot(x - a, y - b) > r + c + 0.005 for a, b, c in pores):
                pores.append((x, y, r))
        self.circles += [(-1.0, *pore) for pore in pores]

    def sinogram(self, geometry: ScanGeometry, fine: int = 4) -> np.ndarray:
        """Line integrals (angle, column), averaged over each column; 1/pixel times pixels."""
        n = geometry.n_columns
        t = (np.arange(n * fine) + 0.5) / fine - 0.5 - geometry.rotation_centre
        lines = np.zeros((geometry.n_angles, n * fine))
        for value, x, y, r in np.array(self.circles) * (1, n / 2, n / 2, n / 2):
            shadow = (x * np.cos(geometry.theta) - y * np.sin(geometry.theta))[:, None]
            lines += 2 * value * np.sqrt(np.maximum(r**2 - (t - shadow) ** 2, 0))
        return lines.reshape(geometry.n_angles, n, fine).mean(2).astype(np.float32)

    def image(self, n: int, origin: tuple[float, float], fine: int = 4) -> np.ndarray:
        """The foam on a slice's pixels (y, x), averaged over each."""
        place = (np.arange(n * fine) + 0.5) / fine - 0.5
        rows, columns = place[:, None] - origin[0], place[None] - origin[1]
        values = np.zeros((n * fine, n * fine), np.float32)
        for value, x, y, r in np.array(self.circles) * (1, n / 2, n / 2, n / 2):
            values += value * ((columns - x) ** 2 + (rows - y) ** 2 < r**2)
        return values.reshape(n, fine, n, fine).mean((1, 3))


def ours(geometry: ScanGeometry, device: str) -> Iterator[Method]:
    """The methods of this package, on one device."""
    for name, reconstruct, n_slices in (
        ("torch gridrec 1.25", Gridrec(geometry, "shepp", 1.25, device), 16),
        ("torch gridrec 1.5", Gridrec(geometry, "shepp", 1.5, device), 16),
        ("torch fbp", FBP(geometry, "shepp", device), 16),
    ):

        def run(stack: np.ndarray, reconstruct: Gridrec | FBP = reconstruct) -> np.ndarray:
            return reconstruct(torch.from_numpy(stack).to(device)).cpu().numpy()

        label = name if device == "cpu" else f"{name}, {device}"
        yield Method(label, run, reconstruct.origin, n_slices)


def tomopy(geometry: ScanGeometry) -> Iterator[Method]:
    """TomoPy's gridrec as it comes, gridrec padded, and back-projection with our filter."""
    module = import_tomopy()

    def unpadded(stack: np.ndarray) -> np.ndarray:
        return module.recon(
            stack,
            geometry.theta,
            center=geometry.rotation_centre,
            sinogram_order=True,
            algorithm="gridrec",
            filter_name="shepp",
            ncore=torch.get_num_threads(),
        )

    yield Method("tomopy gridrec", unpadded, slice_origin(geometry.n_columns), 16)
    for name, reconstruct, n_slices in (
        ("tomopy gridrec, padded", TomopyGridrec(geometry, "shepp"), 8),
        ("tomopy fbp", TomopyFBP(geometry, "shepp"), 1),
    ):

        def run(
            stack: np.ndarray, reconstruct: TomopyGridrec | TomopyFBP = reconstruct
        ) -> np.ndarray:
            return reconstruct(torch.from_numpy(stack)).numpy()

        yield Method(name, run, reconstruct.origin, n_slices)


def skimage(geometry: ScanGeometry) -> Iterator[Method]:
    """scikit-image's filtered back-projection; its axis is at column N // 2."""
    transform = importlib.import_module("skimage.transform")
    n = geometry.n_columns
    columns = np.arange(n)

    def run(stack: np.ndarray) -> np.ndarray:
        at = columns + geometry.rotation_centre - n // 2
        shifted = [np.stack([np.interp(at, columns, p) for p in sinogram]) for sinogram in stack]
        angles = np.rad2deg(geometry.theta)
        return np.stack(
            [transform.iradon(s.T, angles, filter_name="shepp-logan", circle=True) for s in shifted]
        )

    yield Method("skimage iradon", run, (n // 2, n // 2), 1)


def algotom(geometry: ScanGeometry) -> Iterator[Method]:
    """Algotom's back-projection and Fourier inversion, on the processor."""
    reconstruction = importlib.import_module("algotom.rec.reconstruction")
    n = geometry.n_columns

    def fbp(stack: np.ndarray) -> np.ndarray:
        return np.stack(
            [
                reconstruction.fbp_reconstruction(
                    sinogram,
                    geometry.rotation_centre,
                    angles=geometry.theta,
                    ratio=None,
                    filter_name=None,
                    apply_log=False,
                    gpu=False,
                )
                for sinogram in stack
            ]
        )

    def dfi(stack: np.ndarray) -> np.ndarray:
        return np.stack(
            [
                reconstruction.dfi_reconstruction(
                    sinogram,
                    geometry.rotation_centre,
                    angles=geometry.theta,
                    ratio=None,
                    filter_name=None,
                    apply_log=False,
                )
                for sinogram in stack
            ]
        )

    yield Method("algotom fbp", fbp, ((n - 1) / 2, (n - 1) / 2), 1)
    yield Method("algotom dfi", dfi, (n // 2, n // 2), 1)


def best_time(method: Method, stack: np.ndarray, repeats: int) -> float:
    """Milliseconds a slice, the best of several runs after one to warm up."""
    method.run(stack)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        method.run(stack)
        times.append(time.perf_counter() - start)
    return 1000 * min(times) / len(stack)


def psnr(values: np.ndarray, wanted: np.ndarray) -> float:
    """Peak signal-to-noise ratio in decibels, the peak being the range of what is wanted."""
    return float(10 * np.log10(np.ptp(wanted) ** 2 / np.mean((values - wanted) ** 2)))


def measure(method: Method, foam: Foam, geometry: ScanGeometry, repeats: int) -> dict[str, float]:
    """Time and accuracy of one method."""
    n = geometry.n_columns
    stack = np.repeat(foam.sinogram(geometry)[None], method.n_slices, axis=0)
    y, x = np.indices((n, n)) - (n - 1) / 2
    inside = np.hypot(y, x) < 0.9 * n / 2
    wanted = foam.image(n, method.origin)[inside].astype(float)
    values = method.run(stack[:1])[0][inside].astype(float)
    design = np.stack((values, np.ones_like(values)), axis=1)
    fit, *_ = np.linalg.lstsq(design, wanted)
    return {
        "time": best_time(method, stack, repeats),
        "psnr": psnr(values, wanted),
        "psnr_shape": psnr(design @ fit, wanted),
    }


UNITS = {"time": "ms/slice", "psnr": "dB", "psnr_shape": "dB"}


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    # Competitors' deprecations are not what is measured here.
    warnings.simplefilter("ignore")

    sizes = [(128, 180)] if arguments.quick else [(512, 720), (1024, 1440)]
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    sources: list[Callable[[ScanGeometry], Iterator[Method]]] = [
        *(lambda geometry, device=device: ours(geometry, device) for device in devices),
        tomopy,
        skimage,
        algotom,
    ]
    foam = Foam()
    skipped: dict[str, str] = {}
    for n_columns, n_angles in sizes:
        # On a whole column, so that a method whose axis is fixed needs no interpolation.
        centre = n_columns // 2 - n_columns // 64
        geometry = ScanGeometry(np.arange(n_angles) * np.pi / n_angles, centre, n_columns)
        case = f"foam {n_columns}x{n_angles}"
        if not arguments.json:
            print(f"\n{case}, {arguments.threads} threads")
            print(f"{'method':<26}{'ms/slice':>10}{'PSNR/dB':>10}{'shape/dB':>10}")
        for source in sources:
            try:
                for method in source(geometry):
                    result = measure(method, foam, geometry, 1 if arguments.quick else 3)
                    report(case, method.name, result, arguments.json)
            except (BackendUnavailableError, ModuleNotFoundError) as error:
                skipped[source.__name__] = str(error)
    for name, reason in skipped.items():
        print(f"skipped {name}: {reason}", file=sys.stderr)
    return 0


def report(case: str, method: str, result: dict[str, float], as_json: bool) -> None:
    """Print the figures of one method."""
    if not as_json:
        time_ms, *decibels = result.values()
        print(f"{method:<26}{time_ms:>10.2f}" + "".join(f"{d:>10.1f}" for d in decibels))
        return
    for metric, value in result.items():
        row = {"benchmark": "reconstruction", "case": case, "method": method}
        print(json.dumps({**row, "metric": metric, "value": value, "unit": UNITS[metric]}))


if __name__ == "__main__":
    sys.exit(main())
