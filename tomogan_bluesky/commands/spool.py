"""`tomogan-bluesky spool`: derived runs that wait on disk for their Tiled server."""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

_EXAMPLES = """\
examples:
  tomogan-bluesky spool list
      what waits, since when, for whom, and why
  TILED_API_KEY=... tomogan-bluesky spool flush
      bring everything to its server now; what is there already is not sent twice
  tomogan-bluesky spool flush 3f2a --catalog my_catalog
      bring one run to the catalog in a folder, wherever it was to go

A callback that publishes to a server brings what waits for it by itself, within seconds after the
server is back.
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "spool",
        help="list, or bring to their server, derived runs that wait on disk",
        description="Derived runs wait on disk while their Tiled server is away. List them, or "
        "bring them there.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "action",
        choices=("list", "flush"),
        help="list: what waits; flush: bring it to its server now",
    )
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="uids of derived runs, or their beginnings (default: all)",
    )
    parser.add_argument("--spool", type=Path, metavar="DIR", help="folder (default: this user's)")
    to = parser.add_mutually_exclusive_group()
    to.add_argument("--to", metavar="SERVER", help="address or profile (default: each its own)")
    to.add_argument("--catalog", type=Path, metavar="DIR", help="to the catalog in this folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object a run")
    return parser


def run(args: argparse.Namespace) -> int:
    from ..errors import PublishError
    from ..publish.spool import Spool, default_folder

    spool = Spool(args.spool or default_folder(), 0.0)
    there = spool.waiting()
    for name in args.runs:
        if not any(run.uid.startswith(name) for run in there):
            raise PublishError(
                f"run {name!r}: expected the beginning of a uid that waits in {spool.folder}, got "
                "none; see: tomogan-bluesky spool list"
            )
    runs = [run for run in there if not args.runs or run.uid.startswith(tuple(args.runs))]
    if not runs and not args.json:
        print(f"nothing waits in {spool.folder}")
    if args.action == "list":
        for waiting in runs:
            print(_told({**(waiting.about or {}), "bytes": waiting.size_bytes()}, args.json))
        return 0
    left = 0
    for waiting, outcome, why in _flush(runs, args):
        left += outcome == "left"
        if args.json:
            print(json.dumps({"uid": waiting.uid, "outcome": outcome, "why": why}))
        else:
            print(f"{waiting.uid}  {outcome}", file=sys.stderr if why else sys.stdout)
            if why:
                print(why, file=sys.stderr)
    return 1 if left else 0


def _told(about: dict[str, Any], as_json: bool) -> str:
    if as_json:
        return json.dumps(about)
    state = about["exit_status"] or "not at its end"
    since = datetime.fromtimestamp(about["since"]).isoformat(" ", "seconds")
    return (
        f"{about['uid']}  {state}, since {since}, {about['bytes'] / 2**20:.1f} MiB\n"
        f"    of run {about['raw_uid']}, for {about['target']}\n"
        f"    {about['why']}".rstrip()
    )


def _flush(runs: list[Any], args: argparse.Namespace) -> Iterator[tuple[Any, str, str]]:
    """Each run with what became of it, and why it is left where it is."""
    from ..errors import PublishError
    from ..publish.connection import connect
    from ..publish.courier import bring
    from ..publish.server import serve_catalog

    clients: dict[str, Any] = {}
    with ExitStack() as stack:
        if args.catalog and runs:
            clients[""] = stack.enter_context(serve_catalog(args.catalog)).client()
        for waiting in runs:
            target = "" if args.catalog else args.to or waiting.target
            try:
                if target not in clients:
                    clients[target] = connect(target)
                    stack.callback(clients[target].context.close)
                yield waiting, bring(clients[target], waiting), ""
            except PublishError as error:
                yield waiting, "left", str(error)
