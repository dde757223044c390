"""What it costs to take a scan in, against reading the same file with plain h5py, in one run.

    python benchmarks/intake.py [--quick] [--json]

For each way in which a beamline records scans: documents and frames a second, from the documents to
a scan whose frames are all in their places; megabytes a second, from there to slabs of sinograms in
memory (views of frames, as they are handed to the reconstruction); and "share", the speed of both
together as a share of that of plain reading, h5py's ``dataset[()]``, or tifffile's for TIFF. The
same frames are in every flavour. Times are the best of several rounds, in which all are measured
one after the other. The files are in the cache of the operating system.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import event_model
import h5py
import numpy as np
import tifffile

from tomogan_bluesky.config import ScanConfig
from tomogan_bluesky.intake.documents import ScanDocuments
from tomogan_bluesky.intake.frame_store import FrameStore
from tomogan_bluesky.intake.scan import Scan
from tomogan_bluesky.intake.uris import file_uri

Documents = list[tuple[str, Any]]
SLAB_ROWS = 8
FLUSH = 10  # frames that a stream_datum tells of: half a second at 20 frames a second


@dataclass
class Flavour:
    """One way to record the scan: its documents, and how to read its pixels without us."""

    documents: Documents
    plain: Callable[[], np.ndarray]
    method: str = "h5py"
    doc_seconds: list[float] = field(default_factory=list)
    pixel_seconds: list[float] = field(default_factory=list)
    plain_seconds: list[float] = field(default_factory=list)


def make_frames(n_angles: int, rows: int, columns: int) -> np.ndarray:
    """Frames that do not compress."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 60_000, (n_angles, rows, columns), dtype=np.uint16)


def write_hdf5(path: Path, frames: np.ndarray) -> Path:
    """As a detector writes them: a chunk a frame, not compressed."""
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset(
            "entry/data/data",
            data=frames,
            chunks=(1, *frames.shape[1:]),
            maxshape=(None, *frames.shape[1:]),
        )
    return path


def read_hdf5(path: Path) -> np.ndarray:
    """Plain h5py."""
    with h5py.File(path, "r") as file:
        return file["entry/data/data"][()]


def scan(
    frames: np.ndarray, stream: Callable[..., Iterator[tuple[str, Any]]], external: bool
) -> Documents:
    """The documents of a run with one stream of projections, which `stream` makes."""
    n_angles, rows, columns = frames.shape
    run = event_model.compose_run(metadata={"num_projections": n_angles})
    image = {"source": "b", "dtype": "array", "dtype_numpy": "<u2", "shape": [rows, columns]}
    if external:
        image["external"] = "STREAM:"
    angle = {"source": "b", "dtype": "number", "dtype_numpy": "<f8", "shape": [], "units": "deg"}
    descriptor = run.compose_descriptor(
        name="primary", data_keys={"camera": image, "rotation": angle}
    )
    return [
        ("start", run.start_doc),
        ("descriptor", descriptor.descriptor_doc),
        *stream(run, descriptor, np.linspace(0, 180, n_angles).tolist()),
        ("stop", run.compose_stop()),
    ]


def page_of_angles(descriptor: Any, angles: list[float], **more: list) -> tuple[str, Any]:
    """One event page for all points."""
    data = {"rotation": angles, **more}
    times = [1e9 + i for i in range(len(angles))]
    return "event_page", descriptor.compose_event_page(
        data=data,
        timestamps=dict.fromkeys(data, times),
        time=times,
        validate=False,
        filled={},
        seq_num=list(range(1, len(angles) + 1)),
    )


def in_events(frames: np.ndarray, paged: bool) -> Documents:
    """Frames inside events, or in pages of them."""

    def stream(run: Any, descriptor: Any, angles: list[float]) -> Iterator[tuple[str, Any]]:
        events = [
            descriptor.compose_event(
                data={"camera": frame, "rotation": angle},
                timestamps={"camera": 1e9 + i, "rotation": 1e9 + i},
                time=1e9 + i,
                validate=False,
            )
            for i, (frame, angle) in enumerate(zip(frames, angles, strict=True))
        ]
        if not paged:
            return (("event", event) for event in events)
        return (
            ("event_page", event_model.pack_event_page(*events[i : i + 50]))
            for i in range(0, len(events), 50)
        )

    return scan(frames, stream, external=False)


def area_detector(frames: np.ndarray, path: Path) -> Documents:
    """A resource, and a datum and an event for each frame."""

    def stream(run: Any, descriptor: Any, angles: list[float]) -> Iterator[tuple[str, Any]]:
        resource = run.compose_resource(
            spec="AD_HDF5",
            root=str(path.parent),
            resource_path=path.name,
            resource_kwargs={"frame_per_point": 1},
        )
        yield "resource", resource.resource_doc
        for i, angle in enumerate(angles):
            datum = resource.compose_datum(datum_kwargs={"point_number": i})
            yield "datum", datum
            data = {"camera": datum["datum_id"], "rotation": angle}
            yield (
                "event",
                descriptor.compose_event(
                    data=data,
                    timestamps=dict.fromkeys(data, 1e9 + i),
                    time=1e9 + i,
                    filled={"camera": False},
                    validate=False,
                ),
            )

    return scan(frames, stream, external=True)


def fly_scan(frames: np.ndarray, uri: str, mimetype: str, parameters: dict) -> Documents:
    """A stream_resource, and a stream_datum for each half second."""

    def stream(run: Any, descriptor: Any, angles: list[float]) -> Iterator[tuple[str, Any]]:
        resource = run.compose_stream_resource(
            mimetype=mimetype, uri=uri, data_key="camera", parameters=parameters
        )
        yield "stream_resource", resource.stream_resource_doc
        for first in range(0, len(angles), FLUSH):
            last = min(first + FLUSH, len(angles))
            yield (
                "stream_datum",
                resource.compose_stream_datum(
                    indices={"start": first, "stop": last},
                    seq_nums={"start": first + 1, "stop": last + 1},
                    descriptor=descriptor.descriptor_doc,
                ),
            )
        yield page_of_angles(descriptor, angles)

    return scan(frames, stream, external=True)


def flavours(folder: Path, frames: np.ndarray) -> dict[str, Flavour]:
    """The same frames in each way."""
    hdf5 = write_hdf5(folder / "frames.h5", frames)
    tiffs = [folder / f"frame_{i:05d}.tif" for i in range(len(frames))]
    for path, frame in zip(tiffs, frames, strict=True):
        tifffile.imwrite(path, frame)

    def plain() -> np.ndarray:
        return read_hdf5(hdf5)

    hdf5_fly = fly_scan(
        frames, file_uri(hdf5), "application/x-hdf5", {"dataset": "entry/data/data"}
    )
    tiff_fly = fly_scan(
        frames,
        f"{file_uri(folder)}/",
        "multipart/related;type=image/tiff",
        {"template": "frame_{:05d}.tif"},
    )
    return {
        "fly scan, HDF5": Flavour(hdf5_fly, plain),
        "area detector, HDF5": Flavour(area_detector(frames, hdf5), plain),
        "events": Flavour(in_events(frames, False), plain),
        "event pages": Flavour(in_events(frames, True), plain),
        "fly scan, TIFF": Flavour(
            tiff_fly, lambda: np.stack([tifffile.imread(path) for path in tiffs]), "tifffile"
        ),
    }


def take_in(documents: Documents) -> tuple[ScanDocuments, Scan]:
    """From documents to a scan."""
    config = ScanConfig(flat="none")
    store = FrameStore(config)
    reader = ScanDocuments(config, store.add, store.expect_shape)
    for name, doc in documents:
        reader(name, doc)
    return reader, store.scan(reader.angles, reader.declared_projections)


def measure(flavour: Flavour, frames: np.ndarray) -> None:
    """One round."""
    start = time.perf_counter()
    reader, taken = take_in(flavour.documents)
    middle = time.perf_counter()
    cuts = [(row, row + SLAB_ROWS) for row in range(0, frames.shape[1], SLAB_ROWS)]
    n_values = sum(slab.size for slab in taken.slabs(cuts))
    flavour.pixel_seconds.append(time.perf_counter() - middle)
    flavour.doc_seconds.append(middle - start)
    if n_values != frames.size or taken.account.used != len(frames):
        raise SystemExit(f"not all was taken in: {taken.account}")
    reader.close()
    start = time.perf_counter()
    flavour.plain()
    flavour.plain_seconds.append(time.perf_counter() - start)


def figures(flavour: Flavour, frames: np.ndarray) -> Iterator[tuple[str, str, float, str]]:
    """Method, metric, value and unit of each figure."""
    all_seconds = np.add(flavour.doc_seconds, flavour.pixel_seconds)
    share = min(flavour.plain_seconds) / all_seconds.min()
    yield "intake", "documents", len(flavour.documents) / min(flavour.doc_seconds), "documents/s"
    yield "intake", "frames", len(frames) / min(flavour.doc_seconds), "frames/s"
    yield "intake", "pixels", frames.nbytes / 1e6 / min(flavour.pixel_seconds), "MB/s"
    yield flavour.method, "pixels", frames.nbytes / 1e6 / min(flavour.plain_seconds), "MB/s"
    yield "intake", "share", 100 * float(share), f"% of {flavour.method}"


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--json", action="store_true", help="one object a line")
    arguments = parser.parse_args()
    shape, rounds = ((40, 16, 64), 1) if arguments.quick else ((720, 256, 512), 12)
    frames = make_frames(*shape)
    case = "{} frames of {} x {}, uint16".format(*shape)
    with tempfile.TemporaryDirectory() as folder:
        found = flavours(Path(folder), frames)
        for _ in range(rounds):
            for flavour in found.values():
                measure(flavour, frames)
    if not arguments.json:
        print(case)
    for name, flavour in found.items():
        for method, metric, value, unit in figures(flavour, frames):
            if arguments.json:
                row = {"benchmark": "intake", "case": f"{name}, {case}", "method": method}
                print(json.dumps({**row, "metric": metric, "value": value, "unit": unit}))
            else:
                print(f"{name:<22}{method:<10}{metric:<12}{value:>12.1f} {unit}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
