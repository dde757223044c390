"""`tomogan-bluesky export`: the slices of a derived run as TIFF or HDF5, for other programs."""

import argparse
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

_EXAMPLES = """\
examples:
  tomogan-bluesky export -1 --catalog my_catalog --to slices
      what was derived from the newest scan, as slices/denoised_0000.tif, …
  tomogan-bluesky export 12 --catalog my_catalog --to slices --quantity reconstruction
  tomogan-bluesky export 3f2a --catalog my_catalog --to slices --format hdf5 --overwrite
      one file, slices/denoised.h5, with the dataset /entry/data/denoised
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "export",
        help="write the slices of a derived run to TIFF or HDF5",
        description="Write the slices of a derived run to files that ImageJ and Dragonfly read: "
        "float32, with the size of a pixel where the scan recorded it.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "run",
        metavar="RUN",
        help="uid, unique beginning of a uid, scan_id, or -1 for the newest scan; of a raw run, "
        "its newest successful derived run is taken",
    )
    parser.add_argument(
        "--catalog",
        required=True,
        help="folder of the catalog, or address or profile of a Tiled server",
    )
    parser.add_argument("--to", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("--format", choices=("tiff", "hdf5"), default="tiff")
    parser.add_argument(
        "--quantity", default="denoised", help="denoised (default), reconstruction or uncertainty"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def run(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from ..publish.catalog import find_run
    from ..publish.place import opened

    with opened(args.catalog) as (client, _):
        derived = _derived(client, find_run(client, args.run))
        start = derived.metadata["start"]
        array = _array(derived, args.quantity)
        pixel_size = start.get("pixel_size_um")
        about = {
            "quantity": args.quantity,
            "units": derived["primary"].metadata["data_keys"][args.quantity]["units"],
            "derived_run_uid": start["uid"],
            "raw_run_uid": start["original_run_uid"],
        }
        slices = tqdm(
            (np.asarray(array[i], dtype=np.float32) for i in range(len(array))),
            total=len(array),
            unit="slice",
            desc="export",
            disable=None,
        )
        write = _write_tiff if args.format == "tiff" else _write_hdf5
        with _explain(args.to):
            args.to.mkdir(parents=True, exist_ok=True)
            files = write(args.to, slices, array.shape, about, pixel_size, args.overwrite)
    result = {
        **about,
        "pixel_size_um": pixel_size,
        "shape": list(array.shape),
        "files": [str(path) for path in files],
    }
    if args.json:
        print(json.dumps(result))
        return 0
    size = f"pixels of {pixel_size:g} µm" if pixel_size else "the size of a pixel is not recorded"
    print(f"derived run  {start['uid']}")
    print(f"slices       {len(array)} of {array.shape[1]} x {array.shape[2]}, {size}")
    print(f"files        {files[0]}" + (f" … {files[-1].name}" if len(files) > 1 else ""))
    return 0


def _derived(client: Any, run: Any) -> Any:
    """The run itself if it is derived, else the newest successful one that comes from it."""
    from ..errors import PublishError
    from ..publish.catalog import derived_runs
    from ..publish.identity import is_derived

    start = run.metadata["start"]
    if is_derived(start):
        return run
    candidates = [client[uid] for uid in derived_runs(client, start)]
    for candidate in reversed(candidates):
        if candidate.metadata.get("stop", {}).get("exit_status") == "success":
            return candidate
    got = f"{len(candidates)} that did not succeed" if candidates else "none"
    raise PublishError(
        f"run {start['uid']}: expected a successful derived run of it, got {got}; make one with: "
        f"tomogan-bluesky replay {start['uid']} --catalog …"
    )


def _array(derived: Any, quantity: str) -> Any:
    from ..errors import PublishError

    keys = derived["primary"].metadata["data_keys"] if "primary" in derived else {}
    volumes = [name for name, key in keys.items() if key["dtype"] == "array"]
    if quantity not in volumes:
        raise PublishError(
            f"run {derived.metadata['start']['uid']}: expected slices of {quantity!r}, got "
            f"{', '.join(volumes) or 'no slices at all'}; name one with --quantity"
        )
    return derived["primary"][quantity]


def _write_tiff(
    folder: Path,
    slices: Iterable[np.ndarray],
    shape: tuple[int, ...],
    about: dict[str, str],
    pixel_size: float | None,
    overwrite: bool,
) -> list[Path]:
    from ..errors import BackendUnavailableError

    try:
        import tifffile
    except ImportError as error:
        raise BackendUnavailableError(
            "expected tifffile to be installed, which TIFF needs; install it with: pip install "
            "tifffile, or choose --format hdf5"
        ) from error

    digits = max(4, len(str(shape[0] - 1)))
    files = [folder / f"{about['quantity']}_{i:0{digits}d}.tif" for i in range(shape[0])]
    _check_free(files, overwrite)
    # The way ImageJ keeps it, which the others read too: pixels per unit, and the unit by name.
    metadata = {"axes": "YX", "Info": "\n".join(f"{k}: {v}" for k, v in about.items())}
    options: dict[str, Any] = {"metadata": metadata}
    if pixel_size:
        options["resolution"] = (1 / pixel_size, 1 / pixel_size)
        metadata["unit"] = "um"
    for path, pixels in zip(files, slices, strict=True):
        with _in_one_piece(path) as unfinished:
            tifffile.imwrite(unfinished, pixels, imagej=True, **options)
    return files


def _write_hdf5(
    folder: Path,
    slices: Iterable[np.ndarray],
    shape: tuple[int, ...],
    about: dict[str, str],
    pixel_size: float | None,
    overwrite: bool,
) -> list[Path]:
    import h5py

    path = folder / f"{about['quantity']}.h5"
    _check_free([path], overwrite)
    with _in_one_piece(path) as unfinished, h5py.File(unfinished, "w") as file:
        file.attrs.update(about)
        dataset = file.create_dataset(
            f"entry/data/{about['quantity']}", shape, np.float32, chunks=(1, *shape[1:])
        )
        dataset.attrs["units"] = about["units"]
        if pixel_size:
            dataset.attrs["element_size_um"] = [pixel_size] * 3  # ImageJ's name for it
        for i, pixels in enumerate(slices):
            dataset[i] = pixels
    return [path]


def _check_free(files: list[Path], overwrite: bool) -> None:
    from ..errors import PublishError

    there = [path for path in files if path.exists()]
    if there and not overwrite:
        raise PublishError(
            f"{there[0]}: expected no file of this name, but there is one"
            + (f", and {len(there) - 1} more" if len(there) > 1 else "")
            + "; name another folder, or replace them with --overwrite"
        )


@contextmanager
def _in_one_piece(path: Path) -> Iterator[Path]:
    """A name to write to; the file gets its own name when it is whole."""
    unfinished = path.with_name(f".{path.name}.part")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def _explain(folder: Path) -> Iterator[None]:
    from ..errors import PublishError, TomoGANError

    try:
        yield
    except OSError as error:
        if isinstance(error, TomoGANError):
            raise
        raise PublishError(
            f"{folder}: expected a folder to write the slices to, got: {error}; see that the disk "
            "is not full and the folder can be written"
        ) from error
