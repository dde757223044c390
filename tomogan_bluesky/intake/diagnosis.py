"""What is taken for what in a run, why, and what would mend it.

Enter: the documents of a run, and the settings. Leave: findings, for people.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..config import ScanConfig
from ..errors import IntakeError
from .documents import FrameKind, ScanDocuments
from .frame_store import FrameStore
from .keys import angle_keys, image_keys
from .references import References

_KINDS: tuple[FrameKind, ...] = ("projection", "dark", "flat")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    fine : bool
    what : str
        What was found.
    mend : str
        The line of a profile that would mend it; empty where nothing is wrong or no line helps.
    """

    fine: bool
    what: str
    mend: str = ""


def diagnose(
    documents: Iterable[tuple[str, dict[str, Any]]],
    config: ScanConfig,
    elsewhere: Callable[[Mapping[str, Any], bool], References | None] = lambda start, has_own: None,
) -> list[Finding]:
    """Look at a run as the callback would.

    Parameters
    ----------
    documents : iterable of (name, doc)
        Of one run.
    config : ScanConfig
    elsewhere : callable, optional
        Takes the start document and whether the run has darks and flats; returns those that it
        takes from another run or from files, or None.

    Returns
    -------
    list of Finding
    """
    store = FrameStore(config)
    reader = ScanDocuments(config, store.add, store.expect_shape)
    findings: list[Finding] = []
    descriptors: dict[str, Mapping[str, Any]] = {}
    for name, doc in documents:
        if name == "descriptor":
            descriptors[doc["name"]] = doc
        try:
            reader(name, doc)
        except IntakeError as error:
            findings.append(Finding(False, str(error)))
    streams = [_of_stream(reader, doc, config) for doc in descriptors.values()]
    angles = [_of_angle(doc, config) for n, doc in descriptors.items() if _holds_angles(reader, n)]
    counts = [_of_count(kind, store, descriptors, config) for kind in _KINDS]
    try:
        references = elsewhere(reader.start_doc, store.has_references)
        whole = [_of_scan(reader, store, references)]
    except IntakeError as error:
        whole = [Finding(False, str(error))]
    finally:
        reader.close()
    return [*streams, *(f for f in angles if f is not None), *counts, *findings, *whole]


def _holds_angles(reader: ScanDocuments, stream: str) -> bool:
    return reader.kind_of(stream) == "projection" or stream.endswith("_monitor")


def _of_stream(reader: ScanDocuments, descriptor: Mapping[str, Any], config: ScanConfig) -> Finding:
    name, kind = descriptor["name"], reader.kind_of(descriptor["name"])
    images = image_keys(descriptor, config)
    if kind is None:
        return Finding(True, f"stream {name!r}: not used, its name is none of those configured")
    if len(images) == 1:
        key = descriptor["data_keys"][images[0]]
        where = "in files" if "external" in key else "inside the events"
        return Finding(
            True,
            f"stream {name!r}: {kind}s, data key {images[0]!r} of shape {key['shape']}, {where}",
        )
    known = [
        n
        for n, key in descriptor["data_keys"].items()
        if sum(d > 1 for d in key["shape"] or ()) > 1
    ]
    return Finding(
        False,
        f"stream {name!r}: taken for {kind}s, expected one data key with images, got "
        f"{len(images)}; there are {', '.join(known) or 'none'}",
        f"scan: {{image_key: {known[0]}}}" if known else "",
    )


def _of_angle(descriptor: Mapping[str, Any], config: ScanConfig) -> Finding | None:
    name, keys = descriptor["name"], descriptor["data_keys"]
    found = angle_keys(descriptor, config)
    if len(found) == 1:
        units = config.angle_units or keys[found[0]].get("units")
        if units is None:
            return Finding(
                False,
                f"stream {name!r}: {found[0]!r} is the angle, and has no units",
                "scan: {angle_units: deg}",
            )
        return Finding(True, f"stream {name!r}: {found[0]!r} is the angle, in {units}")
    others = angle_keys(descriptor, config.model_copy(update={"angle_key": None}))
    numbers = [n for n, key in keys.items() if np.prod(key["shape"] or [1]) == 1]
    candidates = others or numbers
    if not candidates or name.endswith("_monitor"):
        return None
    wanted = f"{config.angle_key!r} is not among them" if config.angle_key else "none is in degrees"
    units = keys[candidates[0]].get("units")
    return Finding(
        False,
        f"stream {name!r}: expected one data key to be the rotation angle, got {len(found)}; "
        f"candidates: {', '.join(candidates)} ({wanted})",
        f"scan: {{angle_key: {candidates[0]}" + ("}" if units else ", angle_units: deg}"),
    )


def _of_count(
    kind: FrameKind,
    store: FrameStore,
    descriptors: Mapping[str, Mapping[str, Any]],
    config: ScanConfig,
) -> Finding:
    number = store.count(kind)
    if number:
        return Finding(True, f"{number} {kind} frames")
    used = {*config.projection_streams, *config.dark_streams, *config.flat_streams}
    spare = [
        name for name, doc in descriptors.items() if name not in used and image_keys(doc, config)
    ]
    elsewhere = config.references_run_key or config.reference_files or config.flat == "none"
    if kind != "projection" and elsewhere:
        return Finding(True, f"no {kind} frames here, as configured")
    return Finding(
        False,
        f"no {kind} frames" + (f"; other streams with images: {', '.join(spare)}" if spare else ""),
        f"scan: {{{kind}_streams: [{spare[0]}]}}" if spare else "",
    )


def _of_scan(reader: ScanDocuments, store: FrameStore, references: References | None) -> Finding:
    scan = store.scan(reader.angles, reader.declared_projections, references)
    degrees = np.rad2deg(scan.theta)
    n_angles, rows, columns = scan.shape
    account = ", ".join(
        f"{name} {value}" for name, value in scan.account.as_dict().items() if value
    )
    return Finding(
        True,
        f"{n_angles} projections of {rows} x {columns} pixels from {degrees.min():g} to "
        f"{degrees.max():g} degrees; frames: {account}",
    )
