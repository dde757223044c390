"""`tomogan-bluesky serve-catalog`: the catalog in a folder, for browsers and other programs."""

import argparse
import json
import signal
import threading
from pathlib import Path
from typing import Any

_EXAMPLES = """\
examples:
  tomogan-bluesky serve-catalog tomogan_demo
      until Ctrl-C; open the address that it prints in a browser
  tomogan-bluesky serve-catalog my_catalog --port 8000
      then, in Python: tiled.client.from_uri("http://127.0.0.1:8000")
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "serve-catalog",
        help="serve the catalog in a folder until Ctrl-C",
        description="Serve the catalog in a folder to this machine until Ctrl-C. Everybody on the "
        "machine may read; the key for writing is in the file api_key of the folder.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="folder of the catalog")
    parser.add_argument("--port", type=int, default=0, help="(default: any that is free)")
    parser.add_argument("--json", action="store_true", help="print the address as JSON")
    return parser


def run(args: argparse.Namespace) -> int:
    from ..errors import PublishError
    from ..publish.server import serve_catalog

    asked_to_end = threading.Event()
    # Ctrl-C and `kill` both mean: finish what is being served, then end.
    handlers = {
        number: signal.signal(number, lambda *_: asked_to_end.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        with serve_catalog(args.directory, port=args.port) as server:
            if not server.is_ours:
                raise PublishError(
                    f"{args.directory}: expected a catalog that is not served yet, but another "
                    f"process serves it already, at {server.uri}; use that one, or end it first"
                )
            if args.json:
                print(json.dumps({"uri": server.uri, "directory": str(server.directory)}))
            else:
                print(f"{args.directory} is served at {server.uri}\nCtrl-C ends it")
            _flush()
            asked_to_end.wait()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return 0


def _flush() -> None:
    """Show the address at once, into a pipe too."""
    print(end="", flush=True)
