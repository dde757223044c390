"""Folders of TIFF files as documents."""

import os

import event_model
import numpy as np
import pytest
import tifffile
from scan_files import Frames, write_tiff_folder

from tomogan_bluesky.errors import IntakeError
from tomogan_bluesky.intake.files import read_scan
from tomogan_bluesky.intake.uris import path_of


@pytest.fixture
def make(tmp_path):
    def make(first=1, **description):
        return write_tiff_folder(tmp_path / "a scan", Frames(), first, **description)

    return make


def documents(path):
    found = list(read_scan(path).documents(scan_id=4))
    for name, doc in found:
        event_model.schema_validators[event_model.DocumentNames[name]].validate(doc)
    return found


def rotation(docs):
    (page,) = (doc for name, doc in docs if name == "event_page")
    return page["data"]["rotation"]


def images_by_stream(docs):
    """The frames that the documents point at, in the order of their numbers."""
    names = {doc["uid"]: doc["name"] for name, doc in docs if name == "descriptor"}
    resources = {doc["uid"]: doc for name, doc in docs if name == "stream_resource"}
    images = {}
    for name, doc in docs:
        if name == "stream_datum":
            resource = resources[doc["stream_resource"]]
            folder, template = path_of(resource["uri"]), resource["parameters"]["template"]
            images.setdefault(names[doc["descriptor"]], []).extend(
                tifffile.imread(folder / template.format(n))
                for n in range(doc["indices"]["start"], doc["indices"]["stop"])
            )
    return images


@pytest.mark.parametrize("first", [0, 1, 96])  # the last: some numbers have more digits
def test_each_stream_has_the_frames_of_its_files(make, first):
    docs = documents(make(first, sample="walnut", pixel_size_um=1.3))
    frames, found = Frames(), images_by_stream(docs)
    for stream in ("dark", "flat", "primary"):
        np.testing.assert_array_equal(found[stream], frames.of(stream))
    np.testing.assert_array_equal(rotation(docs), frames.angles_deg)
    start = docs[0][1]
    assert (start["num_projections"], start["num_flats"], start["num_darks"]) == (37, 5, 3)
    assert start["sample"] == {"name": "walnut"}
    assert start["pixel_size_um"] == 1.3


def test_where_a_frame_was_lost_the_others_keep_their_angles(make):
    folder = make()
    (folder / "proj_0011.tif").unlink()
    docs = documents(folder)
    frames = Frames()
    kept = np.arange(37) != 10
    np.testing.assert_array_equal(rotation(docs), frames.angles_deg[kept])
    np.testing.assert_array_equal(images_by_stream(docs)["primary"], frames.projections[kept])


def test_angles_can_come_from_a_text_file(make):
    folder = make(angles="angles.txt", units="rad")
    theta = np.random.default_rng(0).uniform(0, 3, 37)
    np.savetxt(folder / "angles.txt", theta, fmt="%.17g")
    docs = documents(folder)
    np.testing.assert_array_equal(rotation(docs), theta)
    (primary,) = (d for n, d in docs if n == "descriptor" and d["name"] == "primary")
    assert primary["data_keys"]["rotation"]["units"] == "rad"


def test_the_same_files_are_the_same_run_and_changed_ones_are_not(make):
    folder = make()
    uid = read_scan(folder).uid
    assert read_scan(folder).uid == uid
    os.utime(folder / "flat-3.tiff", (1e9, 1e9))
    touched = read_scan(folder).uid
    assert touched != uid
    (folder / "flat-5.tiff").rename(folder / "flat-6.tiff")
    assert read_scan(folder).uid not in (uid, touched)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"flats": None, "units": "turns"}, "flats: Field required; units: Input should be 'deg'"),
        ({"flatts": "f*"}, "flatts: Extra inputs are not permitted"),
        ({"flats": "flat-1.tiff"}, r"with one \* that stands for .* got 'flat-1.tiff'"),
        ({"flats": "*-*.tiff"}, r"with one \* that stands for"),
        ({"flats": "flat_*.tif"}, r"flat_\*.tif, with a number for \*, got none; there is darks, "),
        ({"flats": "nowhere/*.tif"}, "got none; there is nothing"),
        ({"angles": "angles.txt"}, "angles.txt: expected a text file of angles, got"),
        ({"angles": "scan.yml"}, "scan.yml: expected a text file of angles, got"),
        ({"pixel_size_um": -1}, "pixel_size_um: Input should be greater than 0"),
    ],
)
def test_a_description_that_is_wrong_is_refused(make, description, message):
    with pytest.raises(IntakeError, match=message):
        read_scan(make(**description))


def test_a_description_that_is_no_yaml_is_refused(make):
    folder = make()
    (folder / "scan.yml").write_text("flats: [")
    with pytest.raises(IntakeError, match=r"scan.yml: expected YAML, got: while parsing"):
        read_scan(folder)


@pytest.mark.parametrize(
    ("name", "frame", "message"),
    [
        (
            "proj_0003.tif",
            np.zeros((3, 33), "u2"),
            r"all of one size, got .*\(3, 33\) in proj_0003",
        ),
        ("proj_0003.tif", np.zeros((3, 32), "u1"), r"\|u1 of shape \(3, 32\) in proj_0003.tif"),
        ("flat-1.tiff", np.zeros((2, 3, 32), "u2"), r"\(2, 3, 32\) in flat-1.tiff"),
        ("proj_38.tif", np.zeros((3, 32), "u2"), "written in one way, got proj_0001.tif"),
        ("proj_038.tif", np.zeros((3, 32), "u2"), "written in one way, got proj_0001.tif"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(make, name, frame, message):
    folder = make()
    tifffile.imwrite(folder / name, frame)
    with pytest.raises(IntakeError, match=message):
        read_scan(folder)


def test_darks_of_another_size_and_too_few_angles_are_refused(make):
    folder = make(angles="angles.txt")
    np.savetxt(folder / "angles.txt", np.zeros(36))
    with pytest.raises(IntakeError, match=r"each of 37 projections, got 36 in .*angles.txt"):
        read_scan(folder)
    for number in (1, 2, 3):
        tifffile.imwrite(folder / f"darks/dark {number:03d}.tif", np.zeros((4, 32), "u2"))
    with pytest.raises(IntakeError, match=r"of one size, got .*\(4, 32\) in .*dark \*.tif"):
        read_scan(folder)


def test_a_file_that_is_no_tiff_is_refused(make):
    folder = make()
    (folder / "flat-2.tiff").write_text("no TIFF")
    with pytest.raises(IntakeError, match=r"flat-2.tiff: expected a TIFF file, got: not a TIFF"):
        read_scan(folder)
