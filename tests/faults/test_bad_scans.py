"""Bad input, each by its name: one clear error in the stop document, the report and the log.

The scan itself always succeeds (nothing here raises into the caller), and the next run is
processed.
"""

import json
import re
import threading

import numpy as np
import pytest
from scans import ANGLES, COLUMNS, DARK, ROWS, disc_frames, scan_documents, slice_events

from tomogan_bluesky import (
    PreprocessingConfig,
    PublishingConfig,
    ReconstructionConfig,
    ScanConfig,
    TomoGANCallback,
)


def without(kind):
    return scan_documents(**{kind: 0})


def nan_frames():
    frames = [frame.astype(np.float32) for frame in disc_frames()]
    frames[5][1, 7] = np.nan
    return frames


def odd_frames():
    frames = list(disc_frames())
    frames[5] = frames[5][:, :-1]
    return frames


def drop_angle(name, doc):
    if name == "descriptor":
        doc["data_keys"].pop("rotation", None)
    elif name == "event":
        doc["data"].pop("rotation", None)
    return doc


def dark_flats(name, doc):
    if name == "event" and "rotation" not in doc["data"] and doc["data"]["camera"][0, 0] > DARK:
        doc["data"]["camera"] = np.full((ROWS, COLUMNS), DARK, np.uint16)
    return doc


def binned(k):
    return ReconstructionConfig(preprocessing=PreprocessingConfig(binning=k))


FATAL = {
    "no flats": (without("flats"), {}, r"one flat frame, got none; .*scan\.flat_streams"),
    "no darks": (without("darks"), {}, r"one dark frame, got none; .*scan\.dark_streams"),
    "no angles": (
        scan_documents(edit=drop_angle),
        {},
        r"rotation angle for each projection, got none; .*scan\.angle_key",
    ),
    "unknown units": (scan_documents(units="furlong"), {}, r"rotation \(furlong\)"),
    "zero projections": (
        scan_documents(frames=[], md={"num_projections": 9}),
        {},
        r"one projection frame, got none",
    ),
    "nothing but bad frames": (
        scan_documents(frames=[np.full((2, 2), 7, np.uint16)] * 9),
        {},
        r"9 rejected: expected frames of 3 x 32 pixels, got 2 x 2",
    ),
    "degrees called radians": (scan_documents(units="rad"), {}, r"expected radians, got values"),
    "zero flats": (
        scan_documents(edit=dark_flats),
        {},
        r"96 of 96 pixels are not .mean flat 100, mean dark 100.; see whether the shutter",
    ),
    "one angle, the centre given": (
        scan_documents(frames=disc_frames()[:1], angles_deg=[90.0]),
        {"reconstruction": ReconstructionConfig(rotation_centre=15.5)},
        r"expected projections at different angles, got 1 at 90 degrees; .*scan\.angle_key",
    ),
    "one angle": (
        scan_documents(frames=disc_frames()[:1], angles_deg=[0.0]),
        {},
        r"centre: .*two projections half a turn apart, got 1 projection; give the rotation centre",
    ),
    "a GPU where there is none": (
        scan_documents(),
        {"device": "cuda:7"},
        r"device: expected a GPU that torch can use, as 'cuda:7' asks for, got none; set device",
    ),
    "a binning beyond the frames": (
        scan_documents(),
        {"reconstruction": binned(4)},
        r"binning: expected k between 1 and the 3 rows and 32 columns of the frames, got 4",
    ),
    "nothing to find a centre in": (
        scan_documents(frames=[np.full((ROWS, COLUMNS), 5000, np.uint16)] * ANGLES),
        {},
        r"centre: .*'pair' failed: .*'wedge' failed: .*'centroid' failed: .*give the rotation",
    ),
    "no opposed pair": (
        scan_documents(angles_deg=np.linspace(0, 120, ANGLES)),
        {"reconstruction": ReconstructionConfig(rotation_centre_method="pair")},
        r"centre: .*180",
    ),
    "centre off the detector": (
        scan_documents(),
        {"reconstruction": ReconstructionConfig(rotation_centre=99.0)},
        r"rotation_centre: expected a detector column between 0 and 31, got 99",
    ),
    "rows off the detector": (
        scan_documents(),
        {"scan": ScanConfig(rows=(0, 40))},
        r"scan\.rows: expected rows of the detector, which has 3, got 0:40",
    ),
}


@pytest.mark.parametrize("case", FATAL)
def test_a_scan_that_cannot_be_reconstructed(case, caplog):
    docs, options, message = FATAL[case]
    derived = []
    with TomoGANCallback(
        lambda *item: derived.append(item), None, **options, worker="thread"
    ) as callback:
        for name, doc in docs:
            callback(name, doc)
        (report,) = callback.wait(60)
    names = [name for name, _ in derived]
    assert (names[0], names[-1]) == ("start", "stop")
    stop = derived[-1][1]
    assert report.exit_status == stop["exit_status"] == "fail"
    for text in (report.reason, stop["reason"], caplog.text):
        assert re.search(message, text), text
    assert docs[0][1]["uid"] in caplog.text


PARTIAL = {
    "aborted in the middle": (
        scan_documents(
            frames=disc_frames()[:20],
            angles_deg=np.linspace(0, 180, ANGLES)[:20],
            exit_status="abort",
            md={"num_projections": ANGLES},
        ),
        "abort",
        {"used": 20, "missing": ANGLES - 20},
        r"ended as 'abort' after 20 of 37 projections, which cover 95\.0 degrees",
    ),
    "NaN pixels": (
        scan_documents(frames=nan_frames()),
        "success",
        {"used": ANGLES - 1, "missing": 0},
        r"1 of 37 projections rejected: expected finite pixels, got NaN",
    ),
    "a frame of another shape": (
        scan_documents(frames=odd_frames()),
        "success",
        {"used": ANGLES - 1, "missing": 0},
        r"rejected: expected frames of 3 x 32 pixels, got 3 x 31",
    ),
    "a frame that never came": (
        [
            item
            for item in scan_documents()
            if not (item[0] == "event" and "rotation" in item[1]["data"]) or item[1]["seq_num"] != 9
        ],
        "success",
        {"used": ANGLES - 1, "missing": 1},
        r"expected 37 projections, got 36: 1 missing",
    ),
}


def test_a_centre_that_nothing_confirms_is_used_and_called_uncertain():
    docs = scan_documents(angles_deg=np.linspace(0, 120, ANGLES))
    derived = []
    with TomoGANCallback(lambda *item: derived.append(item), None, worker="thread") as callback:
        for name, doc in docs:
            callback(name, doc)
        (report,) = callback.wait(60)
    assert report.exit_status == "success"
    assert re.search(r"centre, 15\.\d+, is uncertain .*nothing confirms centroid", report.reason)
    start = derived[0][1]
    assert start["rotation_centre_confidence"] == report.centre_confidence < 0.5
    assert json.loads(start["rotation_centre_methods"]) == report.centre_methods
    assert list(report.centre_methods) == ["centroid"]


@pytest.mark.parametrize("case", PARTIAL)
def test_a_scan_with_gaps_is_reconstructed_and_says_so(case, caplog):
    docs, status, account, message = PARTIAL[case]
    derived = []
    config = ReconstructionConfig(rotation_centre=15.5)
    with TomoGANCallback(
        lambda *item: derived.append(item), None, reconstruction=config, worker="thread"
    ) as callback:
        for name, doc in docs:
            callback(name, doc)
        (report,) = callback.wait(60)
    stop = derived[-1][1]
    assert report.exit_status == stop["exit_status"] == status
    for text in (report.reason, stop["reason"], caplog.text):
        assert re.search(message, text), text
    assert {key: report.frames.as_dict()[key] for key in account} == account
    assert report.n_slices == 3
    slices = [doc["data"]["reconstruction"] for doc in slice_events(derived)]
    assert np.isfinite(slices).all()


def test_the_next_run_is_processed_after_each_fault():
    derived = []
    with TomoGANCallback(lambda *item: derived.append(item), None, worker="thread") as callback:
        for docs in [case[0] for case in FATAL.values()][:5]:
            for name, doc in [*docs, *scan_documents()]:
                callback(name, doc)
        statuses = [report.exit_status for report in callback.wait(60)]
    assert statuses == ["fail", "success"] * 5


def test_documents_that_are_no_documents_do_not_raise(caplog):
    with TomoGANCallback(lambda *item: None, None, worker="thread") as callback:
        callback("event", None)
        callback("event", {})
        callback("start", {})
        callback("no such kind", {"uid": "x"})
        callback(None, 7)
        for name, doc in scan_documents():
            callback(name, doc)
        assert [r.exit_status for r in callback.wait(60)] == ["success"]
    callback("event", None)  # closed: it cannot even say whose document it refuses
    assert "could not be taken in" in caplog.text


def test_a_publisher_that_raises_fails_the_report_and_spares_the_others(caplog):
    derived = []

    def broken(name, doc):
        raise ConnectionError("nobody listens")

    with TomoGANCallback(
        [broken, lambda *item: derived.append(item)], None, worker="thread"
    ) as callback:
        for name, doc in scan_documents():
            callback(name, doc)
        (report,) = callback.wait(60)
    assert report.exit_status == "fail"
    assert "nobody listens" in report.reason
    assert "nobody listens" in caplog.text
    assert [name for name, _ in derived][-1] == "stop"


def test_a_tiled_server_that_is_down_without_a_spool_costs_the_documents_alone(tmp_path):
    publishing = PublishingConfig(directory=tmp_path, spool_gib=0.0)
    with TomoGANCallback(
        "http://127.0.0.1:9", None, publishing=publishing, worker="thread"
    ) as callback:
        for name, doc in scan_documents():
            callback(name, doc)
        (report,) = callback.wait(120)
    assert (report.exit_status, report.derived_uid, report.spooled) == ("fail", None, False)
    assert "127.0.0.1:9" in report.reason
    assert report.volume_path.exists()


def test_a_slab_that_fails_is_published_as_nan_and_counted(monkeypatch):
    from tomogan_bluesky.errors import ReconstructionError
    from tomogan_bluesky.pipeline.slabs import SlabPipeline

    reconstruct = SlabPipeline.reconstruct

    numbers = iter(range(3))

    def fail_once(self, attenuation):
        if next(numbers) == 1:
            raise ReconstructionError("this slab is broken")
        return reconstruct(self, attenuation)

    monkeypatch.setattr(SlabPipeline, "reconstruct", fail_once)
    derived = []
    config = ReconstructionConfig(slab_rows=1)
    with TomoGANCallback(
        lambda *item: derived.append(item), None, reconstruction=config, worker="thread"
    ) as callback:
        for name, doc in scan_documents():
            callback(name, doc)
        (report,) = callback.wait(60)
    assert (report.n_slices, report.n_failed_slices) == (3, 1)
    assert report.exit_status == "fail"
    assert "this slab is broken" in report.reason
    slices = np.stack([doc["data"]["reconstruction"] for doc in slice_events(derived)])
    assert [bool(np.isnan(s).all()) for s in slices] == [False, True, False]


def test_too_many_waiting_documents_fail_that_scan_alone_and_never_block(monkeypatch, caplog):
    monkeypatch.setattr("tomogan_bluesky.hosting.in_thread._QUEUE_LIMIT", 5)
    busy, free = threading.Event(), threading.Event()

    def slow(name, doc):
        busy.set()
        free.wait(60)

    small = {"frames": disc_frames()[:0], "md": {"num_projections": 1}, "darks": 1, "flats": 1}
    with TomoGANCallback(slow, None, worker="thread") as callback:
        for name, doc in scan_documents(**small):
            callback(name, doc)
        assert busy.wait(60)
        overrun = scan_documents()
        for name, doc in overrun:
            callback(name, doc)
        free.set()
        first, second = callback.wait(60)
        for name, doc in scan_documents(**small):
            callback(name, doc)
        (third,) = callback.wait(60)
    assert second.raw_uid == overrun[0][1]["uid"]
    assert second.exit_status == "fail"
    assert "replay the run" in second.reason
    assert "have to be replayed" in caplog.text
    assert all("replay the run" not in report.reason for report in (first, third))
