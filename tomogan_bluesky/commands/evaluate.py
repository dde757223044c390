"""`tomogan-bluesky evaluate`: how good a model is, on the pinned sets or on archived scans."""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .scan_options import add_catalog_options, add_scan_options, scan_reader

if TYPE_CHECKING:
    from ..denoise.denoiser import Denoiser
    from ..training.goals import Verdict
    from ..training.pinned import PinnedSlices
    from ..training.reliability import Reliability
    from ..training.scoring import Result

_EXAMPLES = """\
examples:
  tomogan-bluesky evaluate
      the shipped model on all pinned sets, at all doses, and which goals it meets
  tomogan-bluesky evaluate my_model/model.ts unet4-simulated-v3 --set 256 --doses 0.25 --by-kind
      two models side by side, a row for each kind of sample
  tomogan-bluesky evaluate my_model/model.ts --catalog my_catalog --query sample=walnut
      on archived scans: of low dose against those of full dose, where there are both; else what
      some projections show, denoised, against what the others show

The scores of the noisy slices stand in brackets beside each figure. Against a reference that is
noisy itself, no method reaches a high PSNR: what counts is the difference. For models that know
their uncertainty, a second table says which share of the errors it holds, over all, at the tenth of
the steepest edges and in the flatter half.
Other methods beside it, BM3D among them: python benchmarks/denoising.py --help
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "evaluate",
        help="score a model on the pinned test sets or on archived scans",
        description="Score models: PSNR, SSIM, edge fidelity, F1 of the edges, and the frequency "
        "up to which the Fourier ring correlation is at least 1/2; where slices are neighbours, "
        "also the variance of what jumps between them against the truth.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", nargs="*", help="names or paths (default: the shipped one)")
    pinned = parser.add_argument_group("pinned sets")
    pinned.add_argument(
        "--set",
        nargs="+",
        metavar="SET",
        help="512, 256, 512-foreign, 256-foreign, 512-volumes, 256-volumes (default: all); foreign "
        "ones show a kind of sample, rings, blur and drift that no model was trained on, volumes "
        "slices that are neighbours",
    )
    pinned.add_argument("--doses", nargs="+", type=float, help="fractions of the full dose")
    pinned.add_argument("--slices", type=int, help="of each kind, the first ones (default: all)")
    pinned.add_argument("--cache", type=Path, metavar="DIR", help="keep slices here")
    pinned.add_argument(
        "--linear",
        action="store_true",
        help="score them again as a back-projection that interpolates linearly shows them, with "
        "which the goals were set",
    )
    parser.add_argument(
        "--sides",
        type=int,
        choices=(1, 2, 4, 8),
        default=1,
        help="of so many sides of a slice, turned and mirrored, the mean is taken (1)",
    )
    add_catalog_options(parser.add_argument_group("archived scans").add_mutually_exclusive_group())
    add_scan_options(parser)
    parser.add_argument("--by-kind", action="store_true", help="a row for each kind of sample")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, …")
    parser.add_argument("--threads", type=int, help="processor threads (default: torch's choice)")
    parser.add_argument("--json", action="store_true", help="one object a line")
    return parser


def run(args: argparse.Namespace) -> int:
    import torch

    from ..config import DEFAULT_MODEL
    from ..denoise.denoiser import TorchScriptDenoiser
    from ..denoise.turned import turned
    from ..training.goals import verdict_table, verdicts
    from ..training.reliability import reliability_table
    from ..training.scoring import table

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    models = [
        turned(TorchScriptDenoiser(m, args.device), args.sides)
        for m in args.model or [DEFAULT_MODEL]
    ]
    names = _names(args.model or [DEFAULT_MODEL], models)
    intervals: list[Reliability] = []
    if args.catalog is not None or args.tiled is not None:
        results = list(_on_scans(args, names, models))
    else:
        results = list(_on_pinned_sets(args, names, models, intervals))
    found = {name: verdicts(results, name) for name in names}
    if args.json:
        of_intervals = map(_intervals_as_json, intervals)
        for line in (*map(_as_json, results), *of_intervals, *_verdicts_as_json(found)):
            print(json.dumps(line))
        return 0
    print(table(results, args.by_kind))
    if intervals:
        print(f"\n{reliability_table(intervals)}")
    for name, of_model in found.items():
        if of_model:
            print(f"\n{name}\n{verdict_table(of_model)}")
    return 0


def _names(given: Sequence[str], models: "Sequence[Denoiser]") -> list[str]:
    """Names from the cards; the files' where two cards have the same."""
    cards = [model.card.name for model in models]
    return cards if len(set(cards)) == len(cards) else list(given)


def _on_pinned_sets(
    args: argparse.Namespace,
    names: list[str],
    models: "Sequence[Denoiser]",
    intervals: "list[Reliability]",
) -> "Iterator[Result]":
    from ..run.harmless import HarmlessDenoiser, denoised_share
    from ..training.interpolated import Views
    from ..training.pinned import DOSES, PINNED_SETS, pinned_slices
    from ..training.reliability import reliability
    from ..training.scoring import NOISY

    for case in args.set or PINNED_SETS:
        slices = pinned_slices(case, tuple(args.doses or DOSES), args.slices, args.cache)
        views = Views(case, slices, args.linear)
        for dose, images in slices.noisy.items():
            yield from views.score(dose, NOISY, images)
            for name, model in zip(names, models, strict=True):
                share = denoised_share(model, PINNED_SETS[case].relative_noise(dose))
                harmless = HarmlessDenoiser(model, share)
                denoised, half_width, ms = _denoised(harmless, images, slices)
                yield from views.score(dose, name, denoised, ms, share)
                if half_width is not None:
                    of = (denoised, half_width, slices.clean)
                    intervals.append(reliability(case, dose, name, *of))


def _denoised(model: "Denoiser", images: Any, of: "PinnedSlices") -> tuple[Any, Any, float]:
    """Denoised slices, their uncertainty (None: the model does not know it), and milliseconds a
    slice."""
    import time

    import torch

    from ..denoise.windows import has_uncertainty

    slices = torch.from_numpy(images)
    model(slices[:1])  # the first call compiles
    start = time.perf_counter()
    if has_uncertainty(model):
        both = [torch.stack(model.with_uncertainty(slices[part])) for part in of.samples()]
        denoised, half_width = torch.cat(both, 1).cpu().numpy()
    else:
        denoised = torch.cat([model(slices[part]) for part in of.samples()]).cpu().numpy()
        half_width = None
    return denoised, half_width, 1000 * (time.perf_counter() - start) / len(images)


def _on_scans(
    args: argparse.Namespace, names: list[str], models: "Sequence[Denoiser]"
) -> "Iterator[Result]":
    import sys

    from ..denoise.denoiser import check_reconstruction
    from ..denoise.refiltered import refiltered
    from ..publish.query import parse_query
    from ..training.scan_scores import scan_scores

    with scan_reader(args, args.device) as reader:
        config = reader.reconstruction
        for model in models:
            if remark := check_reconstruction(model.card, config):
                print(remark, file=sys.stderr)
        denoisers = (refiltered(model, config) for model in models)
        scores = scan_scores(
            reader, parse_query(args.query), dict(zip(names, denoisers, strict=True))
        )
        yield from scores
        for rejection in scores.rejected:
            print(f"left out: run {rejection.uid}: {rejection.reason}", file=sys.stderr)


def _as_json(result: "Result") -> dict[str, Any]:
    scores = {name: result.mean(name) for name in result.scores}
    row = {"set": result.case, "dose": result.dose, "method": result.method, **scores}
    row["share_denoised"] = result.share
    return row | {"ms_a_slice": result.ms_a_slice, "slices": len(result.families)}


def _intervals_as_json(found: "Reliability") -> dict[str, Any]:
    figures = {name: found.mean(name) for name in found.figures}
    return {"set": found.case, "dose": found.dose, "intervals_of": found.method, **figures}


def _verdicts_as_json(found: "dict[str, list[Verdict]]") -> Iterator[dict[str, Any]]:
    for name, of_model in found.items():
        for v in of_model:
            figures = {"found": v.found, "needed": v.needed, "met": v.met}
            yield {"set": v.case, "method": name, "goal": v.goal, **figures}
