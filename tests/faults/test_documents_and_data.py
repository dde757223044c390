"""Faults of documents and of data, each by its name; others are in `test_bad_scans`.

Where a scan can be made whole, its slices are those of the undisturbed one, bit for bit.
"""

import threading

import h5py
import numpy as np
import pytest
from scans import ANGLES, COLUMNS, ROWS, disc_frames, scan_documents

from tomogan_bluesky import ReconstructionConfig, ScanConfig, TomoGANCallback
from tomogan_bluesky.intake.uris import file_uri

CENTRE = ReconstructionConfig(rotation_centre=15.5)


def take_in(docs, **options):
    """The slices, and the reports."""
    derived = []
    options = {"reconstruction": CENTRE, "worker": "thread", **options}
    with TomoGANCallback(lambda *item: derived.append(item), None, **options) as callback:
        for name, doc in docs:
            callback(name, doc)
        reports = callback.wait(60)
    slices = [
        doc["data"]["reconstruction"]
        for name, doc in derived
        if name == "event" and "reconstruction" in doc["data"]
    ]
    return np.array(slices), reports


def whole(docs, expected, **options):
    """One scan, with nothing missing, of the expected slices."""
    slices, (report,) = take_in(docs, **options)
    assert report.exit_status == "success", report.reason
    assert report.frames.as_dict() == {
        "expected": ANGLES,
        "used": ANGLES,
        "superseded": 0,
        "missing": 0,
        "rejected": {},
    }
    np.testing.assert_array_equal(slices, expected)


@pytest.fixture(scope="module")
def undisturbed():
    return take_in(scan_documents())[0]


def of_projections(docs):
    return [
        i for i, (name, doc) in enumerate(docs) if name == "event" and "rotation" in doc["data"]
    ]


# Documents ---------------------------------------------------------------------------------------


def test_out_of_order(undisturbed):
    docs = scan_documents()
    places = of_projections(docs)
    shuffled = np.random.default_rng(0).permutation(places)
    moved = dict(zip(places, shuffled, strict=True))
    whole([docs[moved.get(i, i)] for i in range(len(docs))], undisturbed)


def test_duplicated(undisturbed):
    """A transport that delivers each document twice; the starts of a run are one."""
    whole([item for item in scan_documents() for _ in range(2)], undisturbed)


def test_duplicated_start_in_mid_run(undisturbed):
    docs = scan_documents()
    whole([*docs[:20], docs[0], *docs[20:]], undisturbed)


def test_descriptor_declared_again(undisturbed):
    """A device that is configured in mid-run: the stream goes on under another descriptor."""
    docs = scan_documents()
    place = of_projections(docs)[ANGLES // 2]
    first = next(doc for name, doc in docs if name == "descriptor" and doc["name"] == "primary")
    again = {**first, "uid": "another", "time": first["time"] + 1}
    rest = [
        (name, {**doc, "descriptor": "another"} if name == "event" else doc)
        for name, doc in docs[place:]
    ]
    whole([*docs[:place], ("descriptor", first), ("descriptor", again), *rest], undisturbed)


def test_missing_stop(undisturbed, caplog):
    """The run is left open, and said to be so; the next one is taken in."""
    cut_off = scan_documents()
    whole([*cut_off[:-1], *scan_documents()], undisturbed)
    assert f"run {cut_off[0][1]['uid']}: " in caplog.text
    assert "before the stop document of the scan came" in caplog.text


def test_stop_before_the_last_data():
    docs = scan_documents()
    late = [docs.pop(i) for i in of_projections(docs)[-3:][::-1]]
    slices, (report,) = take_in([*docs, *late])
    assert report.exit_status == "success"
    assert "3 missing" in report.reason
    assert (report.frames.used, report.frames.missing) == (ANGLES - 3, 3)
    assert np.isfinite(slices).all()


@pytest.mark.parametrize("status", ["abort", "fail"])
def test_abort_and_fail_stops(status):
    docs = scan_documents(
        frames=disc_frames()[:20],
        angles_deg=np.linspace(0, 180, ANGLES)[:20],
        exit_status=status,
        md={"num_projections": ANGLES},
    )
    slices, (report,) = take_in(docs)
    assert report.exit_status == "abort"
    assert f"ended as '{status}' after 20 of 37 projections" in report.reason
    assert slices.shape == (ROWS, COLUMNS, COLUMNS)


def test_late_subscription(undisturbed):
    """Of a run whose start was not seen nothing is made; the next one is taken in."""
    whole([*scan_documents()[5:], *scan_documents()], undisturbed)


def test_a_raw_run_that_is_itself_derived():
    assert take_in(scan_documents(md={"original_run_uid": "x"}))[1] == []


def test_two_cameras():
    second = {"source": "test", "dtype": "array", "shape": [ROWS, COLUMNS]}
    docs = scan_documents(extra_keys={"side_camera": second})
    _, (report,) = take_in(docs)
    assert report.exit_status == "fail"
    assert "candidates: camera (no units), side_camera (no units)" in report.reason
    assert "scan: {image_key: camera}" in report.reason


# Data --------------------------------------------------------------------------------------------


def test_infinity():
    frames = [frame.astype(np.float32) for frame in disc_frames()]
    frames[5][1, 7] = np.inf
    _, (report,) = take_in(scan_documents(frames=frames))
    assert report.frames.rejected == {"expected finite pixels, got NaN or infinity": 1}


def test_dead_rows(undisturbed):
    """A row that reads nothing becomes a finite slice; the others are as they were."""

    def kill(name, doc):
        if name == "event":
            doc["data"]["camera"] = doc["data"]["camera"].copy()
            doc["data"]["camera"][1] = 0
        return doc

    slices, (report,) = take_in(scan_documents(edit=kill))
    assert report.exit_status == "success", report.reason
    assert report.n_clamped >= ANGLES * COLUMNS
    assert np.isfinite(slices).all()
    np.testing.assert_array_equal(slices[[0, 2]], undisturbed[[0, 2]])


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_dtype_changed_in_mid_run(order, undisturbed):
    """No value is squeezed into the type of the first frame."""
    dtypes = [np.uint16] * (ANGLES // 2) + [np.float64, np.int32] * (ANGLES // 4 + 1)
    dtypes = dtypes[:ANGLES][order]
    frames = [f.astype(t) for f, t in zip(disc_frames(), dtypes, strict=True)]
    whole(scan_documents(frames=frames), undisturbed)
    # 9 times as bright: more than the 16 bits of the first frame hold.
    bright = [f.astype(np.float64) * 9 for f in frames]
    mixed = [b if t is not np.uint16 else f for b, f, t in zip(bright, frames, dtypes, strict=True)]
    same = [f.astype(np.float64) for f in mixed]
    np.testing.assert_array_equal(
        take_in(scan_documents(frames=mixed))[0], take_in(scan_documents(frames=same))[0]
    )


def test_flats_only_at_the_end(undisturbed):
    docs = scan_documents()
    uid = next(doc["uid"] for name, doc in docs if name == "descriptor" and doc["name"] == "flat")
    flats = [item for item in docs if uid in (item[1].get("descriptor"), item[1].get("uid"))]
    rest = [item for item in docs if not any(item is flat for flat in flats)]
    whole([*rest[:-1], *flats, rest[-1]], undisturbed)


def test_darks_above_flats():
    def swap(name, doc):
        if name == "descriptor" and doc["name"] in ("dark", "flat"):
            doc["name"] = {"dark": "flat", "flat": "dark"}[doc["name"]]
        return doc

    slices, (report,) = take_in(scan_documents(edit=swap))
    assert report.exit_status == "fail", report.reason
    assert "dark" in report.reason


def test_a_full_turn(undisturbed):
    """Every projection once from each side, mirrored: the same slices, but for rounding."""
    half = disc_frames()[:-1]
    angles = np.linspace(0, 360, 2 * len(half), endpoint=False)
    # About column 15.5 of 32, a projection half a turn on is the mirrored one.
    frames = np.concatenate([half, half[..., ::-1]])
    slices, (report,) = take_in(scan_documents(frames=frames, angles_deg=angles))
    assert report.exit_status == "success", report.reason
    evenly, _ = take_in(scan_documents(frames=half, angles_deg=angles[: len(half)]))
    np.testing.assert_allclose(slices, evenly, atol=1e-5)


def test_both_ends_of_the_half_turn(undisturbed):
    """0° and 180° show the same: together they count as one, whichever of them is there twice."""
    frames, angles = disc_frames(), np.linspace(0, 180, ANGLES)
    without, _ = take_in(scan_documents(frames=frames[:-1], angles_deg=angles[:-1]))
    np.testing.assert_allclose(undisturbed, without, atol=1e-5)


def test_frame_ids_that_wrap_at_65535(tmp_path):
    """What a detector calls its frames is not asked: their place in the file is."""
    frames, path = disc_frames(), tmp_path / "frames.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("d", (70_000, ROWS, COLUMNS), "u2", chunks=(1, ROWS, COLUMNS))
        first = 65_520
        data[first : first + ANGLES] = frames
        file["/entry/instrument/NDAttributes/NDArrayUniqueId"] = np.arange(70_000) % 65_536
    docs = stored_scan(path, (first, first + ANGLES))
    plain, _ = take_in(scan_documents())
    whole(docs, plain)


def stored_scan(path, indices, promised=None):
    """The scan with its projections in a file."""
    docs = scan_documents(md={"num_projections": promised or ANGLES})
    descriptor = next(d for n, d in docs if n == "descriptor" and d["name"] == "primary")
    descriptor["data_keys"]["camera"]["external"] = "STREAM:"
    for i in of_projections(docs):
        del docs[i][1]["data"]["camera"]
    resource = {
        "uid": "r",
        "run_start": docs[0][1]["uid"],
        "data_key": "camera",
        "mimetype": "application/x-hdf5",
        "uri": file_uri(path),
        "parameters": {"dataset": "d"},
    }
    datum = {
        "uid": "r/0",
        "stream_resource": "r",
        "descriptor": descriptor["uid"],
        "indices": {"start": indices[0], "stop": indices[1]},
        "seq_nums": {"start": 1, "stop": indices[1] - indices[0] + 1},
    }
    return [*docs[:-1], ("stream_resource", resource), ("stream_datum", datum), docs[-1]]


def test_stale_file(tmp_path):
    """A file that stopped growing before all that was promised was in it."""
    path = tmp_path / "frames.h5"
    with h5py.File(path, "w") as file:
        file["d"] = disc_frames()[:30]
    slices, (report,) = take_in(stored_scan(path, (0, ANGLES)), scan=ScanConfig(file_wait_s=0.0))
    assert report.exit_status == "success"
    (why,) = report.frames.rejected
    assert why == "expected a frame in its file, got a file of 30 frames"
    assert report.frames.rejected[why] == ANGLES - 30
    assert why in report.reason
    assert np.isfinite(slices).all()


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_truncated_file(tmp_path, libver):
    """Also one that HDF5 would take for one that is still being written."""
    path = tmp_path / "frames.h5"
    with h5py.File(path, "w", libver=libver) as file:
        file["d"] = disc_frames()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    _, (report,) = take_in(stored_scan(path, (0, ANGLES)), scan=ScanConfig(file_wait_s=0.0))
    assert report.exit_status == "fail"
    assert str(path) in report.reason
    assert "truncated" in report.reason


def test_file_not_yet_flushed(tmp_path, undisturbed):
    """What is written after the documents told of it is waited for."""
    path = tmp_path / "frames.h5"
    with h5py.File(path, "w", libver="latest") as file:
        shape = (ROWS, COLUMNS)
        data = file.create_dataset(
            "d", (0, *shape), "u2", maxshape=(None, *shape), chunks=(1, *shape)
        )
        file.swmr_mode = True

        def write():
            data.resize(ANGLES, axis=0)
            data[:] = disc_frames()
            data.flush()

        writer = threading.Timer(0.5, write)
        writer.start()
        whole(stored_scan(path, (0, ANGLES)), undisturbed, scan=ScanConfig(file_wait_s=30.0))
        writer.join()
