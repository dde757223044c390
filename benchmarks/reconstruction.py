"""Speed and accuracy of reconstruction methods, side by side in one run.

    python benchmarks/reconstruction.py [--quick] [--json] [--threads N] [--only gridrec]

Two objects whose projections are known exactly: a foam, and Shepp and Logan's phantom. Times are of
the foam, medians over rounds in which all methods take their turns, without what is computed once a
scan: the wall's, and that of all cores, which other programs on the machine disturb less. "x" is
the core time in that of our gridrec. Accuracy is the peak signal-to-noise ratio within 0.9 of the
inscribed circle, against the object drawn on the grid of each method, twice: as it comes, and after
a fitted scale and offset ("shape"), for TomoPy's gridrec is not in absolute units.

TomoPy's gridrec is there three times: as it comes; with the sinograms padded by their edge values
to twice the width, as its users do, and the slices cut out; and by our backend, which pads, and
leaves the cutting to TomoPy. Competitors that cannot be imported are named and skipped.
"""

import argparse
import importlib
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

# As the command line of the package does; read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch

from tomogan_bluesky.errors import BackendUnavailableError
from tomogan_bluesky.geometry import ScanGeometry
from tomogan_bluesky.recon.astra_backend import AstraFBP, AstraSIRT
from tomogan_bluesky.recon.backends import Reconstructor
from tomogan_bluesky.recon.fbp import FBP
from tomogan_bluesky.recon.gridrec import Gridrec
from tomogan_bluesky.recon.iterative import SIRT, TotalVariation
from tomogan_bluesky.recon.kernel import slice_origin
from tomogan_bluesky.recon.tomopy_backend import TomopyFBP, TomopyGridrec, import_tomopy

OURS = "torch gridrec 1.5"
ITERATIONS = 50


@dataclass
class Method:
    """A way from sinograms (slice, angle, column) to slices, and how many to give it at once."""

    name: str
    run: Callable[[np.ndarray], np.ndarray]
    origin: tuple[float, float]
    n_slices: int
    rounds: int
    """How often it is timed, in turns with others; 0: with its accuracy, for it is slow."""
    times: list[tuple[float, float]] = field(default_factory=list)
    """Wall and core time of each round, ms a slice."""


class Ellipses:
    """A sum of ellipses (value, x, y, half axes a and b, angle), in half widths of the detector."""

    def __init__(self, ellipses: list[tuple[float, ...]]) -> None:
        self.ellipses = ellipses

    def scaled(self, n: int) -> np.ndarray:
        """The ellipses in pixels."""
        return np.array(self.ellipses) * (1, n / 2, n / 2, n / 2, n / 2, 1)

    def sinogram(self, geometry: ScanGeometry, fine: int = 4) -> np.ndarray:
        """Line integrals (angle, column), averaged over each column; 1/pixel times pixels."""
        n = geometry.n_columns
        t = (np.arange(n * fine) + 0.5) / fine - 0.5 - geometry.rotation_centre
        lines = np.zeros((geometry.n_angles, n * fine), np.float32)
        theta = geometry.theta[:, None]
        for value, x, y, a, b, phi in self.scaled(n).tolist():
            shadow = x * np.cos(theta) - y * np.sin(theta)
            half = np.hypot(a * np.cos(theta + phi), b * np.sin(theta + phi))
            chord = np.sqrt(np.maximum(1 - ((t - shadow) / half) ** 2, 0))
            lines += (2 * value * a * b / half * chord).astype(np.float32)
        return lines.reshape(geometry.n_angles, n, fine).mean(2)

    def image(self, n: int, origin: tuple[float, float], fine: int = 4) -> np.ndarray:
        """The object on a slice's pixels (y, x), averaged over each."""
        place = ((np.arange(n * fine) + 0.5) / fine - 0.5).astype(np.float32)
        rows, columns = place[:, None] - origin[0], place[None] - origin[1]
        values = np.zeros((n * fine, n * fine), np.float32)
        for value, x, y, a, b, phi in self.scaled(n).tolist():
            cos, sin = np.cos(phi), np.sin(phi)
            u = (columns - x) * cos + (rows - y) * sin
            v = (rows - y) * cos - (columns - x) * sin
            values += value * ((u / a) ** 2 + (v / b) ** 2 < 1)
        return values.reshape(n, fine, n, fine).mean((1, 3))


def foam(n_pores: int = 120) -> Ellipses:
    """A disc of 1 with round pores of 0."""
    rng = np.random.default_rng(0)
    pores: list[tuple[float, float, float]] = []
    while len(pores) < n_pores:
        x, y, r = *rng.uniform(-0.8, 0.8, 2), rng.uniform(0.015, 0.08)
        inside = np.hypot(x - 0.02, y + 0.03) + r < 0.83
        if inside and all(np.hypot(x - a, y - b) > r + c + 0.005 for a, b, c in pores):
            pores.append((x, y, r))
    disc = (1.0, 0.02, -0.03, 0.85, 0.85, 0.0)
    return Ellipses([disc, *((-1.0, x, y, r, r, 0.0) for x, y, r in pores)])


def shepp_logan() -> Ellipses:
    """The phantom of Shepp and Logan (IEEE Trans. Nucl. Sci. 21, 21, 1974) with more contrast
    (Toft, The Radon Transform, 1996, table B.3), a little smaller, y downwards.
    """
    table = [
        (1.0, 0.0, 0.0, 0.69, 0.92, 0),
        (-0.8, 0.0, -0.0184, 0.6624, 0.874, 0),
        (-0.2, 0.22, 0.0, 0.11, 0.31, -18),
        (-0.2, -0.22, 0.0, 0.16, 0.41, 18),
        (0.1, 0.0, 0.35, 0.21, 0.25, 0),
        (0.1, 0.0, 0.1, 0.046, 0.046, 0),
        (0.1, 0.0, -0.1, 0.046, 0.046, 0),
        (0.1, -0.08, -0.605, 0.046, 0.023, 0),
        (0.1, 0.0, -0.605, 0.023, 0.023, 0),
        (0.1, 0.06, -0.605, 0.023, 0.046, 0),
    ]
    return Ellipses(
        [(v, 0.9 * x, -0.9 * y, 0.9 * a, 0.9 * b, -np.deg2rad(p)) for v, x, y, a, b, p in table]
    )


def of(
    name: str, reconstruct: Reconstructor, n_slices: int, rounds: int, device: str = "cpu"
) -> Method:
    """A reconstructor of this package as a method."""

    def run(stack: np.ndarray) -> np.ndarray:
        return reconstruct(torch.from_numpy(stack).to(device)).cpu().numpy()

    return Method(name, run, reconstruct.origin, n_slices, rounds)


def ours(geometry: ScanGeometry, rounds: int, device: str = "cpu") -> Iterator[Method]:
    """The methods of this package, on one device."""
    label = "" if device == "cpu" else f", {device}"
    for name, oversampling in (("torch gridrec 1.25", 1.25), (OURS, 1.5)):
        gridrec = Gridrec(geometry, "shepp", oversampling, device)
        yield of(name + label, gridrec, 16, rounds, device)
    yield of("torch fbp" + label, FBP(geometry, "shepp", device), 8, 0, device)
    for name, solve in (("sirt", SIRT), ("tv", TotalVariation)):
        made = solve(geometry, ITERATIONS, device=device)
        yield of(f"torch {name}, {ITERATIONS} iterations{label}", made, 8, 0, device)


def tomopy(geometry: ScanGeometry, rounds: int) -> Iterator[Method]:
    """TomoPy's gridrec as it comes, as users pad it, and by our backend; its back-projection."""
    module = import_tomopy()
    n = geometry.n_columns
    threads = torch.get_num_threads()

    def gridrec(stack: np.ndarray, centre: float) -> np.ndarray:
        return module.recon(
            stack,
            geometry.theta,
            center=centre,
            sinogram_order=True,
            algorithm="gridrec",
            filter_name="shepp",
            ncore=threads,
        )

    def padded(stack: np.ndarray) -> np.ndarray:
        pad = n // 2
        wide = np.pad(stack, ((0, 0), (0, 0), (pad, pad)), mode="edge")
        return gridrec(wide, geometry.rotation_centre + pad)[:, pad : pad + n, pad : pad + n]

    origin = slice_origin(n)
    yield Method(
        "tomopy gridrec", lambda s: gridrec(s, geometry.rotation_centre), origin, 16, rounds
    )
    yield Method("tomopy gridrec, padded", padded, origin, 16, rounds)
    yield of("tomopy gridrec, our backend", TomopyGridrec(geometry, "shepp"), 16, rounds)
    yield of("tomopy fbp, our filter", TomopyFBP(geometry, "shepp"), 1, 0)


def centred(stack: np.ndarray, geometry: ScanGeometry) -> np.ndarray:
    """Sinograms with the axis at column N // 2."""
    columns = np.arange(geometry.n_columns)
    at = columns + geometry.rotation_centre - geometry.n_columns // 2
    return np.stack([[np.interp(at, columns, p) for p in sinogram] for sinogram in stack])


def skimage(geometry: ScanGeometry, rounds: int) -> Iterator[Method]:
    """scikit-image's filtered back-projection; its axis is at column N // 2."""
    transform = importlib.import_module("skimage.transform")
    angles = np.rad2deg(geometry.theta)

    def run(stack: np.ndarray) -> np.ndarray:
        return np.stack(
            [
                transform.iradon(s.T, angles, filter_name="shepp-logan", circle=True)
                for s in centred(stack, geometry)
            ]
        )

    middle = geometry.n_columns // 2
    yield Method("skimage iradon", run, (middle, middle), 1, 0)


def corrct(geometry: ScanGeometry, rounds: int) -> Iterator[Method]:
    """corrct's filtered back-projection; on a processor scikit-image back-projects for it."""
    projectors = importlib.import_module("corrct.projectors")
    solve = importlib.import_module("corrct.solvers").FBP(fbp_filter="shepp-logan")
    n = geometry.n_columns

    def run(stack: np.ndarray) -> np.ndarray:
        with projectors.ProjectorUncorrected((n, n), geometry.theta) as project:
            lines = centred(stack, geometry).astype(np.float32)
            return np.stack([solve(project, sinogram)[0] for sinogram in lines])

    yield Method("corrct fbp", run, (n // 2, n // 2), 1, 0)


def algotom(geometry: ScanGeometry, rounds: int) -> Iterator[Method]:
    """Algotom's back-projection and Fourier inversion, on the processor."""
    reconstruction = importlib.import_module("algotom.rec.reconstruction")
    n = geometry.n_columns
    threads = torch.get_num_threads()

    def run_with(name: str, **options: object) -> Callable[[np.ndarray], np.ndarray]:
        def run(stack: np.ndarray) -> np.ndarray:
            return np.stack(
                [
                    getattr(reconstruction, name)(
                        sinogram,
                        geometry.rotation_centre,
                        angles=geometry.theta,
                        ratio=None,
                        filter_name=None,
                        apply_log=False,
                        ncore=threads,
                        **options,
                    )
                    for sinogram in stack
                ]
            )

        return run

    middle = (n - 1) / 2
    fbp, dfi = run_with("fbp_reconstruction", gpu=False), run_with("dfi_reconstruction")
    yield Method("algotom fbp", fbp, (middle, middle), 1, min(rounds, 2))
    yield Method("algotom dfi", dfi, (n // 2, n // 2), 1, min(rounds, 2))


def astra(geometry: ScanGeometry, rounds: int) -> Iterator[Method]:
    """The ASTRA toolbox on the processor: our filter and its back-projection; its SIRT."""
    yield of("astra fbp, our filter", AstraFBP(geometry, "shepp"), 1, 0)
    if geometry.n_columns <= 128:  # else it takes minutes
        sirt = AstraSIRT(geometry, ITERATIONS)
        yield of(f"astra sirt, {ITERATIONS} iterations", sirt, 1, 0)


def psnr(values: np.ndarray, wanted: np.ndarray) -> float:
    """Peak signal-to-noise ratio in decibels, the peak being the range of what is wanted."""
    return float(10 * np.log10(np.ptp(wanted) ** 2 / np.mean((values - wanted) ** 2)))


def accuracy(method: Method, what: Ellipses, geometry: ScanGeometry) -> tuple[float, float]:
    """Peak signal-to-noise ratio as it comes, and after a fitted scale and offset."""
    n = geometry.n_columns
    y, x = np.indices((n, n)) - (n - 1) / 2
    inside = np.hypot(y, x) < 0.9 * n / 2
    wanted = what.image(n, method.origin)[inside].astype(float)
    stack = what.sinogram(geometry)[None]
    if method.rounds:
        values = method.run(stack)[0]
    else:
        values = timed(method, np.repeat(stack, method.n_slices, axis=0))[0]
    values = values[inside].astype(float)
    design = np.stack((values, np.ones_like(values)), axis=1)
    fit, *_ = np.linalg.lstsq(design, wanted)
    return psnr(values, wanted), psnr(design @ fit, wanted)


def timed(method: Method, stack: np.ndarray) -> np.ndarray:
    """Run a method, and note the time it took."""
    wall, core = time.perf_counter(), time.process_time()
    slices = method.run(stack)
    spent_ms = 1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - core)
    method.times.append((spent_ms[0] / len(stack), spent_ms[1] / len(stack)))
    return slices


def take_times(methods: list[Method], sinogram: np.ndarray) -> None:
    """Time the methods in turns; each was run before, which warms it up."""
    for index in range(max(method.rounds for method in methods)):
        for method in methods:
            if index < method.rounds:
                timed(method, np.repeat(sinogram[None], method.n_slices, axis=0))


def methods_for(
    geometry: ScanGeometry, rounds: int, only: str, skipped: dict[str, str]
) -> Iterator[Method]:
    """All methods that can be imported, and in whose name something occurs."""
    devices = ["cuda"] if torch.cuda.is_available() else []
    sources: list[Callable[[ScanGeometry, int], Iterator[Method]]] = [
        ours,
        *(lambda g, r, device=device: ours(g, r, device) for device in devices),
        tomopy,
        algotom,
        skimage,
        astra,
        corrct,
    ]
    for source in sources:
        try:
            yield from (method for method in source(geometry, rounds) if only in method.name)
        except (BackendUnavailableError, ModuleNotFoundError) as error:
            skipped[source.__name__] = str(error)


COLUMNS = {  # metric: heading, unit
    "speed": ("speed", "slices/s"),
    "wall time": ("wall", "ms/slice"),
    "core time": ("core", "ms/slice"),
    "core time in ours": ("core", "x ours"),
    "foam": ("foam", "dB"),
    "foam, shape": ("shape", "dB"),
    "shepp": ("shepp", "dB"),
    "shepp, shape": ("shape", "dB"),
}


def measure(
    geometry: ScanGeometry, rounds: int, only: str, skipped: dict[str, str]
) -> Iterator[tuple[str, dict[str, float]]]:
    """Name and figures of each method."""
    objects = foam(), shepp_logan()
    methods, decibels = [], []
    for method in methods_for(geometry, rounds, only, skipped):
        decibels.append([accuracy(method, what, geometry) for what in objects])
        # Those that are done with leave their memory to the others.
        methods.append(method if method.rounds else replace(method, run=np.copy))
    take_times(methods, objects[0].sinogram(geometry))
    core_of_ours = {m.name: np.median(m.times, axis=0)[1] for m in methods}.get(OURS, np.nan)
    for method, (of_foam, of_shepp) in zip(methods, decibels, strict=True):
        wall, core = np.median(method.times, axis=0)
        figures = (1000 / wall, wall, core, core / core_of_ours, *of_foam, *of_shepp)
        yield method.name, dict(zip(COLUMNS, map(float, figures), strict=True))


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--rounds", type=int, default=7, help="of the fast methods")
    parser.add_argument("--only", default="", metavar="TEXT", help="methods with it in their name")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    # Competitors' deprecations are not what is measured here.
    warnings.simplefilter("ignore")

    sizes = [(128, 180)] if arguments.quick else [(512, 720), (1024, 1440)]
    skipped: dict[str, str] = {}
    for n_columns, n_angles in sizes:
        # On a whole column, so that a method whose axis is fixed needs no interpolation.
        centre = n_columns // 2 - n_columns // 64
        geometry = ScanGeometry(np.arange(n_angles) * np.pi / n_angles, centre, n_columns)
        case = f"{n_columns}x{n_angles}"
        if not arguments.json:
            print(f"\n{case}, {arguments.threads} threads")
            print(f"{'method':<30}" + "".join(f"{heading:>10}" for heading, _ in COLUMNS.values()))
            print(" " * 30 + "".join(f"{unit:>10}" for _, unit in COLUMNS.values()))
        rounds = 1 if arguments.quick else arguments.rounds
        for name, figures in measure(geometry, rounds, arguments.only, skipped):
            report(case, name, figures, arguments.json)
    for name, reason in skipped.items():
        print(f"skipped {name}: {reason}", file=sys.stderr)
    return 0


def report(case: str, method: str, figures: dict[str, float], as_json: bool) -> None:
    """Print the figures of one method."""
    if not as_json:
        print(f"{method:<30}" + "".join(f"{v:>10.4g}" for v in figures.values()), flush=True)
        return
    for metric, value in figures.items():
        row = {"benchmark": "reconstruction", "case": case, "method": method}
        print(json.dumps({**row, "metric": metric, "value": value, "unit": COLUMNS[metric][1]}))


if __name__ == "__main__":
    sys.exit(main())
