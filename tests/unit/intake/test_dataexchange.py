"""Data Exchange files as documents."""

import os

import event_model
import h5py
import numpy as np
import pytest

from tomogan_bluesky.config import ScanConfig
from tomogan_bluesky.errors import IntakeError
from tomogan_bluesky.intake.documents import ScanDocuments
from tomogan_bluesky.intake.files import read_scan
from tomogan_bluesky.intake.uris import file_uri, path_of


@pytest.fixture
def make(tmp_path):
    """Write a scan with the datasets that a test wants otherwise; None leaves one out."""

    def make(units="degrees", name="scan.h5", **others):
        rng = np.random.default_rng(0)
        datasets = {
            "exchange/data": rng.integers(0, 4096, (7, 2, 5), dtype=np.uint16),
            "exchange/data_white": rng.integers(0, 4096, (3, 2, 5), dtype=np.uint16),
            "exchange/data_dark": rng.integers(0, 4096, (2, 2, 5), dtype=np.uint16),
            "exchange/theta": np.linspace(0, 180, 7),
            **{key.replace("__", "/"): value for key, value in others.items()},
        }
        with h5py.File(tmp_path / name, "w") as file:
            for key, value in datasets.items():
                if value is not None:
                    file[key] = value
            if units and "exchange/theta" in file:
                file["exchange/theta"].attrs["units"] = units
        return tmp_path / name

    return make


def documents(path):
    found = list(read_scan(path).documents(scan_id=4))
    for name, doc in found:
        event_model.schema_validators[event_model.DocumentNames[name]].validate(doc)
    return found


def test_a_scan_becomes_three_streams(make):
    path = make(measurement__sample__name="walnut", exchange__title=b"a title ")
    docs = documents(path)
    start = docs[0][1]
    assert (start["scan_id"], start["num_projections"]) == (4, 7)
    assert (start["num_darks"], start["num_flats"]) == (2, 3)
    assert start["sample"] == {"name": "walnut"}
    assert start["title"] == "a title"
    assert start["source_file"] == str(path)
    streams = {doc["uid"]: doc["name"] for name, doc in docs if name == "descriptor"}
    assert list(streams.values()) == ["dark", "flat", "primary"]
    ranges = {
        streams[doc["descriptor"]]: (doc["indices"], doc["seq_nums"])
        for name, doc in docs
        if name == "stream_datum"
    }
    for stream, count in {"dark": 2, "flat": 3, "primary": 7}.items():
        assert ranges[stream] == ({"start": 0, "stop": count}, {"start": 1, "stop": count + 1})
    stop = docs[-1][1]
    assert stop["num_events"] == {"dark": 2, "flat": 3, "primary": 7}


def test_the_documents_lead_to_the_images(make):
    path = make()
    docs = documents(path)
    keys = {doc["uid"]: doc["data_keys"]["image"] for name, doc in docs if name == "descriptor"}
    where = {doc["uid"]: doc for name, doc in docs if name == "stream_resource"}
    with h5py.File(path) as file:
        for name, doc in docs:
            if name == "stream_datum":
                resource = where[doc["stream_resource"]]
                assert path_of(resource["uri"]) == path
                dataset = file[resource["parameters"]["dataset"]]
                key = keys[doc["descriptor"]]
                assert dataset.shape == (doc["indices"]["stop"], *key["shape"])
                assert dataset.dtype == np.dtype(key["dtype_numpy"]) == np.uint16


@pytest.mark.parametrize(
    ("units", "stored"),
    [("degrees", "deg"), ("deg", "deg"), (None, "deg"), ("radian", "rad"), (b"rad", "rad")],
)
def test_angles_keep_their_units(make, units, stored):
    docs = documents(make(units=units))
    page = next(doc for name, doc in docs if name == "event_page")
    np.testing.assert_array_equal(page["data"]["rotation"], np.linspace(0, 180, 7))
    assert page["seq_num"] == [1, 2, 3, 4, 5, 6, 7]
    primary = [doc for name, doc in docs if name == "descriptor"][-1]
    assert primary["data_keys"]["rotation"]["units"] == stored


def test_the_intake_knows_the_run_for_tomography(make):
    """Of a run as replay hands it over: without the word `external`."""
    scan = ScanDocuments(ScanConfig(), lambda frame: None, lambda kind, shape: None)
    for name, doc in documents(make()):
        if name == "descriptor":
            keys = {k: {**v} for k, v in doc["data_keys"].items()}
            keys["image"].pop("external")
            doc = {**doc, "data_keys": keys}
        if name in ("start", "descriptor", "stop"):
            scan(name, doc)
    assert scan.is_tomography
    assert scan.declared_projections == 7


@pytest.mark.parametrize(
    ("where", "value", "units", "micrometres"),
    [
        ("measurement__instrument__detector__actual_pixel_size_x", 1.3e-6, None, 1.3),
        ("measurement__instrument__detector__actual_pixel_size_x", [0.002], "mm", 2.0),
        ("measurement__instrument__detection_system__objective__resolution", 0.65, "microns", 0.65),
        ("measurement__instrument__detection_system__objective__resolution", 0.65, "bananas", None),
        ("measurement__instrument__detector__actual_pixel_size_x", 0.0, "m", None),
    ],
)
def test_the_size_of_a_pixel_is_kept_where_it_is_recorded(make, where, value, units, micrometres):
    path = make(**{where: value})
    if units:
        with h5py.File(path, "r+") as file:
            file[where.replace("__", "/")].attrs["units"] = units
    found = documents(path)[0][1].get("pixel_size_um")
    assert found == (micrometres if micrometres is None else pytest.approx(micrometres))


def test_the_time_of_the_scan_is_kept_where_it_is_recorded(make):
    recorded = make(process__acquisition__start_date="2016-05-18T10:23:00-0500")
    assert read_scan(recorded).time == 1463584980.0
    unknown = make(name="unknown.h5", process__acquisition__start_date="yesterday")
    os.utime(unknown, (1e9, 1e9))
    assert read_scan(unknown).time == 1e9


def test_the_same_file_is_the_same_run_and_a_changed_or_moved_one_is_not(make, tmp_path):
    path = make()
    uid = read_scan(path).uid
    assert read_scan(path).uid == uid
    (tmp_path / "link.h5").symlink_to(path)
    assert read_scan(tmp_path / "link.h5").uid == uid
    moved = path.rename(tmp_path / "moved.h5")
    assert read_scan(moved).uid != uid
    moved.rename(path)
    assert read_scan(path).uid == uid
    os.utime(path, (1e9, 1e9))
    touched = read_scan(path).uid
    assert touched != uid
    with h5py.File(path, "r+") as file:
        file["notes"] = np.zeros(1000)
    os.utime(path, (1e9, 1e9))
    assert read_scan(path).uid not in (uid, touched)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"exchange__data_white": None}, r"none of the name data_white; there is /exchange/data"),
        ({"exchange__data": None, "exchange__theta": None}, "of the name data, theta; there is"),
        ({"exchange__data": np.zeros((2, 5))}, r"\(frame, row, column\) in /exchange/data, got"),
        ({"exchange__data_dark": np.zeros((0, 2, 5))}, "in /exchange/data_dark, got"),
        ({"exchange__data": np.zeros((7, 2, 5), "S3")}, "expected numbers of shape"),
        (
            {"exchange__data_dark": np.zeros((2, 2, 6))},
            r"of one size, got .*\(2, 6\) in /exchange/data_dark",
        ),
        ({"exchange__theta": np.zeros(6)}, "angle for each of 7 projections, got 6"),
        ({"exchange__theta": np.full(7, np.nan)}, "angle for each of 7 projections, got 0"),
        ({"units": "turns"}, "degrees or radians as the units of /exchange/theta, got 'turns'"),
    ],
)
def test_what_is_no_scan_is_refused_with_what_there_is(make, others, message):
    with pytest.raises(IntakeError, match=message):
        read_scan(make(**others))


def test_paths_and_uris_go_both_ways(tmp_path):
    path = tmp_path / "a folder" / "scan.h5"
    assert path_of(file_uri(path)) == path
    assert path_of("http://localhost/scan.h5") is None
    assert path_of("file://elsewhere/scan.h5") is None
