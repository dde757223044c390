"""However documents are split, merged and interleaved, and whatever was taken again: the same scan.

What a beamline takes is a list of points; after a pause some are taken again. From it the documents
of each flavour are made, cut into pages and ranges, and shuffled, but two documents of one seq_num
never change places. What comes out of the intake must be the last take of each point, bit for bit.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import event_model
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tomogan_bluesky.config import ScanConfig
from tomogan_bluesky.intake.documents import ScanDocuments
from tomogan_bluesky.intake.frame_store import FrameStore
from tomogan_bluesky.intake.uris import file_uri

SHAPE = (2, 3)
POINTS = 6


@dataclass
class Item:
    """A document, and the points that it speaks of, by which it may not be overtaken."""

    name: str
    doc: dict
    points: frozenset = frozenset()
    after: tuple = ()
    """Uids of documents that must have come before: routing depends on them."""


@st.composite
def takes(draw):
    """seq_nums in the order in which the points are taken; a rewind goes back to an earlier one."""
    order, point = [], 1
    rewinds = draw(st.integers(0, 2))
    while point <= POINTS:
        order.append(point)
        if rewinds and draw(st.booleans()):
            rewinds -= 1
            point = draw(st.integers(1, point))
        else:
            point += 1
    return order


def pixels(take):
    return np.full(SHAPE, 100 + take, np.uint16)


def angle(take):
    return 10.0 + take


def parts(draw, items, joins):
    """Cut a list into parts of one to four; a part ends where `joins` says that it must."""
    part = []
    for item in items:
        if part and (len(part) >= draw(st.integers(1, 4)) or not joins(part[-1], item)):
            yield part
            part = []
        part.append(item)
    if part:
        yield part


class Recorder:
    """Makes the documents of one run."""

    def __init__(self, draw, order, folder):
        self.draw, self.order, self.folder = draw, order, folder
        self.run = event_model.compose_run(metadata={"num_projections": POINTS})
        self.items = []

    def descriptor(self, image=True, angle=True):
        keys = {}
        if image:
            keys["camera"] = {"dtype": "array", "shape": list(SHAPE), "dtype_numpy": "<u2"}
        if angle:
            keys["rotation"] = {"dtype": "number", "shape": [], "units": "deg"}
        keys = {name: {"source": "t", **key} for name, key in keys.items()}
        found = self.run.compose_descriptor(name="primary", data_keys=keys)
        self.items.append(Item("descriptor", found.descriptor_doc))
        return found

    def events(self, descriptor, data_of):
        """Events, some of them in pages."""
        uid = descriptor.descriptor_doc["uid"]
        events = []
        for take, number in enumerate(self.order):
            data = data_of(take)
            events.append(
                descriptor.compose_event(
                    data=data,
                    timestamps=dict.fromkeys(data, 1e9 + take),
                    seq_num=number,
                    time=1e9 + take,
                    validate=False,
                )
            )
        for part in parts(self.draw, events, lambda a, b: True):
            points = frozenset(("event", event["seq_num"]) for event in part)
            if self.draw(st.booleans()) or len(part) > 1:
                page = event_model.pack_event_page(*part)
                self.items.append(Item("event_page", page, points, (uid,)))
            else:
                self.items.append(Item("event", part[0], points, (uid,)))

    def file_of(self, values):
        path = Path(self.folder) / f"{len(list(Path(self.folder).iterdir()))}.h5"
        with h5py.File(path, "w") as file:
            file["entry/data/data"] = np.stack(values)
        return path

    def ranges(self, descriptor, key, values, n_files):
        """The file of a data key, or several one after another, and documents that say how far."""
        uid = descriptor.descriptor_doc["uid"]
        cuts = sorted(self.draw(st.integers(0, len(values))) for _ in range(n_files - 1))
        for first, last in zip([0, *cuts], [*cuts, len(values)], strict=True):
            if first == last:
                continue
            resource = self.run.compose_stream_resource(
                mimetype="application/x-hdf5",
                uri=file_uri(self.file_of(values[first:last])),
                data_key=key,
                parameters={"dataset": "entry/data/data"},
            )
            earlier = [item for item in self.items if item.name == "stream_resource"]
            after = (earlier[-1].doc["uid"],) if earlier else ()
            self.items.append(
                Item("stream_resource", resource.stream_resource_doc, frozenset(), after)
            )
            points = list(enumerate(self.order[first:last]))
            for part in parts(self.draw, points, lambda a, b: b[1] == a[1] + 1):
                numbers = [number for _, number in part]
                doc = resource.compose_stream_datum(
                    indices={"start": part[0][0], "stop": part[-1][0] + 1},
                    seq_nums={"start": numbers[0], "stop": numbers[-1] + 1},
                    descriptor=descriptor.descriptor_doc,
                )
                self.items.append(
                    Item("stream_datum", doc, frozenset((key, n) for n in numbers), (uid,))
                )


def in_events(recorder):
    recorder.events(
        recorder.descriptor(), lambda take: {"camera": pixels(take), "rotation": angle(take)}
    )


def area_detector(recorder):
    """Each datum may come after the event that it is for."""
    descriptor = recorder.descriptor()
    path = recorder.file_of([pixels(take) for take in range(len(recorder.order))])
    resource = recorder.run.compose_resource(
        spec="AD_HDF5",
        root=str(path.parent),
        resource_path=path.name,
        resource_kwargs={"frame_per_point": 1},
    )
    recorder.items.append(Item("resource", resource.resource_doc))
    datums = [
        resource.compose_datum(datum_kwargs={"point_number": take})
        for take in range(len(recorder.order))
    ]
    for part in parts(recorder.draw, datums, lambda a, b: True):
        page = event_model.pack_datum_page(*part)
        recorder.items.append(
            Item("datum_page", page, frozenset(), (resource.resource_doc["uid"],))
        )
    recorder.events(
        descriptor, lambda take: {"camera": datums[take]["datum_id"], "rotation": angle(take)}
    )


def step_scan(recorder):
    """Frames in files, angles in events."""
    descriptor = recorder.descriptor()
    frames = [pixels(take) for take in range(len(recorder.order))]
    recorder.ranges(descriptor, "camera", frames, n_files=2)
    recorder.events(descriptor, lambda take: {"rotation": angle(take)})


def fly_scan(recorder):
    """No events: frames in files, and angles in others."""
    descriptor = recorder.descriptor()
    takes = range(len(recorder.order))
    recorder.ranges(descriptor, "camera", [pixels(take) for take in takes], n_files=2)
    recorder.ranges(descriptor, "rotation", [np.float64(angle(take)) for take in takes], n_files=2)


def shuffled(draw, items):
    """Any order in which no document overtakes one of its points, nor one that leads to its run."""
    left, out, seen = list(items), [], set()
    while left:
        free = [
            i
            for i, item in enumerate(left)
            if seen.issuperset(item.after)
            and not any(item.points & earlier.points for earlier in left[:i])
        ]
        item = left.pop(free[draw(st.integers(0, len(free) - 1))])
        seen.add(item.doc.get("uid") if isinstance(item.doc.get("uid"), str) else None)
        out.append((item.name, item.doc))
    return out


def taken_in(documents, run):
    store = FrameStore(ScanConfig(flat="none", file_wait_s=0))
    reader = ScanDocuments(store._config, store.add, store.expect_shape)
    for name, doc in [("start", run.start_doc), *documents, ("stop", run.compose_stop())]:
        reader(name, doc)
    scan = store.scan(reader.angles, reader.declared_projections)
    volume = np.concatenate(list(scan.slabs([(0, 1), (1, 2)])))
    reader.close()
    return scan, volume


@pytest.mark.parametrize("flavour", [in_events, area_detector, step_scan, fly_scan])
@settings(max_examples=30, deadline=None)
@given(data=st.data(), order=takes())
def test_no_bit_depends_on_how_documents_come(flavour, data, order):
    last_take = {number: take for take, number in enumerate(order)}
    wanted = np.stack([pixels(last_take[n]) for n in range(1, POINTS + 1)], axis=1)
    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(data.draw, order, folder)
        flavour(recorder)
        scan, volume = taken_in(shuffled(data.draw, recorder.items), recorder.run)
    np.testing.assert_array_equal(volume, wanted)
    np.testing.assert_array_equal(
        scan.theta, [angle(last_take[n]) * (np.pi / 180) for n in range(1, POINTS + 1)]
    )
    assert scan.account.as_dict() == {
        "expected": len(order),
        "used": POINTS,
        "superseded": len(order) - POINTS,
        "missing": 0,
        "rejected": {},
    }
