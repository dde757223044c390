"""What is understood of the documents of a run."""

import numpy as np
import pytest
from scans import ANGLES, COLUMNS, ROWS, disc_frames, scan_documents

from tomogan_bluesky.config import ScanConfig
from tomogan_bluesky.errors import AnglesError, IntakeError
from tomogan_bluesky.intake.documents import ScanDocuments


def read(docs, **config):
    frames, shapes = [], {}
    documents = ScanDocuments(ScanConfig(**config), frames.append, shapes.__setitem__)
    for name, doc in docs:
        documents(name, doc)
    return documents, frames, shapes


def of_kind(frames, kind):
    return [frame for frame in frames if frame.kind == kind]


def test_frames_have_their_kind_number_and_angle_in_radians():
    documents, frames, shapes = read(scan_documents())
    assert documents.is_tomography
    assert [len(of_kind(frames, kind)) for kind in ("dark", "flat", "projection")] == [2, 2, ANGLES]
    projections = of_kind(frames, "projection")
    assert [frame.seq_num for frame in projections] == list(range(1, ANGLES + 1))
    np.testing.assert_allclose([f.theta for f in projections], np.linspace(0, np.pi, ANGLES))
    np.testing.assert_array_equal(np.stack([f.pixels for f in projections]), disc_frames())
    assert shapes == dict.fromkeys(("dark", "flat", "projection"), (ROWS, COLUMNS))


def test_pixels_are_taken_by_reference():
    docs = scan_documents()
    _, frames, _ = read(docs)
    first = next(d for n, d in docs if n == "event")
    assert np.shares_memory(frames[0].pixels, first["data"]["camera"])


def test_exported_lists_become_arrays_of_the_recorded_type():
    docs = scan_documents()
    for name, doc in docs:
        if name == "event":
            doc["data"]["camera"] = doc["data"]["camera"].tolist()
    _, frames, _ = read(docs)
    assert {frame.pixels.dtype for frame in frames} == {np.dtype("uint16")}


def test_a_leading_axis_of_one_is_dropped():
    docs = scan_documents(frames=[frame[None] for frame in disc_frames()])
    _, frames, _ = read(docs)
    assert {frame.pixels.shape for frame in frames} == {(ROWS, COLUMNS)}


def test_radians_stay_radians_and_settings_win_over_the_data_key():
    angles = np.linspace(0, 3, ANGLES)
    for docs, config in (
        (scan_documents(units="rad", angles_deg=angles), {}),
        (scan_documents(units=None, angles_deg=angles), {"angle_units": "rad"}),
        (scan_documents(units="mm", angles_deg=angles), {"angle_units": "rad"}),
    ):
        if config:
            config["angle_key"] = "rotation"
        _, frames, _ = read(docs, **config)
        np.testing.assert_allclose([f.theta for f in of_kind(frames, "projection")], angles)


def test_the_hinted_readback_is_preferred_to_the_set_point():
    key = {"source": "test", "dtype": "number", "shape": [], "units": "deg"}

    def edit(name, doc):
        if name == "descriptor" and doc["name"] == "primary":
            doc["data_keys"]["rotation_setpoint"] = key
        return doc

    documents, frames, _ = read(scan_documents(edit=edit))
    assert len(of_kind(frames, "projection")) == ANGLES


@pytest.mark.parametrize(("units", "named"), [(None, "no units"), ("mm", "mm")])
def test_an_angle_without_angular_units_is_an_error_that_names_the_candidates(units, named):
    with pytest.raises(AnglesError, match=rf"rotation \({named}\).*scan\.angle_key"):
        read(scan_documents(units=units))


def test_a_named_angle_without_units_is_an_error():
    with pytest.raises(AnglesError, match="scan.angle_units"):
        read(scan_documents(units=None), angle_key="rotation")


def test_two_cameras_are_an_error_that_names_both():
    second = {"source": "test", "dtype": "array", "shape": [ROWS, COLUMNS]}
    with pytest.raises(IntakeError, match=r"camera .*side_camera .*scan\.image_key"):
        read(scan_documents(extra_keys={"side_camera": second}))


def test_one_of_two_cameras_can_be_named():
    second = {"source": "test", "dtype": "array", "shape": [ROWS, COLUMNS]}
    _, frames, _ = read(scan_documents(extra_keys={"side_camera": second}), image_key="camera")
    assert len(frames) == ANGLES + 4


def test_a_count_with_a_camera_is_none_of_our_business():
    docs = [(n, d) for n, d in scan_documents(darks=0, flats=0, units=None) if n != "event"]
    documents = ScanDocuments(ScanConfig(), lambda frame: None, lambda kind, shape: None)
    for name, doc in docs:
        if name == "descriptor":
            del doc["data_keys"]["rotation"]
            with pytest.raises(AnglesError):
                documents(name, doc)
        else:
            documents(name, doc)
    assert not documents.is_tomography


def test_images_in_files_are_an_error_that_points_to_replay():
    def edit(name, doc):
        if name == "descriptor":
            doc["data_keys"]["camera"]["external"] = "STREAM:"
        return doc

    with pytest.raises(IntakeError, match="replay"):
        read(scan_documents(edit=edit))
