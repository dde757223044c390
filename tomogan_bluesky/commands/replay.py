"""`tomogan-bluesky replay`: an archived scan through the same callback as a live one."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from . import bulk_replay
from .scan_options import model_named, rows

PRINTS_REPORTS = True

_EXAMPLES = """\
examples:
  tomogan-bluesky replay -1 --catalog my_catalog
      the newest scan, with the model that ships with the package
  tomogan-bluesky replay 3f2a --catalog my_catalog --centre 1023.5 --filter shepp --model none
      reconstruct only, with a given rotation centre
  tomogan-bluesky replay 12 --catalog my_catalog --backend tomopy --rows 100:108 --again
      only some rows, with another backend, whether they are there already or not
  tomogan-bluesky replay -1 --catalog https://tiled.example.org --into my_catalog
      the newest scan of a server, whose key is in TILED_API_KEY, into a folder of this machine
  tomogan-bluesky replay 12 --catalog my_catalog --remove
      remove what was derived from scan 12, files included
  tomogan-bluesky replay --resume --catalog my_catalog
      all that have no final version yet, as after a crash; again and again does no harm
  tomogan-bluesky replay --query sample=foam --query since=2026-11-01 --catalog my_catalog
      all that answer both; what is there already is left alone
  tomogan-bluesky replay --query plan_name=tomo_scan --catalog https://tiled.example.org \\
      --profile profiles/hex/tomogan.yml --dask tcp://cluster:8786
      on a cluster, whose workers have TILED_API_KEY in their environment
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "replay",
        help="reconstruct and denoise an archived scan",
        description="Reconstruct and denoise an archived scan, as the callback does live.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "run", nargs="?", help="uid, unique beginning of a uid, scan_id, or -1 for the newest"
    )
    parser.add_argument(
        "--catalog",
        required=True,
        help="folder of the catalog, or address or profile of a Tiled server",
    )
    parser.add_argument("--into", help="publish to this one (default: the same)")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="settings of a beamline")
    parser.add_argument("--backend", choices=("torch", "tomopy", "astra"), help="(torch)")
    parser.add_argument("--method", choices=("gridrec", "fbp", "sirt", "tv"), help="(gridrec)")
    parser.add_argument("--filter", help="ramlak, shepp, hann, … or none (ramlak)")
    parser.add_argument(
        "--centre",
        "--center",
        type=float,
        help="detector column of the rotation axis (default: found from the projections)",
    )
    parser.add_argument("--rows", type=rows, metavar="A:B", help="detector rows A to B - 1")
    parser.add_argument("--model", help="name or path of a model, or none")
    parser.add_argument("--device", help="auto, cpu, cuda, … (auto)")
    parser.add_argument("--again", action="store_true", help="compute again what is there already")
    parser.add_argument("--remove", action="store_true", help="remove what was derived, and stop")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    bulk_replay.add_arguments(parser, which)
    return parser


def run(args: argparse.Namespace) -> int:
    from contextlib import ExitStack

    from tqdm import tqdm

    from ..callback import TomoGANCallback
    from ..publish.catalog import find_run
    from ..publish.explain import explain_request
    from ..publish.place import opened
    from ..replaying import replay

    settings, model, device = _settings(args)
    if args.query is not None or args.resume:
        return bulk_replay.run(args, settings, model, device)
    with ExitStack() as stack:
        source, volumes = stack.enter_context(opened(args.catalog))
        target = source
        if args.into:
            target, volumes = stack.enter_context(opened(args.into, must_exist=False))
        raw = _raw(find_run(source, args.run), args.run)
        if args.remove:
            return _remove(target, volumes, raw, args)
        publishing = settings.publishing
        if volumes is not None:  # what else a profile names, the catalog's own server can't read
            publishing = publishing.model_copy(update={"directory": volumes})
        bar = stack.enter_context(tqdm(unit="slice", desc="replay", disable=None))

        def show(_: str, done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        callback = stack.enter_context(
            TomoGANCallback(
                target,
                model,
                scan=settings.scan,
                reconstruction=settings.reconstruction,
                denoising=settings.denoising,
                publishing=publishing,
                device=device,
                again=args.again,
                progress=show,
                worker="thread",
            )
        )
        with explain_request(f"Tiled to show run {args.run}"):
            reports = replay(raw, callback)
    return _tell(reports, args)


def _raw(run: Any, name: str) -> Any:
    """The run, if it is a raw one."""
    from ..errors import IntakeError
    from ..publish.identity import ORIGINAL_RUN, is_derived

    start = run.metadata["start"]
    if is_derived(start):
        raise IntakeError(
            f"run {name}: expected a raw run, got {start['uid']}, which was derived from run "
            f"{start[ORIGINAL_RUN]}; name that one"
        )
    return run


def _settings(args: argparse.Namespace) -> tuple[Any, str | None, str]:
    """Settings, model and device of the profile, if there is one, and over them those of the
    command line."""
    from ..config import Profile, Settings, checked, load_profile

    profile = load_profile(args.profile) if args.profile else Profile(version=1)
    given = {
        "scan": {"rows": args.rows},
        "reconstruction": {
            "backend": args.backend,
            "method": args.method,
            "filter": args.filter,
            "rotation_centre": args.centre,
        },
    }
    content = profile.model_dump(include=set(Settings.model_fields))
    for section, values in given.items():
        content[section] |= {key: value for key, value in values.items() if value is not None}
    settings = checked(Settings, content, "settings")
    model = model_named(args.model or profile.model or "none")
    return settings, model, args.device or profile.device


def _tell(reports: list[Any], args: argparse.Namespace) -> int:
    from ..errors import IntakeError

    if not reports:
        raise IntakeError(
            f"run {args.run}: expected a tomography scan (frames with angles in stream 'primary', "
            "darks and flats in streams of their own), and it is none"
        )
    for report in reports:
        if args.json:
            print(json.dumps(report.as_dict()))
            continue
        frames = report.frames
        print(f"raw run      {report.raw_uid}")
        print(f"derived run  {report.derived_uid}")
        if report.already_done:
            print("was there already; --again computes it again")
            continue
        print(
            f"frames       {frames.used} of {frames.expected} used, {frames.missing} missing, "
            f"{frames.superseded} superseded, {sum(frames.rejected.values())} rejected"
        )
        print(f"slices       {report.n_slices}, rotation centre {report.rotation_centre}")
        print("seconds      " + ", ".join(f"{k} {v:.2f}" for k, v in report.seconds.items()))
        if report.volume_path is not None:
            print(f"file         {report.volume_path}")
        if report.exit_status == "success" and report.reason:
            print(f"note         {report.reason}")
    failed = [report for report in reports if report.exit_status != "success"]
    for report in failed:
        print(f"run {report.raw_uid}: {report.exit_status}: {report.reason}", file=sys.stderr)
    return 1 if failed else 0


def _remove(client: Any, volumes: Path | None, run: Any, args: argparse.Namespace) -> int:
    from ..errors import ConfigurationError
    from ..publish.catalog import derived_runs
    from ..publish.removal import remove_derived_run

    if volumes is None:
        raise ConfigurationError(
            "--remove: expected the folder of a catalog, got a server, whose files may not be of "
            "this machine; remove the run there"
        )
    uids = derived_runs(client, run.metadata["start"])
    for uid in uids:
        path = remove_derived_run(client, uid)
        if args.json:
            print(json.dumps({"removed": uid, "file": None if path is None else str(path)}))
        else:
            print(f"removed {uid}" + (f" and {path}" if path else ""))
    if not uids and not args.json:
        print("nothing was derived from it")
    return 0
