"""Darks and flats in files: the same volume as from frames of the run, and clear errors."""

import os
import re
import shutil

import h5py
import numpy as np
import pytest
import tifffile
from scan_files import Frames, write_data_exchange, write_nxtomo, write_tiff_folder
from scans import ANGLES, COLUMNS, reconstructed, scan_documents

from tomogan_bluesky import (
    LiveConfig,
    ReconstructionConfig,
    ScanConfig,
    TomoGANCallback,
    replay,
)
from tomogan_bluesky.config import ReferenceFiles, StoredFrames
from tomogan_bluesky.errors import IntakeError
from tomogan_bluesky.intake.reference_runs import ReferenceRuns
from tomogan_bluesky.intake.references import mean_frame
from tomogan_bluesky.publish.catalog import derived_runs

FRAMES = Frames()


def files(darks, flats=None):
    """Settings of a path for each kind, or of a path and a dataset."""

    def stored(place):
        path, dataset = place if isinstance(place, tuple) else (place, None)
        return StoredFrames(path=str(path), dataset=dataset)

    return ReferenceFiles(darks=stored(darks), flats=stored(flats or darks))


def write_datasets(path):
    with h5py.File(path, "w") as file:
        file["a/dark"], file["a/flat"] = FRAMES.darks, FRAMES.flats
        file["mean/dark"], file["mean/flat"] = map(mean_frame, (FRAMES.darks, FRAMES.flats))
    return path


PLACES = {
    "Data Exchange": lambda folder: files(write_data_exchange(folder / "dx.h5", FRAMES)),
    "NXtomo": lambda folder: files(write_nxtomo(folder / "nx.h5", FRAMES)),
    "any datasets": lambda folder: files(
        (write_datasets(folder / "any.h5"), "a/dark"), (folder / "any.h5", "a/flat")
    ),
    "means": lambda folder: files(
        (write_datasets(folder / "any.h5"), "mean/dark"), (folder / "any.h5", "mean/flat")
    ),
    "TIFF files": lambda folder: files(
        write_tiff_folder(folder / "tiff", FRAMES) / "darks/dark *.tif",
        folder / "tiff/flat-*.tiff",
    ),
    "TIFF stacks": lambda folder: files(
        write_stack(folder / "darks.tif", FRAMES.darks),
        write_stack(folder / "flats.tif", FRAMES.flats),
    ),
    "by a start key": lambda folder: files(
        write_data_exchange(folder / "dx.h5", FRAMES).parent / "{name}.h5"
    ),
}


def write_stack(path, frames):
    tifffile.imwrite(path, frames, photometric="minisblack")
    return path


def read(config, has_own=False, **start):
    return ReferenceRuns(config, lambda uid: None).elsewhere({"uid": "u", **start}, has_own)


@pytest.mark.parametrize("case", PLACES)
def test_references_are_read_from_files(case, tmp_path):
    config = ScanConfig(reference_files=PLACES[case](tmp_path), allowed_roots=(tmp_path,))
    references, source = read(config, name="dx")
    np.testing.assert_array_equal(references.dark, mean_frame(FRAMES.darks))
    np.testing.assert_array_equal(references.flats, mean_frame(FRAMES.flats)[None])
    assert str(tmp_path) in source["dark_flat_files"][0]


def test_a_scan_without_its_own_is_corrected_with_those_in_files(tmp_path):
    stored = PLACES["Data Exchange"](tmp_path)
    plain = scan_documents(darks=0, flats=0)
    corrected, start = reconstructed(plain, reference_files=stored)
    assert "dark_flat_run" not in start
    assert start["dark_flat_files"] == [str(tmp_path / "dx.h5")] * 2

    def with_those_of_the_file(name, doc):
        if name == "event" and "rotation" not in doc["data"]:
            kind = "darks" if doc["data"]["camera"][0, 0] < 1000 else "flats"
            doc["data"]["camera"] = getattr(FRAMES, kind)[doc["seq_num"] - 1]
        return doc

    recorded = scan_documents(darks=3, flats=5, edit=with_those_of_the_file)
    np.testing.assert_array_equal(corrected, reconstructed(recorded)[0])
    # A scan's own darks and flats come first.
    own, start = reconstructed(recorded, reference_files=files(tmp_path / "nowhere.h5"))
    assert start["dark_flat_run"] == recorded[0][1]["uid"]
    np.testing.assert_array_equal(corrected, own)


def test_files_are_read_once_until_they_change(tmp_path):
    path = write_data_exchange(tmp_path / "dx.h5", FRAMES)
    runs = ReferenceRuns(ScanConfig(reference_files=files(path)), lambda uid: None)
    first, _ = runs.elsewhere({"uid": "u"}, False)
    assert runs.elsewhere({"uid": "v"}, False)[0] is first
    os.utime(path, ns=(0, 0))
    assert runs.elsewhere({"uid": "w"}, False)[0] is not first


def test_what_is_in_the_files_makes_another_derivation_and_not_where_they_are(tmp_path):
    def derivation(path):
        return reconstructed(docs, reference_files=files(path))[1]["derivation"]

    docs = scan_documents(darks=0, flats=0)
    path = write_data_exchange(tmp_path / "dx.h5", FRAMES)
    first = derivation(path)
    assert derivation(shutil.copy(path, tmp_path / "moved.h5")) == first
    with h5py.File(path, "r+") as file:
        file["exchange/data_white"][0] += 1
    assert derivation(path) != first
    # To a scan with darks and flats of its own the files are nothing.
    docs = scan_documents()
    assert derivation(path) == derivation(tmp_path / "moved.h5")


@pytest.mark.parametrize("later", ["its own", "a file that was written again"])
def test_what_previews_were_made_with_may_not_be_what_counts_in_the_end(later, tmp_path, catalog):
    """Then their run ends without slices, and the final version is the one that a replay finds."""
    path = write_data_exchange(tmp_path / "dx.h5", FRAMES)
    docs = scan_documents(md={"num_points": ANGLES})
    if later == "its own":
        projections = next(i for i, (_, doc) in enumerate(docs) if doc.get("name") == "primary")
        docs = [docs[0], *docs[projections:-1], *docs[1:projections], docs[-1]]
    else:
        docs = scan_documents(darks=0, flats=0, md={"num_points": ANGLES})
    options = {
        "model": None,
        "scan": ScanConfig(reference_files=files(path)),
        "reconstruction": ReconstructionConfig(rotation_centre=(COLUMNS - 1) / 2),
        "worker": "thread",
    }
    client = catalog.client()
    live = LiveConfig(preview_every=8, preview_every_s=None)
    with TomoGANCallback(client, live=live, **options) as callback:
        for name, doc in docs[:-1]:
            callback(name, doc)
        callback.wait(300)
        if later != "its own":
            with h5py.File(path, "r+") as file:
                file["exchange/data_white"][0] += 1
        callback(*docs[-1])
        (report,) = callback.wait(300)
    assert report.exit_status == "success", report.reason
    assert report.n_previews >= 1
    assert "previews were made with" in report.reason
    previewed, final = derived_runs(client, docs[0][1])
    assert client[previewed].stop["exit_status"] == "abort"
    assert set(client[previewed].stop["num_events"]) == {"preview"}
    assert final == report.derived_uid
    assert set(client[final]) == {"primary"}
    with TomoGANCallback(client, live=LiveConfig(preview_every_s=None), **options) as callback:
        (again,) = replay(docs, callback)
    assert again.already_done
    assert again.derived_uid == final


def nan(path):
    with h5py.File(path, "w") as file:
        file["exchange/data_dark"] = np.full((1, 2, 2), np.nan)
    return path


def of_two_sizes(path):
    with h5py.File(path, "w") as file:
        file["exchange/data_dark"], file["exchange/data_white"] = (
            np.ones((1, 2, 2)),
            np.ones((3, 2)),
        )
    return path


def text(path):
    path.write_text("neither")
    return path


def linked(path):
    """Leads to a file outside the allowed roots."""
    outside = write_data_exchange(path.parent.with_name("outside.h5"), FRAMES)
    with h5py.File(path, "w") as file:
        file["exchange/data_dark"] = h5py.ExternalLink(str(outside), "exchange/data_dark")
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path, r"got no such file; see scan\.reference_files"),
        (lambda path: path.with_name("{nowhere}.h5"), r"start key 'nowhere'.*metadata"),
        (lambda path: path.parent / "../else.h5", r"scan\.allowed_roots"),
        (text, r"an HDF5 or a TIFF file"),
        (lambda path: (write_datasets(path), None), r"got /a/dark.*scan\.reference_files"),
        (lambda path: (write_datasets(path), "a/drak"), r"a/drak, got /a/dark"),
        (nan, r"finite numbers, got float64 with NaN"),
        (of_two_sizes, r"of one size, got \(2, 2\) in .* and \(3, 2\)"),
        (linked, r"scan\.allowed_roots"),
    ],
)
def test_files_that_hold_no_references_are_an_error_that_says_why(make, message, tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    config = ScanConfig(reference_files=files(make(inside / "file.h5")), allowed_roots=(inside,))
    with pytest.raises(IntakeError) as caught:
        read(config)
    assert re.search(message, str(caught.value)), caught.value


def test_references_of_another_size_than_the_projections_are_an_error(tmp_path):
    with h5py.File(tmp_path / "dx.h5", "w") as file:
        file["exchange/data_dark"] = file["exchange/data_white"] = np.ones((2, 4, 5))
    with TomoGANCallback(
        lambda *item: None,
        None,
        scan=ScanConfig(reference_files=files(tmp_path / "dx.h5")),
        worker="thread",
    ) as callback:
        for name, doc in scan_documents(darks=0, flats=0):
            callback(name, doc)
        (report,) = callback.wait(60)
    assert report.exit_status == "fail"
    assert "3 x 32 pixels, as the projections have, got 4 x 5" in report.reason
