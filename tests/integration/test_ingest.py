"""`ingest`: a scan in files becomes a raw run whose images stay where they are."""

import json
import os
import shutil

import event_model
import h5py
import numpy as np
import pytest
from scan_files import (
    IN_A_ROW,
    SCATTERED,
    Frames,
    write_data_exchange,
    write_nxtomo,
    write_tiff_folder,
)

from tomogan_bluesky import TomoGANCallback, replay
from tomogan_bluesky.cli import main
from tomogan_bluesky.config import PublishingConfig
from tomogan_bluesky.publish.catalog import find_run

DATASETS = {"primary": "data", "flat": "data_white", "dark": "data_dark"}


@pytest.fixture
def ingest(catalog, capsys):
    def ingest(path):
        code = main(["ingest", str(path), "--catalog", str(catalog.directory), "--json"])
        told = capsys.readouterr()
        assert code == 0, told.err
        return json.loads(told.out)

    return ingest


@pytest.fixture
def scan_file(tmp_path):
    path = tmp_path / "scan.h5"
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for name, count in {"data": 7, "data_white": 3, "data_dark": 2}.items():
            file[f"exchange/{name}"] = rng.integers(0, 4096, (count, 2, 5), dtype=np.uint16)
        file["exchange/theta"] = np.linspace(0, 180, 7)
    return path


def assert_reads_back(client, uid, path):
    run = client[uid]
    with h5py.File(path) as file:
        for stream, name in DATASETS.items():
            image = run[stream]["image"]
            expected = file[f"exchange/{name}"]
            assert image.shape == expected.shape
            assert image.dtype == expected.dtype
            np.testing.assert_array_equal(image.read(), expected)
        rotation = run["primary"]["rotation"].read()
        np.testing.assert_array_equal(rotation, file["exchange/theta"])
    assert run["primary"].metadata["data_keys"]["rotation"]["units"] == "deg"
    for name, doc in run.documents():
        event_model.schema_validators[event_model.DocumentNames[name]].validate(doc)


def test_a_real_scan_reads_back(client, ingest, shared_data):
    path = shared_data("tooth.h5")
    told = ingest(path)
    assert told["frames"] == {"primary": 181, "flat": 10, "dark": 10}
    assert client[told["uid"]]["primary"]["image"].shape == (181, 2, 640)
    assert client[told["uid"]].metadata["start"]["sample"] == {"name": "Tooth"}
    assert_reads_back(client, told["uid"], path)


def test_a_file_is_ingested_once(client, ingest, scan_file):
    first = ingest(scan_file)
    assert not first["was_there"]
    assert_reads_back(client, first["uid"], scan_file)
    n_runs = len(client)
    assert ingest(scan_file) == {**first, "was_there": True}
    assert len(client) == n_runs
    os.utime(scan_file, (1e9, 1e9))
    other = ingest(scan_file)
    assert (other["uid"] == first["uid"], other["scan_id"]) == (False, first["scan_id"] + 1)
    assert find_run(client, "-1").metadata["start"]["uid"] == other["uid"]


def test_an_ingest_that_was_cut_off_is_made_good(client, ingest, scan_file):
    uid = ingest(scan_file)["uid"]
    metadata = {"start": dict(client[uid].metadata["start"])}
    client[uid].delete(recursive=True, external_only=False)
    client.create_container(key=uid, metadata=metadata, specs=client.values().last().specs)
    told = ingest(scan_file)
    assert (told["uid"], told["was_there"]) == (uid, False)
    assert_reads_back(client, uid, scan_file)


def test_a_file_that_is_no_scan_is_refused(catalog, client, tmp_path, capsys):
    n_runs = len(client)
    (tmp_path / "notes.h5").write_text("no scan")
    arguments = ["ingest", str(tmp_path / "notes.h5"), "--catalog", str(catalog.directory)]
    assert main(arguments) == 1
    assert "got: no HDF5 file that can be read" in capsys.readouterr().err
    assert len(client) == n_runs


def test_the_result_is_told_to_people(catalog, capsys, scan_file, tmp_path):
    shutil.copy(scan_file, tmp_path / "copy.h5")
    for _ in range(2):
        main(["ingest", str(tmp_path / "copy.h5"), "--catalog", str(catalog.directory)])
    told = capsys.readouterr().out
    assert told.count("7 projections, 3 flats, 2 darks, of 2 rows and 5 columns") == 2
    assert told.count("was there already") == 1


@pytest.fixture
def volume_of(client, tmp_path):
    """The reconstruction of an ingested run, as replay gives it."""

    def volume_of(uid):
        publishing = PublishingConfig(directory=tmp_path)
        with TomoGANCallback([], None, publishing=publishing, worker="thread") as callback:
            (report,) = replay(client[uid], callback)
        assert (report.exit_status, report.reason) == ("success", "")
        assert report.frames.used == report.frames.expected == 37
        with h5py.File(report.volume_path) as file:
            return file["entry/data/reconstruction"][()]

    return volume_of


def test_files_of_all_kinds_give_the_same_bits(client, ingest, volume_of, tmp_path):
    frames = Frames()
    paths = [
        write_data_exchange(tmp_path / "exchange.h5", frames),
        write_nxtomo(tmp_path / "in_a_row.nxs", frames, IN_A_ROW),
        write_nxtomo(tmp_path / "scattered.nxs", frames, SCATTERED),
        write_tiff_folder(tmp_path / "tiffs", frames),
    ]
    volumes = []
    for path in paths:
        told = ingest(path)
        assert told["frames"] == {"primary": 37, "flat": 5, "dark": 3}
        run = client[told["uid"]]
        for stream in told["frames"]:
            image = run[stream]["image"]
            assert image.dtype == np.uint16
            np.testing.assert_array_equal(image.read(), frames.of(stream))
            np.testing.assert_array_equal(image[1:3, 1], frames.of(stream)[1:3, 1])
        np.testing.assert_array_equal(run["primary"]["rotation"].read(), frames.angles_deg)
        for name, doc in run.documents():
            event_model.schema_validators[event_model.DocumentNames[name]].validate(doc)
        volumes.append(volume_of(told["uid"]))
    assert np.isfinite(volumes[0]).all()
    assert volumes[0].std() > 0
    for volume in volumes[1:]:
        np.testing.assert_array_equal(volume, volumes[0])
