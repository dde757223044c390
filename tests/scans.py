"""Small scans as documents, with the faults that a test asks for."""

from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

import event_model
import numpy as np

from tomogan_bluesky import ReconstructionConfig, ScanConfig, TomoGANCallback

ROWS, COLUMNS, ANGLES = 3, 32, 37
DARK, FLAT = 100, 10_100


def disc_frames(n_angles: int = ANGLES, centre: float = (COLUMNS - 1) / 2) -> np.ndarray:
    """Projections of a disc off the axis, uint16 (angle, row, column), from 0° to 180°."""
    theta = np.linspace(0, np.pi, n_angles)[:, None, None]
    column = np.arange(COLUMNS) - centre - 4.0 * np.cos(theta)
    radius = np.array([6.0, 7.0, 8.0])[:ROWS, None]
    thickness = 2 * np.sqrt(np.maximum(radius**2 - column**2, 0))
    return np.rint(DARK + (FLAT - DARK) * np.exp(-0.05 * thickness)).astype(np.uint16)


def scan_documents(
    *,
    darks: int = 2,
    flats: int = 2,
    frames: Iterable[np.ndarray] | None = None,
    angles_deg: Iterable[float] | None = None,
    units: str | None = "deg",
    angle_key: str = "rotation",
    seq_nums: Iterable[int] | None = None,
    exit_status: str = "success",
    num_events: int | None = None,
    md: dict | None = None,
    edit: Callable[[str, dict], dict] | None = None,
    extra_keys: dict | None = None,
) -> list[tuple[str, dict]]:
    """The documents of a step scan with the images inside the events."""
    frames = list(disc_frames() if frames is None else frames)
    angles = list(np.linspace(0, 180, len(frames)) if angles_deg is None else angles_deg)
    run = event_model.compose_run(metadata={"plan_name": "tomo_scan", "scan_id": 7, **(md or {})})
    docs: list[tuple[str, dict]] = [("start", run.start_doc)]
    image_key = {
        "source": "test",
        "dtype": "array",
        "shape": [ROWS, COLUMNS],
        "dtype_numpy": "<u2",
    }
    clock = count(1_000_000_000.0)

    def stream(name: str, images: list, angles: list | None) -> None:
        if not images:
            return
        keys = {"camera": image_key, **(extra_keys or {})}
        hints = {}
        if angles is not None:
            key = {"source": "test", "dtype": "number", "shape": []}
            keys[angle_key] = key | ({"units": units} if units else {})
            hints = {"rotation": {"fields": [angle_key]}}
        objects = {key: [key] for key in keys}
        descriptor = run.compose_descriptor(
            name=name, data_keys=keys, object_keys=objects, hints=hints
        )
        docs.append(("descriptor", descriptor.descriptor_doc))
        numbers = list(seq_nums) if seq_nums and name == "primary" else range(1, len(images) + 1)
        for i, (seq_num, image) in enumerate(zip(numbers, images, strict=True)):
            data = {"camera": image} | dict.fromkeys(extra_keys or {}, image)
            if angles is not None:
                data[angle_key] = angles[i]
            now = next(clock)
            event = descriptor.compose_event(
                data=data,
                timestamps=dict.fromkeys(data, now),
                seq_num=seq_num,
                time=now,
                validate=False,
            )
            docs.append(("event", event))

    shape = (ROWS, COLUMNS)
    stream("dark", [np.full(shape, DARK, np.uint16)] * darks, None)
    stream("flat", [np.full(shape, FLAT, np.uint16)] * flats, None)
    stream("primary", frames, angles)
    stop = run.compose_stop(exit_status=exit_status)
    stop["num_events"] = {
        "dark": darks,
        "flat": flats,
        "primary": len(frames) if num_events is None else num_events,
    }
    docs.append(("stop", stop))
    if edit is not None:
        docs = [(name, edit(name, doc)) for name, doc in docs]
    return docs


def slice_events(docs: Iterable[tuple[str, dict]]) -> list[dict]:
    """The events of a derived run that hold its slices: a slow scan has previews beside them."""
    return [doc for _, doc in docs if "detector_row" in doc.get("data", ())]


def reconstructed(*runs: Iterable[tuple[str, dict]], **scan: Any) -> tuple[np.ndarray, dict]:
    """Slices of the last of some runs, under settings of `ScanConfig`, and the derived start."""
    derived = []
    with TomoGANCallback(
        lambda *item: derived.append(item),
        None,
        scan=ScanConfig(**scan),
        reconstruction=ReconstructionConfig(rotation_centre=(COLUMNS - 1) / 2),
        worker="thread",
    ) as callback:
        for docs in runs:
            for name, doc in docs:
                callback(name, doc)
        (report,) = callback.wait(60)
    assert (report.exit_status, report.frames.used) == ("success", ANGLES), report.reason
    slices = [doc["data"]["reconstruction"] for doc in slice_events(derived)]
    return np.stack(slices), derived[0][1]


def as_pages(docs: list[tuple[str, dict]], sizes: Iterable[int]) -> list[tuple[str, dict]]:
    """The same documents with runs of events packed into pages of the given sizes, in turn."""
    out: list[tuple[str, dict]] = []
    held: list[dict] = []
    sizes = iter(sizes)
    size = next(sizes)

    def flush() -> None:
        nonlocal size
        if held:
            out.append(("event_page", event_model.pack_event_page(*held)))
            held.clear()
            size = next(sizes, size)

    for name, doc in docs:
        if name == "event" and (not held or held[-1]["descriptor"] == doc["descriptor"]):
            held.append(doc)
            if len(held) >= size:
                flush()
            continue
        flush()
        if name == "event":
            held.append(doc)
        else:
            out.append((name, doc))
    flush()
    return out
