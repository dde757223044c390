"""Each flavour of the simulated beamline on a real RunEngine: documents and frames."""

from functools import cache
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


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The documents of a flavour, and what could be read while it ran; each is run once."""

    @cache
    def run(flavour):
        live = Reader()
        return flavours.run(flavour, tmp_path_factory.mktemp(flavour), live), live

    return run


ONE_A_POINT = [name for name in FLAVOURS if name != "area_detector_2"]


@pytest.mark.parametrize("flavour", ONE_A_POINT)
def test_every_flavour_records_the_same_frames_while_it_runs(flavour, recorded, expected):
    documents, live = recorded(flavour)
    frames, angles = dict(live.frames), dict(live.angles)
    if flavour == "hex":
        frames["primary"], angles["primary"] = frames["tomo"], angles["tomo"]
    for stream in expected:
        recorded_frames = np.stack(frames[stream])
        assert recorded_frames.dtype == np.uint16
        np.testing.assert_array_equal(recorded_frames, expected[stream])
    if flavour == "fxi":
        times, positions = np.transpose(live.monitored)
        angles["primary"] = np.interp(live.times, times, positions)
    if flavour == "async_fly_start_angles":
        angles["primary"] = documents[0][1]["angles_deg"]
    np.testing.assert_array_equal(angles["primary"], ANGLES_DEG)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_documents_are_valid_and_complete(flavour, recorded):
    documents, _ = recorded(flavour)
    for name, doc in documents:
        schema_validators[DocumentNames[name]].validate(doc)
    stops = [doc for name, doc in documents if name == "stop"]
    assert [doc["exit_status"] for doc in stops] == ["success"] * (2 if flavour == "hex" else 1)


def test_two_frames_a_point_are_two_exposures(recorded, expected):
    _, live = recorded("area_detector_2")
    frames = np.stack(live.frames["primary"])
    np.testing.assert_array_equal(frames[::2], expected["primary"])
    assert (frames[1::2] != expected["primary"]).any(axis=(1, 2)).all()
    assert len(live.frames["dark"]) == 2 * DARKS


def names(documents):
    return [name for name, _ in documents]


def test_in_an_async_step_scan_the_datum_comes_before_an_event_without_the_image(recorded):
    documents, _ = recorded("async_step")
    for i, (name, doc) in enumerate(documents):
        if name == "event":
            assert documents[i - 1][0] == "stream_datum"
            assert "camera" not in doc["data"]


def test_a_fly_scan_has_no_events_and_says_how_far_it_is(recorded):
    documents, _ = recorded("async_fly")
    assert not {"event", "event_page"} & set(names(documents))
    # Frames and angles each: more than once, or nobody could follow the scan.
    last_descriptor = max(i for i, name in enumerate(names(documents)) if name == "descriptor")
    assert names(documents)[last_descriptor:].count("stream_datum") > 2


def test_the_area_detector_refers_to_its_file(recorded):
    documents, _ = recorded("area_detector")
    assert names(documents).count("resource") == 3  # a file for each stream
    assert names(documents).count("datum") == names(documents).count("event")
    event = next(doc for name, doc in documents if name == "event")
    assert event["filled"] == {"camera_image": False}


def test_references_of_a_run_of_their_own_are_named(recorded):
    starts = [doc for name, doc in recorded("hex")[0] if name == "start"]
    assert starts[1]["current_dark_flat_scan_uid"] == starts[0]["uid"]
    assert starts[0]["plan_name"] == "dark_flat"


def test_one_event_holds_all_frames(recorded):
    documents, _ = recorded("fxi")
    streams = {doc["uid"]: doc["name"] for name, doc in documents if name == "descriptor"}
    events = [streams[doc["descriptor"]] for name, doc in documents if name == "event"]
    assert [events.count(s) for s in ("dark", "flat", "primary")] == [1, 1, 1]
    assert events.count("rotation_monitor") >= len(ANGLES_DEG)


def test_angles_have_units_but_from_an_encoder_box(recorded):
    units = {
        (flavour, key): keys[key].get("units")
        for flavour in ("events", "async_step", "async_fly", "fxi", "ioc")
        for name, doc in recorded(flavour)[0]
        if name == "descriptor"
        for keys in [doc["data_keys"]]
        for key in {"rotation", "Angle"} & set(keys)
    }
    assert units == {
        ("events", "rotation"): "deg",
        ("async_step", "rotation"): "deg",
        ("async_fly", "Angle"): None,
        ("fxi", "rotation"): "deg",
        ("ioc", "rotation"): "deg",
    }
