"""The same frames, with their darks, flats and angles wherever a beamline may keep them."""

import copy

import numpy as np
import pytest
from scans import ANGLES, reconstructed, scan_documents

ANGLES_DEG = np.linspace(0, 180, ANGLES)


def streams(docs):
    """Start, the documents of each stream, stop."""
    names = {d["uid"]: d["name"] for n, d in docs if n == "descriptor"}
    parts = {name: [] for name in names.values()}
    for item in docs[1:-1]:
        parts[names[item[1].get("descriptor", item[1]["uid"])]].append(item)
    return docs[0], parts, docs[-1]


def arranged(order):
    start, parts, stop = streams(scan_documents())
    half = len(parts["primary"]) // 2
    parts |= {"first": parts["primary"][:half], "second": parts["primary"][half:]}
    return [start, *(item for name in order for item in parts[name]), stop]


def renamed(name, doc):
    aliases = {"dark": "darks", "flat": "whites", "primary": "tomo"}
    if name == "descriptor":
        return {**doc, "name": aliases[doc["name"]]}
    if name == "stop":
        return {**doc, "num_events": {aliases[k]: n for k, n in doc["num_events"].items()}}
    return doc


def without_angle(name, doc):
    doc = copy.deepcopy(doc)
    for part in ("data_keys", "object_keys", "data", "timestamps"):
        if name in ("descriptor", "event"):
            doc.get(part, {}).pop("rotation", None)
    return doc


def of_another_run():
    references = scan_documents()
    start, parts, stop = streams(references)
    references = [start, *parts["dark"], *parts["flat"], stop]
    md = {"dark_flat_uid": start[1]["uid"]}
    return references, scan_documents(darks=0, flats=0, md=md)


ARRANGEMENTS = {
    "references after": ((arranged(["primary", "dark", "flat"]),), {}),
    "references before and after": ((arranged(["flat", "primary", "dark"]),), {}),
    "references between": ((arranged(["dark", "first", "flat", "second"]),), {}),
    "streams by other names": ((scan_documents(edit=renamed),), {}),
    "references of another run": (of_another_run(), {"references_run_key": "dark_flat_uid"}),
    "angles in radians": (
        (scan_documents(angles_deg=np.deg2rad(ANGLES_DEG), units="rad"),),
        {},
    ),
    "angles listed in the start document": (
        (scan_documents(edit=without_angle, md={"angles": ANGLES_DEG.tolist()}),),
        {"start_angles": ("angles",), "angle_units": "deg"},
    ),
    "ends of the angles in the start document": (
        (scan_documents(edit=without_angle, md={"first": 0.0, "last": 180.0}),),
        {"start_angles": ("first", "last"), "angle_units": "deg"},
    ),
}


@pytest.fixture(scope="module")
def usual():
    """From darks, flats and projections in this order, and angles in degrees in the events."""
    return reconstructed(scan_documents())[0]


@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_the_volume_is_the_same_to_the_bit(name, usual):
    runs, scan = ARRANGEMENTS[name]
    np.testing.assert_array_equal(reconstructed(*runs, **scan)[0], usual)
