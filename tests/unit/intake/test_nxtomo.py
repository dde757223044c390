"""NXtomo files as documents."""

import logging

import event_model
import h5py
import numpy as np
import pytest
from scan_files import IN_A_ROW, SCATTERED, Frames, write_nxtomo

from tomogan_bluesky.errors import IntakeError
from tomogan_bluesky.intake.files import read_scan
from tomogan_bluesky.intake.uris import path_of

DATA = "entry1/tomo_entry/instrument/detector/data"
KEYS = "entry1/tomo_entry/instrument/detector/image_key"
ANGLES = "entry1/tomo_entry/sample/rotation_angle"


@pytest.fixture
def frames():
    return Frames()


def documents(path):
    found = list(read_scan(path).documents(scan_id=4))
    for name, doc in found:
        event_model.schema_validators[event_model.DocumentNames[name]].validate(doc)
    return found


def images_by_stream(docs):
    """The frames that the documents point at, in the order of their numbers."""
    names = {doc["uid"]: doc["name"] for name, doc in docs if name == "descriptor"}
    resources = {doc["uid"]: doc for name, doc in docs if name == "stream_resource"}
    images = {}
    for name, doc in docs:
        if name == "stream_datum":
            resource = resources[doc["stream_resource"]]
            taken = images.setdefault(names[doc["descriptor"]], [])
            assert doc["seq_nums"]["start"] == len(taken) + 1
            with h5py.File(path_of(resource["uri"])) as file:
                dataset = file[resource["parameters"]["dataset"]]
                taken += list(dataset[doc["indices"]["start"] : doc["indices"]["stop"]])
            assert doc["seq_nums"]["stop"] == len(taken) + 1
    return images


@pytest.mark.parametrize("order", [SCATTERED, IN_A_ROW])
def test_each_stream_has_the_frames_of_its_key(frames, tmp_path, order):
    docs = documents(write_nxtomo(tmp_path / "scan.nxs", frames, order))
    found = images_by_stream(docs)
    for stream in ("dark", "flat", "primary"):
        np.testing.assert_array_equal(found[stream], frames.of(stream))
    (page,) = (doc for name, doc in docs if name == "event_page")
    np.testing.assert_array_equal(page["data"]["rotation"], frames.angles_deg)
    assert docs[-1][1]["num_events"] == {"dark": 3, "flat": 5, "primary": 37}


def test_frames_that_are_marked_invalid_are_counted(frames, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        docs = documents(write_nxtomo(tmp_path / "scan.nxs", frames))
    assert docs[0][1]["num_invalid"] == 2
    assert "2 of 47 frames are marked invalid" in caplog.text


def test_what_is_said_of_the_sample_is_kept(frames, tmp_path):
    path = write_nxtomo(tmp_path / "scan.nxs", frames)
    with h5py.File(path, "r+") as file:
        entry = file["entry1/tomo_entry"]
        entry["title"] = "a title"
        entry["sample/name"] = "walnut"
        entry["start_time"] = "2016-05-18T10:23:00-05:00"
        entry["instrument/detector/x_pixel_size"] = 0.0013
    assert "pixel_size_um" not in documents(path)[0][1]  # a number without a unit says nothing
    with h5py.File(path, "r+") as file:
        file["entry1/tomo_entry/instrument/detector/x_pixel_size"].attrs["units"] = "mm"
    start = documents(path)[0][1]
    assert start["sample"] == {"name": "walnut"}
    assert start["title"] == "a title"
    assert start["time"] == 1463584980.0
    assert start["pixel_size_um"] == pytest.approx(1.3)


def test_frames_behind_a_link_to_another_file_are_found_there(frames, tmp_path):
    (tmp_path / "raw").mkdir()
    raw = write_nxtomo(tmp_path / "raw" / "raw.h5", frames)
    path = write_nxtomo(tmp_path / "scan.nxs", frames)
    with h5py.File(path, "r+") as file:
        for name in (DATA, DATA.replace("instrument/detector", "data")):
            del file[name]
        file[DATA] = h5py.ExternalLink("raw/raw.h5", DATA)
    assert set(read_scan(path).folders) == {tmp_path, raw.parent}
    np.testing.assert_array_equal(images_by_stream(documents(path))["primary"], frames.projections)


def replace(name, value, units=None):
    def edit(file):
        alias = f"entry1/tomo_entry/data/{name.rpartition('/')[2]}"
        for gone in (name, alias):
            del file[gone]
        if value is not None:
            file[name] = value
            if units:
                file[name].attrs["units"] = units

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (replace(KEYS, None), "none of the name instrument/detector/image_key; there is /entry1"),
        (replace(DATA, None), "none of the name instrument/detector/data; there is"),
        (replace(DATA, 1.0), r"for each of 0 frames, got 47"),
        (replace(DATA, np.zeros((47, 5))), r"\(frame, row, column\) in .*/data, got float64 of"),
        (replace(KEYS, np.zeros(9)), "for each of 47 frames, got 9 in .*/image_key"),
        (replace(KEYS, np.full(47, 4)), "or 3 .invalid. for .* got 47 in .*, 47 of them another"),
        (replace(KEYS, np.arange(47) % 2), r"no frame of the image key 2 \(dark\) in"),
        (replace(KEYS, np.ones(47)), r"image key 0 \(primary\) nor 2 \(dark\) in"),
        (replace(ANGLES, np.zeros(37), "deg"), "angle for each of 47 frames, got 37"),
        (replace(ANGLES, np.full(47, np.nan), "deg"), "for each of 37 projections, got 0 in"),
        (replace(ANGLES, np.zeros(47)), "as the attribute 'units' of .*, got 'none'; set it"),
        (replace(ANGLES, np.zeros(47), "turns"), "rotation_angle, got 'turns'"),
        (
            lambda file: file.copy("entry1/tomo_entry", "entry2"),
            "expected one NXtomo scan, got 2: /entry1/tomo_entry, /entry2; write one",
        ),
    ],
)
def test_what_is_no_scan_is_refused_with_what_there_is(frames, tmp_path, edit, message):
    path = write_nxtomo(tmp_path / "scan.nxs", frames)
    with h5py.File(path, "r+") as file:
        edit(file)
    with pytest.raises(IntakeError, match=message):
        read_scan(path)
