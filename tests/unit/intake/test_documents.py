"""What is understood of the documents of a run."""

import event_model
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


def thetas(documents, frames):
    projections = of_kind(frames, "projection")
    return documents.angles.theta(
        [f.number for f in projections], [f.time for f in projections], None
    )


def of_kind(frames, kind):
    return [frame for frame in frames if frame.kind == kind]


def test_frames_have_their_kind_number_and_angle_in_radians():
    documents, frames, shapes = read(scan_documents())
    assert documents.is_tomography
    assert [len(of_kind(frames, kind)) for kind in ("dark", "flat", "projection")] == [2, 2, ANGLES]
    projections = of_kind(frames, "projection")
    assert [frame.number for frame in projections] == list(range(1, ANGLES + 1))
    np.testing.assert_allclose(thetas(documents, frames), np.linspace(0, np.pi, ANGLES))
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
        documents, frames, _ = read(docs, **config)
        np.testing.assert_allclose(thetas(documents, frames), angles)


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
    documents, frames, _ = read(scan_documents(units=units))
    assert documents.is_tomography
    with pytest.raises(AnglesError, match=rf"rotation \({named}\).*scan\.angle_key"):
        thetas(documents, frames)


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
    documents, frames, _ = read(scan_documents(darks=0, flats=0, units=None))
    assert len(frames) == ANGLES
    assert not documents.is_tomography


def test_darks_and_flats_alone_are_no_scan_unless_projections_were_promised():
    assert not read(scan_documents(frames=[]))[0].is_tomography
    assert read(scan_documents(frames=[], md={"num_projections": 9}))[0].is_tomography


def test_angles_from_the_start_document():
    first_and_last = {"min_theta": 10.0, "max_theta": 190.0, "num_projections": ANGLES}
    documents, frames, _ = read(
        scan_documents(units=None, md=first_and_last),
        start_angles=("min_theta", "max_theta"),
        angle_units="deg",
    )
    np.testing.assert_allclose(thetas(documents, frames), np.deg2rad(np.linspace(10, 190, ANGLES)))
    listed = np.linspace(0, 3, ANGLES)[::-1]
    documents, frames, _ = read(
        scan_documents(units=None, md={"theta": listed.tolist()}),
        start_angles=("theta",),
        angle_units="rad",
    )
    np.testing.assert_allclose(thetas(documents, frames), listed)


def test_one_event_with_all_frames_and_a_monitor_of_the_angle():
    """The manner of NSLS-II FXI."""
    times = 1e9 + 0.5 + np.arange(ANGLES)
    run = event_model.compose_run()
    array = {"source": "test", "dtype": "array", "dtype_numpy": "<u2"}
    frames_descriptor = run.compose_descriptor(
        name="primary",
        data_keys={
            "camera": {**array, "shape": [ANGLES, ROWS, COLUMNS]},
            "when": {**array, "shape": [ANGLES]},
        },
    )
    monitor = run.compose_descriptor(
        name="rotation_monitor",
        data_keys={"rotation": {"source": "t", "dtype": "number", "shape": [], "units": "deg"}},
    )
    docs = [
        ("start", run.start_doc),
        ("descriptor", frames_descriptor.descriptor_doc),
        ("descriptor", monitor.descriptor_doc),
    ]
    for i in range(ANGLES + 1):  # half a second before and after each frame
        event = monitor.compose_event(
            data={"rotation": 5.0 * i}, timestamps={"rotation": 1e9 + i}, time=1e9 + i
        )
        docs.append(("event", event))
    data = {"camera": disc_frames(), "when": times}
    docs.append(
        ("event", frames_descriptor.compose_event(data=data, timestamps=dict.fromkeys(data, 2e9)))
    )
    documents, frames, _ = read(docs, frame_time_key="when")
    assert [f.number for f in frames] == list(range(1, ANGLES + 1))
    np.testing.assert_array_equal(np.stack([f.pixels for f in frames]), disc_frames())
    np.testing.assert_allclose(thetas(documents, frames), np.deg2rad(5.0 * np.arange(ANGLES) + 2.5))
