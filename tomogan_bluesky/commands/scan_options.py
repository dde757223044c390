"""Options that say which scans of a catalog a command works on, and how they are reconstructed."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..training.catalogs import ScanReader


QUERY_HELP = (
    "what the start documents say: sample=…, plan_name=…, dose=…, since=DATE, until=DATE, or "
    "KEY=…, KEY>=… or KEY<=… with any other key"
)


def rows(text: str) -> tuple[int, int]:
    """Parse "A:B"."""
    first, _, last = text.partition(":")
    try:
        return int(first), int(last)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected two row numbers as A:B, for example 100:108, got {text!r}"
        ) from None


def model_named(text: str | None) -> str | None:
    """The model that a command line names: None for "none", the shipped one where it is silent.

    Raises
    ------
    ModelNotFoundError
        There is no such model; better known now than after a scan.
    ModelError
        Its file can't be read.
    """
    from ..config import DEFAULT_MODEL
    from ..models.files import model_sha256, registry_folder

    model = {None: DEFAULT_MODEL, "default": DEFAULT_MODEL, "none": None}.get(text, text)
    if model is not None and registry_folder(model) is None:
        model_sha256(model)
    return model


def add_catalog_options(group: Any) -> None:
    """Where the catalog is; for a group in which one is chosen."""
    group.add_argument("--catalog", type=Path, metavar="FOLDER", help="folder of a catalog")
    group.add_argument("--tiled", help="address of a Tiled server, or name of a Tiled profile")


def add_scan_options(parser: argparse.ArgumentParser) -> None:
    """Which scans, and how they are read."""
    scans = parser.add_argument_group("scans of a catalog")
    scans.add_argument(
        "--query",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help=f"{QUERY_HELP}; may be repeated",
    )
    scans.add_argument(
        "--profile", type=Path, help="settings of a beamline, for reading and reconstruction"
    )
    scans.add_argument("--rows", type=rows, metavar="A:B", help="detector rows A to B - 1")
    scans.add_argument("--centre", "--center", type=float, help="detector column of the axis")


@contextmanager
def scan_reader(args: argparse.Namespace, device: str) -> "Iterator[ScanReader]":
    """A reader of the catalog that the arguments name, as long as it is open."""
    from ..config import Profile, load_profile
    from ..publish.connection import connect
    from ..publish.server import serve_catalog
    from ..training.catalogs import ScanReader

    profile = load_profile(args.profile) if args.profile else Profile(version=1)
    scan, reconstruction = profile.scan, profile.reconstruction
    if args.rows is not None:
        scan = scan.model_copy(update={"rows": args.rows})
    if args.centre is not None:
        reconstruction = reconstruction.model_copy(update={"rotation_centre": args.centre})
    if args.tiled is not None:
        client = connect(args.tiled)
        try:
            yield ScanReader(client, scan, reconstruction, device)
        finally:
            client.context.close()
    else:
        with serve_catalog(args.catalog, must_exist=True) as server:
            yield ScanReader(server.client(), scan, reconstruction, device)
