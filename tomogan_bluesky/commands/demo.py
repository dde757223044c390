"""`tomogan-bluesky demo`: a simulated low-dose scan becomes denoised slices in Tiled."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from .scan_options import model_named

PRINTS_REPORTS = True

_EXAMPLES = """\
examples:
  tomogan-bluesky demo
      a quarter of the dose, 16 slices of 256 x 256, everything under ./tomogan_demo
  tomogan-bluesky demo --dose 0.1 --rows 32 --seed 7
  tomogan-bluesky serve-catalog tomogan_demo
      look at the slices again in a browser
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "demo",
        help="a simulated low-dose scan becomes denoised slices in Tiled",
        description="Run a simulated low-dose scan on a RunEngine with the callback subscribed, "
        "and compare what it publishes with the truth.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("tomogan_demo"),
        metavar="DIR",
        help="catalog and picture (tomogan_demo)",
    )
    parser.add_argument("--rows", type=int, default=16, help="detector rows, so slices (16)")
    parser.add_argument("--size", type=int, default=256, help="detector columns (256)")
    parser.add_argument("--angles", type=int, default=361, help="projections, 0° to 180° (361)")
    parser.add_argument("--dose", type=float, default=0.25, help="share of the full dose (0.25)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample and of the noise (0)")
    parser.add_argument("--model", help="name or path of a model, or none (the shipped one)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON at the end")
    return parser


def run(args: argparse.Namespace) -> int:
    import numpy as np
    import torch
    from bluesky import RunEngine
    from tqdm import tqdm

    from ..callback import TomoGANCallback
    from ..config import PublishingConfig, ReconstructionConfig, WorkerConfig
    from ..publish.server import array_address, serve_catalog
    from ..publish.tiled_publisher import TiledPublisher
    from ..recon.beam import Beam
    from ..recon.gridrec import Gridrec
    from ..recon.phantoms import HELD_OUT_FAMILY, make_phantom
    from ..sim.beamline import SimBeamline
    from ..sim.plans import tomo_scan
    from ..training.metrics import field_of_view
    from . import comparison

    started = time.perf_counter()
    _check(args)
    model = model_named(args.model)
    say = (lambda *text: print(*text, file=sys.stderr)) if args.json else print
    say(f"sample: {HELD_OUT_FAMILY}, {args.rows} rows of {args.size} pixels, dose {args.dose:g}")
    phantom = make_phantom(
        HELD_OUT_FAMILY, 2 * args.size, np.random.default_rng(args.seed), args.rows
    )
    angles_deg = np.linspace(0.0, 180.0, args.angles)
    # The axis is off the middle, as on every real beamline; the callback has to find it.
    centre = (args.size - 1) / 2 + 2.3
    beamline = SimBeamline(
        phantom, angles_deg, Beam(dose=args.dose, seed=args.seed), rotation_centre=centre
    )
    worker = WorkerConfig(nice=0)  # nobody's motors are moving
    with serve_catalog(args.output) as server:
        client = server.client()
        RE = RunEngine()
        RE.subscribe(TiledPublisher(client))
        bar = tqdm(total=args.angles, unit="projection", desc="scan", disable=None)
        RE.subscribe(lambda name, doc: bar.update("rotation" in doc["data"]), "event")
        with TomoGANCallback(
            client, model, publishing=PublishingConfig(directory=server.volumes), worker=worker
        ) as tomogan:
            RE.subscribe(tomogan)
            RE(
                tomo_scan(
                    beamline.camera,
                    beamline.rotation,
                    beamline.shutter,
                    beamline.sample,
                    angles_deg,
                    n_darks=20,
                    n_flats=20,
                    md={"sample": {"name": HELD_OUT_FAMILY}, "dose": args.dose},
                )
            )
            bar.close()
            scan_ended = time.perf_counter()
            (report,) = tomogan.wait()
        lag = time.perf_counter() - scan_ended
        if report.exit_status != "success" or report.derived_uid is None:
            print(f"the demo failed: {report.reason}", file=sys.stderr)
            return 1
        say(f"derived run {report.derived_uid}: {report.exit_status}")
        if report.reason:
            say(f"note      {report.reason}")
        stream = client[report.derived_uid]["primary"]
        reconstruction = stream["reconstruction"].read()
        denoised = stream["denoised"].read() if model is not None else None
        uncertainty = stream["uncertainty"].read() if "uncertainty" in stream else None
        quantity = "reconstruction" if denoised is None else "denoised"

    result: dict[str, Any] = {
        "raw_uid": report.raw_uid,
        "derived_uid": report.derived_uid,
        "frames": report.frames.as_dict(),
        "rotation_centre": report.rotation_centre,
    }
    if denoised is not None:
        noise_free = Gridrec(beamline.geometry, ReconstructionConfig().filter)(
            torch.from_numpy(beamline.integrals)
        ).numpy()
        found = comparison.scores(reconstruction, denoised, noise_free, beamline.truth)
        picture = args.output / "comparison.png"
        middle = args.rows // 2
        comparison.draw(
            picture,
            beamline.truth[middle],
            reconstruction[middle],
            denoised[middle],
            f"{HELD_OUT_FAMILY}, {args.angles} projections at {args.dose:g} of the dose, "
            f"slice {middle}",
            None if uncertainty is None else uncertainty[middle],
        )
        if uncertainty is not None:
            inside = field_of_view(args.size)
            held = np.abs(denoised - noise_free) <= uncertainty
            found["uncertainty_held"] = float(held[:, inside].mean())
        result |= {**found, "picture": str(picture)}
        say(f"\n{comparison.table(found)}\n")
    frames = report.frames
    say(
        f"frames    {frames.expected} expected, {frames.used} used, {frames.missing} missing\n"
        f"centre    found at column {report.rotation_centre:.2f}, is {centre:.2f}\n"
        "seconds   " + ", ".join(f"{k} {v:.2f}" for k, v in report.seconds.items()) + "\n"
        f"          all slices were readable {lag:.1f} s after the last projection"
    )
    if "uncertainty_held" in result:
        say(
            f"trust     {result['uncertainty_held']:.1%} of the pixels differ from the "
            "reconstruction without noise by no more than their uncertainty says"
        )
    if denoised is not None:
        say(f"picture   {picture}")
    say("\nThe server of this demo has stopped. To look at the slices in a browser:")
    say(f"  tomogan-bluesky serve-catalog {args.output}")
    say("and open, under the address that it prints:")
    say(f"  {array_address('', report.derived_uid, quantity)}")
    if args.json:
        result["seconds"] = round(time.perf_counter() - started, 2)
        result["seconds_by_stage"] = {k: round(v, 3) for k, v in report.seconds.items()}
        print(json.dumps(result))
    return 0


def _check(args: argparse.Namespace) -> None:
    from ..errors import ConfigurationError

    for name, least in (("rows", 2), ("size", 32), ("angles", 3)):
        if getattr(args, name) < least:
            raise ConfigurationError(
                f"--{name}: expected at least {least}, got {getattr(args, name)}"
            )
    if not 0 < args.dose <= 100:
        raise ConfigurationError(
            f"--dose: expected a share of the full dose, 0.25 for a quarter, got {args.dose:g}"
        )
