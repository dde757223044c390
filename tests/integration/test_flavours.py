"""One sample, the same photons, each way in which a beamline records them: the same slices."""

import flavours
import numpy as np
import pytest
from scans import slice_events

from tomogan_bluesky import LiveConfig, ReconstructionConfig, ScanConfig, TomoGANCallback, replay
from tomogan_bluesky.intake.archive import documents
from tomogan_bluesky.publish.tiled_publisher import TiledPublisher

RECONSTRUCTION = ReconstructionConfig(rotation_centre=flavours.CENTRE)
ENCODER = {"angle_key": "Angle", "angle_units": "deg"}  # a PandA's dataset names no units
CONFIG = {
    "events": ScanConfig(),
    "area_detector": ScanConfig(),
    "async_step": ScanConfig(),
    "ioc": ScanConfig(),
    "async_fly": ScanConfig(**ENCODER),
    "async_fly_start_angles": ScanConfig(start_angles=("angles_deg",), angle_units="deg"),
    "hex": ScanConfig(references_run_key="current_dark_flat_scan_uid", **ENCODER),
}
ACCOUNT = {"expected": 31, "used": 31, "superseded": 0, "missing": 0, "rejected": {}}


def callback_into(derived, flavour, incremental=True):
    return TomoGANCallback(
        lambda name, doc: derived.append((name, doc)),
        None,
        scan=CONFIG[flavour],
        reconstruction=RECONSTRUCTION,
        live=LiveConfig(incremental=incremental),
        worker="thread",
    )


def volume(derived):
    return np.stack([doc["data"]["reconstruction"] for doc in slice_events(derived)])


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The slices of the scan with images inside its events, reconstructed in the end."""
    derived = []
    docs = flavours.run("events", tmp_path_factory.mktemp("events"))
    with callback_into(derived, "events", incremental=False) as callback:
        replay(docs, callback)
    return volume(derived)


def check(derived, reports, reference, account=ACCOUNT):
    (report,) = reports
    assert report.exit_status == "success", report.reason
    assert report.frames.as_dict() == account
    np.testing.assert_array_equal(volume(derived), reference)


@pytest.mark.parametrize("flavour", CONFIG)
def test_live_and_replayed_from_documents_and_from_the_catalog(
    flavour, tmp_path, reference, catalog
):
    derived = []
    catalog.make_readable(tmp_path)
    client = catalog.client()
    with callback_into(derived, flavour) as callback:
        docs = flavours.run(flavour, tmp_path, callback, TiledPublisher(client))
        reports = callback.wait(60)
        check(derived, reports, reference)
    assert reports[0].incremental, reports[0].why_batch

    again = []
    with callback_into(again, flavour) as callback:
        for name, doc in docs:
            callback(name, doc)
        check(again, callback.wait(60), reference)

    archived = []
    uids = [doc["uid"] for name, doc in docs if name == "start"]
    with callback_into(archived, flavour) as callback:
        check(archived, replay([client[uid] for uid in uids], callback), reference)


@pytest.mark.parametrize("flavour", ["events", "area_detector", "async_step"])
def test_a_rewound_scan_gives_the_volume_of_an_undisturbed_one(
    flavour, tmp_path, reference, catalog
):
    """Live, from documents and from the catalog; the point taken again is accounted for."""
    catalog.make_readable(tmp_path)
    client, account = catalog.client(), {**ACCOUNT, "expected": 32, "superseded": 1}
    derived = []
    with callback_into(derived, flavour) as callback:
        docs = flavours.run(flavour, tmp_path, callback, TiledPublisher(client), pause_after=10)
        check(derived, callback.wait(60), reference, account)
    for run in (docs, client[docs[0][1]["uid"]]):
        again = []
        with callback_into(again, flavour) as callback:
            check(again, replay(run, callback), reference, account)


def test_one_event_for_all_frames_and_a_monitor_of_the_angle(tmp_path, reference, catalog, caplog):
    """Angles are interpolated at the times in the camera's file, so bits may differ."""
    catalog.make_readable(tmp_path)
    client = catalog.client()
    derived = []
    with callback_into(derived, "events") as callback:
        docs = flavours.run("fxi", tmp_path, callback, TiledPublisher(client))
        (report,) = callback.wait(60)
        assert report.exit_status == "success", report.reason
        assert report.frames.as_dict() == ACCOUNT
        np.testing.assert_allclose(volume(derived), reference, atol=2e-3)

    # The catalog has the frames; when each was taken stands in the file that they are in.
    again, uid = [], docs[0][1]["uid"]
    with callback_into(again, "events") as callback:
        check(again, replay(client[uid], callback), volume(derived))

    refused = ScanConfig(allowed_roots=(tmp_path / "elsewhere",))
    with TomoGANCallback(lambda *item: None, None, scan=refused, worker="thread") as callback:
        (report,) = replay(client[uid], callback)
    assert report.exit_status == "fail"
    assert "scan.frame_time_key" in report.reason
    assert "scan.allowed_roots" in caplog.text


def test_an_archived_run_costs_few_requests(tmp_path, catalog):
    """A catalog takes tens of milliseconds for each, however small."""
    client = catalog.client()
    docs = flavours.run("events", tmp_path, TiledPublisher(client))
    run = client[docs[0][1]["uid"]]
    requests = []
    hooks = client.context.http_client.event_hooks["request"]
    hooks.append(requests.append)
    try:
        pages = [doc for name, doc in documents(run) if name == "event_page"]
    finally:
        hooks.remove(requests.append)
    assert len(pages) == 3
    assert len(requests) == 1 + 2 * 3  # the streams; the parts of each, and its table


def test_references_of_another_run_are_found_in_the_catalog(tmp_path, reference, catalog):
    """The run with the darks and flats was recorded before this callback was made."""
    catalog.make_readable(tmp_path)
    client = catalog.client()
    docs = flavours.run("hex", tmp_path, TiledPublisher(client))
    projections = [doc["uid"] for name, doc in docs if name == "start"][-1]
    with TomoGANCallback(
        client, None, scan=CONFIG["hex"], reconstruction=RECONSTRUCTION, worker="thread"
    ) as callback:
        (report,) = replay(client[projections], callback)
    assert report.exit_status == "success", report.reason
    derived = client[report.derived_uid]
    np.testing.assert_array_equal(derived["primary"]["reconstruction"].read(), reference)
    references = next(doc["uid"] for name, doc in docs if name == "start")
    assert derived.metadata["start"]["dark_flat_run"] == references


def test_references_of_a_run_that_nobody_has_are_an_error(tmp_path):
    derived = []
    docs = flavours.run("hex", tmp_path)
    first_stop = next(i for i, (name, _) in enumerate(docs) if name == "stop")
    with callback_into(derived, "hex") as callback:
        (report,) = replay(docs[first_stop + 1 :], callback)
    assert report.exit_status == "fail"
    assert "current_dark_flat_scan_uid" in report.reason


def test_several_frames_a_point_are_all_used(tmp_path):
    derived = []
    docs = flavours.run("area_detector_2", tmp_path)
    with callback_into(derived, "area_detector") as callback:
        (report,) = replay(docs, callback)
    assert report.exit_status == "success", report.reason
    assert report.frames.used == report.frames.expected == 62


def test_memory_holds_slabs_and_not_the_scan(tmp_path, reference):
    """With room for one row at a time, every block is one slab, and no bit changes."""
    docs = flavours.run("async_fly", tmp_path)
    derived = []
    config = CONFIG["async_fly"].model_copy(update={"memory_gib": 1e-9})
    with TomoGANCallback(
        lambda name, doc: derived.append((name, doc)),
        None,
        scan=config,
        reconstruction=RECONSTRUCTION.model_copy(update={"slab_rows": 1}),
        worker="thread",
    ) as callback:
        check(derived, replay(docs, callback), reference)


def test_a_file_outside_the_allowed_roots_is_refused(tmp_path):
    docs = flavours.run("async_fly", tmp_path)
    derived = []
    with TomoGANCallback(
        lambda name, doc: derived.append((name, doc)),
        None,
        scan=ScanConfig(allowed_roots=(tmp_path / "elsewhere",)),
        worker="thread",
    ) as callback:
        (report,) = replay(docs, callback)
    assert report.exit_status == "fail"
    assert "allowed_roots" in report.reason
