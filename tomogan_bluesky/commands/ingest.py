"""`tomogan-bluesky ingest`: a scan in files becomes a raw run of a catalog."""

import argparse
import json
from pathlib import Path
from typing import Any

_EXAMPLES = """\
examples:
  tomogan-bluesky ingest tooth.h5 --catalog my_catalog
      the images stay in tooth.h5; the catalog remembers where they are
  tomogan-bluesky ingest walnut/ --catalog my_catalog
      a folder of TIFF files with a description of them, walnut/scan.yml:
          sample: walnut
          projections: proj_*.tif            # * stands for the number of the frame
          flats: flat_*.tif
          darks: dark_*.tif
          angles: {first: 0, last: 180}      # or a text file with one angle a line
          units: deg
          pixel_size_um: 1.3
  tomogan-bluesky replay -1 --catalog my_catalog
      reconstruct and denoise what was ingested last
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "ingest",
        help="register a scan in files as a raw run",
        description="Register a tomography scan as a raw run. It is a Data Exchange HDF5 file "
        "(/exchange/data, data_white, data_dark, theta), an NXtomo file, or a folder of TIFF files "
        "with a description, scan.yml. Nothing is copied: the files have to stay where they are. "
        "What was ingested before is found again.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", type=Path, metavar="FILE", help="HDF5 file, or folder of TIFFs")
    parser.add_argument(
        "--catalog", required=True, type=Path, metavar="DIR", help="folder of the catalog"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def run(args: argparse.Namespace) -> int:
    from ..intake.files import read_scan
    from ..publish.catalog import next_scan_id
    from ..publish.server import serve_catalog
    from ..publish.tiled_publisher import TiledPublisher

    scan = read_scan(args.path)
    with serve_catalog(args.catalog, readable=scan.folders) as server:
        client: Any = server.client()
        was_there = scan.uid in client
        if was_there and "stop" not in client[scan.uid].metadata:
            # An ingest was cut off. The run is ours alone, and nothing but references.
            client[scan.uid].delete(recursive=True, external_only=False)
            was_there = False
        if not was_there:
            publish = TiledPublisher(client, batch_size=len(scan.theta))
            for name, doc in scan.documents(next_scan_id(client)):
                publish(name, doc)
        scan_id = client[scan.uid].metadata["start"]["scan_id"]
    frames = {stream: len(images) for stream, images in scan.images.items()}
    if args.json:
        print(
            json.dumps(
                {"uid": scan.uid, "scan_id": scan_id, "was_there": was_there, "frames": frames}
            )
        )
        return 0
    rows, columns = scan.images["primary"].frame
    print(f"uid      {scan.uid}" + (" (was there already)" if was_there else ""))
    print(f"scan_id  {scan_id}")
    counts = f"{frames['primary']} projections, {frames['flat']} flats, {frames['dark']} darks"
    print(f"frames   {counts}, of {rows} rows and {columns} columns")
    return 0
