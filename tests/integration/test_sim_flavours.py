"""Each flavour of the simulated beamline on a real RunEngine: documents and frames."""

from pathlib import Path
from urllib.parse import urlsplit

import flavours
import h5py
import numpy as np
import pytest
from event_model import DocumentNames, schema_validators
from flavours import ANGLES_DEG, DARKS, FLATS, FLAVOURS

from tomogan_bluesky.sim.area_detector import EPICS_EPOCH, NANOSECONDS, SECONDS


class Reader:
    """Reads frames and angles as the documents come, the files with h5py alone."""

    def __init__(self):
        self.frames, self.angles, self.monitored, self.times = {}, {}, [], []
        self._docs = {}

    def __call__(self, name, doc):
        if name in ("descriptor", "resource", "stream_resource"):
            self._docs[doc["uid"]] = doc
        elif name == "datum":
            self._docs[doc["datum_id"]] = doc
        elif name == "stream_datum":
            resource = self._docs[doc["stream_resource"]]
            path = urlsplit(resource["uri"]).path
            entries = self._read(path, resource["parameters"]["dataset"], **doc["indices"])
            where = self.angles if resource["data_key"] == "Angle" else self.frames
            where.setdefault(self._stream(doc), []).extend(entries)
        elif name == "event":
            self._event(self._stream(doc), doc)

    def _stream(self, doc):
        return self._docs[doc["descriptor"]]["name"]

    def _event(self, stream, doc):
        data = doc["data"]
        if stream == "rotation_monitor":
            self.monitored.append((doc["timestamps"]["rotation"], data["rotation"]))
            return
        if "rotation" in data:
            self.angles.setdefault(stream, []).append(data["rotation"])
        if "camera" in data:
            self.frames.setdefault(stream, []).append(data["camera"])
        if "camera_image" in data:
            datum = self._docs[data["camera_image"]]
            resource = self._docs[datum["resource"]]
            n = resource["resource_kwargs"]["frame_per_point"]
            point = datum["datum_kwargs"]["point_number"]
            path = Path(resource["root"]) / resource["resource_path"]
            indices = point * n, (point + 1) * n
            found = self._read(path, "/entry/data/data", *indices)
            self.frames.setdefault(stream, []).extend(found)
            if stream == "primary":
                seconds = self._read(path, SECONDS, *indices).astype(float) + EPICS_EPOCH
                self.times.extend(seconds + 1e-9 * self._read(path, NANOSECONDS, *indices))

    @staticmethod
    def _read(path, dataset, start, stop):
        with h5py.File(path, "r", libver="latest", swmr=True) as file:
            entries = file[dataset][start:stop]
        assert len(entries) == stop - start, "announced before it could be read"
        return entries


@pytest.fixture(scope="module")
def expected():
    """What every flavour has to have recorded: the pure function of seed, kind and index."""
    exposure = flavours.beamline().shots.exposure
    return {
        "dark": np.stack([exposure.frame("dark", i) for i in range(DARKS)]),
        "flat": np.stack([exposure.frame("flat", i) for i in range(FLATS)]),
        "primary": np.stack([exposure.frame("projection", i) for i in range(len(ANGLES_DEG))]),
    }


ONE_A_POINT = [name for name in FLAVOURS if name != "area_detector_2"]


@pytest.mark.parametrize("flavour", ONE_A_POINT)
def test_every_flavour_records_the_same_frames_while_it_runs(flavour, tmp_path, expected):
    live = Reader()
    documents = flavours.run(flavour, tmp_path, live)
    if flavour == "hex":
        live.frames["primary"], live.angles["primary"] = live.frames["tomo"], live.angles["tomo"]
    for stream, frames in expected.items():
        np.testing.assert_array_equal(np.stack(live.frames[stream]), frames)
    if flavour == "fxi":
        times, angles = np.transpose(live.monitored)
        live.angles["primary"] = np.interp(live.times, times, angles)
    if flavour == "async_fly_start_angles":
        live.angles["primary"] = documents[0][1]["angles_deg"]
    np.testing.assert_array_equal(live.angles["primary"], ANGLES_DEG)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_documents_are_valid_and_complete(flavour, tmp_path):
    documents = flavours.run(flavour, tmp_path)
    for name, doc in documents:
        schema_validators[DocumentNames[name]].validate(doc)
    stops = [doc for name, doc in documents if name == "stop"]
    assert [doc["exit_status"] for doc in stops] == ["success"] * (2 if flavour == "hex" else 1)


def test_two_frames_a_point_are_two_exposures(tmp_path, expected):
    live = Reader()
    flavours.run("area_detector_2", tmp_path, live)
    frames = np.stack(live.frames["primary"])
    np.testing.assert_array_equal(frames[::2], expected["primary"])
    assert (frames[1::2] != expected["primary"]).any(axis=(1, 2)).all()
    assert len(live.frames["dark"]) == 2 * DARKS


def names(documents):
    return [name for name, _ in documents]


def test_in_an_async_step_scan_the_datum_comes_before_an_event_without_the_image(tmp_path):
    documents = flavours.run("async_step", tmp_path)
    for i, (name, doc) in enumerate(documents):
        if name == "event":
            assert documents[i - 1][0] == "stream_datum"
            assert "camera" not in doc["data"]


def test_a_fly_scan_has_no_events_and_says_how_far_it_is(tmp_path):
    documents = flavours.run("async_fly", tmp_path)
    assert not {"event", "event_page"} & set(names(documents))
    # Frames and angles each: more than once, or nobody could follow the scan.
    last_descriptor = max(i for i, name in enumerate(names(documents)) if name == "descriptor")
    assert names(documents)[last_descriptor:].count("stream_datum") > 2


def test_the_area_detector_refers_to_its_file(tmp_path):
    documents = flavours.run("area_detector", tmp_path)
    assert names(documents).count("resource") == 1
    assert names(documents).count("datum") == names(documents).count("event")
    event = next(doc for name, doc in documents if name == "event")
    assert event["filled"] == {"camera_image": False}


def test_references_of_a_run_of_their_own_are_named(tmp_path):
    starts = [doc for name, doc in flavours.run("hex", tmp_path) if name == "start"]
    assert starts[1]["current_dark_flat_scan_uid"] == starts[0]["uid"]
    assert starts[0]["plan_name"] == "dark_flat"


def test_one_event_holds_all_frames(tmp_path):
    documents = flavours.run("fxi", tmp_path)
    streams = {doc["uid"]: doc["name"] for name, doc in documents if name == "descriptor"}
    events = [streams[doc["descriptor"]] for name, doc in documents if name == "event"]
    assert [events.count(s) for s in ("dark", "flat", "primary")] == [1, 1, 1]
    assert events.count("rotation_monitor") >= len(ANGLES_DEG)
