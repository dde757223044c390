"""`tomogan-bluesky doctor`: what is taken for what in a run, and what would mend it."""

import argparse
import json
from pathlib import Path
from typing import Any

_EXAMPLES = """\
examples:
  tomogan-bluesky doctor -1 --catalog my_catalog
      the newest run, with the default settings
  tomogan-bluesky doctor 3f2a --tiled https://tiled.example.org --profile profiles/hex/tomogan.yml
  tomogan-bluesky doctor --profile profiles/hex/tomogan.yml
      check a profile alone
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "doctor",
        help="explain what is taken for what in a run, and what would mend it",
        description="Explain, for a run, which data key is taken for what and why, what is "
        "missing, and the line of configuration that mends it.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", nargs="?", help="uid, its unique beginning, scan_id, or -1")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--catalog", type=Path, help="folder of the catalog")
    where.add_argument("--tiled", help="address of a Tiled server, or name of a Tiled profile")
    parser.add_argument("--profile", type=Path, help="settings of a beamline")
    parser.add_argument("--json", action="store_true", help="one finding a line, as JSON")
    return parser


def run(args: argparse.Namespace) -> int:
    from contextlib import ExitStack
    from dataclasses import asdict

    from ..config import Profile, load_profile
    from ..errors import ConfigurationError
    from ..intake.archive import documents
    from ..intake.diagnosis import diagnose
    from ..intake.reference_runs import ReferenceRuns
    from ..publish.catalog import find_run
    from ..publish.connection import connect

    profile = load_profile(args.profile) if args.profile else Profile(version=1)
    if args.run is None:
        if args.profile is None:
            raise ConfigurationError("expected a run, a --profile, or both; see --help")
        print(f"{args.profile}: every setting is known and of the right kind")
        return 0
    with ExitStack() as stack:
        if args.tiled is not None:
            client = connect(args.tiled)
            stack.callback(client.context.close)
        elif args.catalog is not None:
            from ..publish.server import serve_catalog

            client = stack.enter_context(serve_catalog(args.catalog, must_exist=True)).client()
        else:
            raise ConfigurationError("expected --catalog or --tiled, to find the run in")
        raw = find_run(client, args.run)
        references = ReferenceRuns(profile.scan, client.get)
        findings = diagnose(
            documents(raw), profile.scan, lambda *of_run: references.elsewhere(*of_run)[0]
        )
    for finding in findings:
        if args.json:
            print(json.dumps(asdict(finding)))
            continue
        print(f"{'ok     ' if finding.fine else 'PROBLEM'}  {finding.what}")
        if finding.mend:
            print(f"         in a profile:  {finding.mend}")
    return 0 if all(finding.fine for finding in findings) else 1
