"""The command line: parses arguments, runs one command, prints its errors."""

import argparse
import logging
import sys
from collections.abc import Sequence
from importlib import import_module

from . import torch_environment
from ._version import __version__
from .errors import ConfigurationError, TomoGANError
from .logs import JsonFormatter, without_reports

# Verb to module; each has add_parser(subparsers) and run(args) -> exit code.
_COMMANDS = (
    "demo",
    "serve_catalog",
    "ingest",
    "replay",
    "serve",
    "doctor",
    "export",
    "train",
    "calibrate",
    "spool",
    "evaluate",
    "models",
)


def make_parser() -> argparse.ArgumentParser:
    """The parser of `tomogan-bluesky` with all its commands."""
    parser = argparse.ArgumentParser(
        prog="tomogan-bluesky",
        description="Denoised tomography slices from Bluesky scans, in Tiled.",
        epilog="Start with: tomogan-bluesky demo",
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument(
        "-v", "--verbose", action="count", default=0, help="say more (-v: info, -vv: debug)"
    )
    parser.add_argument("--log-json", action="store_true", help="write the log as lines of JSON")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in _COMMANDS:
        module = import_module(f".commands.{name}", __package__)
        prints_reports = getattr(module, "PRINTS_REPORTS", False)
        module.add_parser(subparsers).set_defaults(
            execute=module.run, prints_reports=prints_reports
        )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns
    -------
    int
        0 done, 1 a run failed or an error was reported, 2 wrong usage: arguments or settings.
    """
    torch_environment.prepare()
    args = make_parser().parse_args(argv)
    _set_up_logs(args)
    try:
        return int(args.execute(args))
    except ConfigurationError as error:
        print(f"tomogan-bluesky {args.command}: {error}", file=sys.stderr)
        return 2
    except TomoGANError as error:
        print(f"tomogan-bluesky {args.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _set_up_logs(args: argparse.Namespace) -> None:
    ours = not logging.getLogger().handlers  # else they are of a program that calls `main`
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(args.verbose, 2)]
    logging.getLogger(__package__).setLevel(level)
    for handler in logging.getLogger().handlers:
        if args.log_json:
            handler.setFormatter(JsonFormatter())
        elif ours and args.prints_reports and not args.verbose:
            handler.addFilter(without_reports)
