"""Denoised slices beside what everybody else would have made of them, on the pinned test sets.

    python benchmarks/denoising.py [--quick] [--json] [--model NAME_OR_PATH ...] [--picture FILE]
    python benchmarks/denoising.py --case 256 --doses 0.25 --by-kind
    python benchmarks/denoising.py --case noise2inverse tooth --minutes 2 5 --tooth tooth.h5

Cases are the pinned sets: ``512`` and ``256`` (samples of the kinds that were trained on, from
seeds that were not), ``512-foreign`` and ``256-foreign`` (a sixth kind, rings, blur, drift), and
``512-volumes`` and ``256-volumes`` (neighbouring slices; "jumps" is the variance of what differs
from one to the next against the truth: lower is better). Scores are against the noise-free
reconstruction, ``*_full`` against a second scan at full dose; those of the noisy slices stand in
each row. Competitors have their strength chosen with knowledge of the truth; what is not installed
is named and skipped. With --cache, BM3D's slices are kept between runs. Two more cases learn from
the very scan: ``noise2inverse`` and ``tooth`` (see `single_scans`). With --linear, each result is
scored a second time as a back-projection that interpolates linearly would show it, which is how the
goals were set. With --filter, slices are of another filter than the model's. The last lines say
which of the project's goals are met.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

# As the command line of the package does; read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import classical
import numpy as np
import single_scans
import torch

from tomogan_bluesky.config import DEFAULT_MODEL, FilterName, ReconstructionConfig
from tomogan_bluesky.denoise.denoiser import Denoiser, TorchScriptDenoiser
from tomogan_bluesky.denoise.refiltered import refiltered
from tomogan_bluesky.denoise.turned import turned
from tomogan_bluesky.run.harmless import HarmlessDenoiser, denoised_share
from tomogan_bluesky.training.goals import Verdict, verdict_table, verdicts
from tomogan_bluesky.training.interpolated import Views
from tomogan_bluesky.training.metrics import field_of_view
from tomogan_bluesky.training.pinned import (
    DOSES,
    PINNED_SETS,
    PinnedSlices,
    pinned_slices,
)
from tomogan_bluesky.training.scoring import NOISY, SCORES, Result, table

_LEARNED = ("noise2inverse", "tooth")
_UNITS = {name: unit for name, (_, unit) in SCORES.items()} | {"psnr_full": "dB"}


def log(text: str) -> None:
    """To stderr: stdout has the results alone."""
    print(text, file=sys.stderr, flush=True)


def denoised(
    network: Denoiser, images: np.ndarray, of: PinnedSlices, share: float, device: str
) -> tuple[np.ndarray, float]:
    """What a share of a model makes of slices, and milliseconds a slice (the first not counted)."""
    denoiser = HarmlessDenoiser(network, share)
    slices = torch.from_numpy(images).to(device)
    denoiser(slices[:1])  # the first call compiles
    start = time.perf_counter()
    result = torch.cat([denoiser(slices[part]) for part in of.samples()]).cpu().numpy()
    return result, 1000 * (time.perf_counter() - start) / len(images)


def networks(args: argparse.Namespace) -> Iterator[tuple[str, Denoiser]]:
    """The models by name; with another filter than theirs, also without regard to that."""
    for model in args.model:
        network = turned(TorchScriptDenoiser(model, device=args.device), args.sides)
        name = network.card.name
        if args.filter is not None:
            yield f"{name}, unaware", network
            yield name, refiltered(network, ReconstructionConfig(filter=args.filter))
        else:
            yield name, network


def methods_here(wanted: list[str]) -> list[str]:
    """The competitors that are installed; names the others."""
    chosen = []
    for name, (_, package) in classical.METHODS.items():
        if wanted and not any(text.lower() in name.lower() for text in wanted):
            continue
        if find_spec(package) is None:
            log(f"skipped: {name} (needs {package}: pip install 'tomogan_bluesky[bench]')")
        else:
            chosen.append(name)
    return chosen


def results_of(
    args: argparse.Namespace, case: str, slices: PinnedSlices, pictures: dict[str, np.ndarray]
) -> Iterator[Result]:
    """All methods on one set; keeps the slices of the lowest-quality picture on the way."""
    views = Views(case, slices, args.linear)
    for dose, images in slices.noisy.items():
        yield from views.score(dose, NOISY, images)
        keep = dose == args.picture_dose
        if keep:
            pictures |= {"noise-free": slices.clean, "noisy": images}
        for name in methods_here(args.method):
            image, ms = classical.run(name, images, slices.clean, slices.families, args.cache)
            if keep:
                pictures[name] = image
            yield from views.score(dose, name, image, ms)
        for name, network in networks(args):
            share = denoised_share(network, PINNED_SETS[case].relative_noise(dose))
            image, ms = denoised(network, images, slices, share, args.device)
            if keep:
                pictures[name] = image
            yield from views.score(dose, name, image, ms, share)


def learned_results(args: argparse.Namespace, case: str) -> Iterator[Result]:
    """What networks make of a scan that they have learned from."""
    if case == "tooth":
        if args.tooth is None or not args.tooth.exists():
            log("skipped: tooth (needs --tooth FILE, a scan that is not part of this project)")
            return
        yield from single_scans.tooth(args.tooth, args.minutes)
        return
    with_auto_denoise = find_spec("autoden") is not None
    if not with_auto_denoise:
        log("skipped: auto-denoise (pip install 'tomogan_bluesky[bench]')")
    yield from single_scans.noise2inverse(args.minutes, args.slices, with_auto_denoise)


def print_json(results: list[Result], found: list[tuple[str, Verdict]], by_kind: bool) -> None:
    """One object a line."""
    for result in results:
        case = f"{result.case} dose {result.dose:g}"
        row: dict[str, Any] = {"benchmark": "denoising", "case": case, "method": result.method}
        for name in result.scores:
            unit = _UNITS.get(name, "")
            print(json.dumps({**row, "metric": name, "value": result.mean(name), "unit": unit}))
            for kind in dict.fromkeys(result.families) if by_kind else ():
                value = {"metric": f"{name}, {kind}", "value": result.mean(name, kind)}
                print(json.dumps({**row, **value, "unit": unit}))
        if result.ms_a_slice is not None:
            print(
                json.dumps(
                    {**row, "metric": "time", "value": result.ms_a_slice, "unit": "ms/slice"}
                )
            )
        if result.share != 1:
            share = {"metric": "share denoised, to do no harm", "value": result.share, "unit": ""}
            print(json.dumps({**row, **share}))
    for method, v in found:
        row = {"benchmark": "denoising", "case": v.case, "method": method}
        row |= {"metric": f"goal: {v.goal}", "value": v.found, "unit": ""}
        print(json.dumps({**row, "needed": v.needed, "met": v.met}))


def draw(pictures: dict[str, np.ndarray], families: tuple[str, ...], path: Path) -> None:
    """A row a kind, a column a method, and the middle of each slice."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [families.index(family) for family in dict.fromkeys(families)]
    figure, axes = pyplot.subplots(
        len(rows),
        len(pictures),
        figsize=(2.2 * len(pictures), 2.3 * len(rows)),
        squeeze=False,
        layout="constrained",
    )
    for row, (line, i) in enumerate(zip(axes, rows, strict=True)):
        clean = pictures["noise-free"][i]
        size = len(clean)
        inside = field_of_view(size)
        low, high = np.quantile(clean[inside], (0.005, 0.995))
        middle = slice(size // 2 - size // 6, size // 2 + size // 6)
        for axis, (name, images) in zip(line, pictures.items(), strict=True):
            axis.imshow(images[i][middle, middle], cmap="gray", vmin=low, vmax=high)
            axis.set_axis_off()
            if row == 0:
                axis.set_title(name, fontsize=7)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def parse() -> argparse.Namespace:
    """Arguments, with what --quick means filled in."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="\n".join(__doc__.splitlines()[2:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="one set, dose and slice a kind")
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--case", nargs="+", choices=[*PINNED_SETS, *_LEARNED], metavar="CASE")
    parser.add_argument(
        "--minutes",
        nargs="+",
        type=float,
        default=[5.0],
        help="of the processor, of each training on a scan (5)",
    )
    parser.add_argument(
        "--tooth", type=Path, metavar="FILE", help="Data Exchange file of the tooth"
    )
    parser.add_argument("--doses", nargs="+", type=float, help="default: all")
    parser.add_argument("--slices", type=int, help="of each kind, the first ones (default: all)")
    parser.add_argument("--model", nargs="+", default=[DEFAULT_MODEL], help="names or paths")
    parser.add_argument(
        "--method", nargs="+", default=[], help="competitors by a part of their name; none: none"
    )
    parser.add_argument(
        "--filter",
        choices=[f for f in get_args(FilterName) if f != "none"],
        metavar="NAME",
        help="reconstruct with this filter; the model is also tried without regard to it",
    )
    parser.add_argument(
        "--sides",
        type=int,
        choices=(1, 2, 4, 8),
        default=1,
        help="of so many sides of a slice, turned and mirrored, the mean is taken (1)",
    )
    parser.add_argument(
        "--linear",
        action="store_true",
        help="score them again as a linearly interpolating back-projection shows them",
    )
    parser.add_argument("--by-kind", action="store_true", help="a row for each kind of sample")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="a PNG of the lowest case")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep slices here")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    args.case = args.case or (["256"] if args.quick else list(PINNED_SETS))
    args.doses = tuple(args.doses or ((0.25,) if args.quick else DOSES))
    args.slices = args.slices or (1 if args.quick else None)
    args.picture_dose = None
    if args.picture:
        args.picture_dose = 0.25 if 0.25 in args.doses else min(args.doses)
    return args


def main() -> int:
    """Run from the command line."""
    args = parse()
    torch.set_num_threads(args.threads)
    results: list[Result] = []
    for case in args.case:
        if case in _LEARNED:
            for result in learned_results(args, case):
                log(f"{case} dose {result.dose:g} {result.method}: {result.mean('psnr'):.2f} dB")
                results.append(result)
            continue
        log(f"{case}: recipe {PINNED_SETS[case].digest()[:16]}")
        slices = pinned_slices(case, args.doses, args.slices, args.cache, args.filter)
        pictures: dict[str, np.ndarray] = {}
        for result in results_of(args, case, slices, pictures):
            log(f"{result.case} dose {result.dose:g} {result.method}: {result.mean('psnr'):.2f} dB")
            results.append(result)
        if args.picture and case == args.case[0]:
            draw(pictures, slices.families, args.picture)
    names = dict.fromkeys(TorchScriptDenoiser(model).card.name for model in args.model)
    if args.filter is not None:
        names = {}  # the goals are of the recipe's
    found = [(name, v) for name in names for v in verdicts(results, name)]
    if args.json:
        print_json(results, found, args.by_kind)
        return 0
    print(table(results, args.by_kind))
    for name in names:
        if of_model := [v for n, v in found if n == name]:
            print(f"\n{name}\n{verdict_table(of_model)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
