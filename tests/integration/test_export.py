"""`export`: the slices of a derived run for other programs."""

import json
from uuid import uuid4

import h5py
import numpy as np
import pytest
import tifffile

from tomogan_bluesky.cli import main
from tomogan_bluesky.config import PublishingConfig
from tomogan_bluesky.publish.documents import DerivedRun
from tomogan_bluesky.publish.identity import derivation_of
from tomogan_bluesky.publish.tiled_publisher import TiledPublisher

SHAPE = (3, 6, 8)


def volume(seed):
    return np.random.default_rng(seed).normal(size=SHAPE).astype("f4")


@pytest.fixture(scope="module")
def publish(catalog, client):
    """Publish a derived run of a raw run that is there."""

    def publish(raw, settings, seed=0, exit_status="success", directory=catalog.volumes):
        run = DerivedRun(
            TiledPublisher(client),
            raw,
            derivation=derivation_of(raw["uid"], settings, ""),
            attempt=1,
            metadata={},
            config=PublishingConfig(directory=directory),
        )
        run.start()
        if seed is not None:
            run.open_volume(SHAPE, ("reconstruction", "denoised"))
            slab = {"reconstruction": volume(seed), "denoised": volume(seed + 1)}
            run.write_slab(0, slab, {})
        run.stop(exit_status, "", {})
        return run.uid

    return publish


@pytest.fixture(scope="module")
def raw(client):
    """A raw run of which nothing was derived."""
    return make_raw(client)


def make_raw(client, **metadata):
    start = {"uid": str(uuid4()), "time": 1.0, "plan_name": "tomo_scan", **metadata}
    publisher = TiledPublisher(client)
    publisher("start", start)
    stop = {"uid": str(uuid4()), "time": 2.0, "run_start": start["uid"], "exit_status": "success"}
    publisher("stop", stop)
    return start


@pytest.fixture(scope="module")
def exported(client, publish):
    """A raw run with several derived ones: (raw uid, uid of the final one)."""
    start = make_raw(client, pixel_size_um=0.65)
    publish(start, "older", seed=10)
    final = publish(start, "newer", seed=20)
    publish(start, "failed", seed=None, exit_status="fail")
    return start["uid"], final


@pytest.fixture
def export(catalog, capsys, tmp_path):
    """Export into a folder of the test; what was printed."""

    def export(run, *options, code=0):
        target = ["--catalog", str(catalog.directory), "--to", str(tmp_path / "slices")]
        assert main(["export", run, *target, *options]) == code
        told = capsys.readouterr()
        return told.err if code else told.out

    return export


def test_a_raw_run_stands_for_its_newest_successful_derived_run(export, exported, tmp_path):
    raw_uid, final = exported
    told = json.loads(export(raw_uid, "--json"))
    assert (told["derived_run_uid"], told["raw_run_uid"]) == (final, raw_uid)
    assert told["files"] == [str(tmp_path / "slices" / f"denoised_000{i}.tif") for i in range(3)]
    for path, expected in zip(told["files"], volume(21), strict=True):
        with tifffile.TiffFile(path) as file:
            np.testing.assert_array_equal(file.asarray(), expected)
            assert file.asarray().dtype == np.float32
            assert file.imagej_metadata["unit"] == "um"
            pixels, micrometres = file.pages[0].tags["XResolution"].value
            assert micrometres / pixels == pytest.approx(0.65)
            assert f"derived_run_uid: {final}" in file.imagej_metadata["Info"]
            assert "units: 1/pixel" in file.imagej_metadata["Info"]


def test_hdf5_holds_all_slices_in_one_file(export, exported, tmp_path):
    _, final = exported
    told = export(final[:13], "--format", "hdf5", "--quantity", "reconstruction")
    assert f"derived run  {final}" in told
    assert "3 of 6 x 8, pixels of 0.65 µm" in told
    with h5py.File(tmp_path / "slices" / "reconstruction.h5") as file:
        dataset = file["entry/data/reconstruction"]
        np.testing.assert_array_equal(dataset, volume(20))
        assert dataset.dtype == np.float32
        assert dataset.attrs["units"] == "1/pixel"
        np.testing.assert_allclose(dataset.attrs["element_size_um"], 0.65)
        assert file.attrs["derived_run_uid"] == final


def test_slices_inside_events_are_exported_too(export, publish, client):
    start = make_raw(client)
    publish(start, "events", seed=30, directory=None)
    told = json.loads(export(start["uid"], "--json"))
    assert told["pixel_size_um"] is None
    stored = [tifffile.imread(path) for path in told["files"]]
    np.testing.assert_array_equal(stored, volume(31))


@pytest.mark.parametrize("options", [(), ("--format", "hdf5")])
def test_nothing_is_written_over_unless_asked(export, exported, tmp_path, options):
    raw_uid, _ = exported
    first = json.loads(export(raw_uid, "--json", *options))
    (name, *_) = first["files"]
    with open(name, "wb") as file:
        file.write(b"mine")
    assert "replace them with --overwrite" in export(raw_uid, *options, code=1)
    with open(name, "rb") as file:
        assert file.read() == b"mine"
    export(raw_uid, "--overwrite", *options)
    with open(name, "rb") as file:
        assert file.read(4) != b"mine"
    assert {str(path) for path in (tmp_path / "slices").iterdir()} == set(first["files"])


def test_what_cannot_be_exported_is_told(export, exported, publish, raw, tmp_path):
    raw_uid, final = exported
    assert "expected a successful derived run of it, got none" in export(raw["uid"], code=1)
    failed = publish(raw, "failed", seed=None, exit_status="fail")
    assert "got 1 that did not succeed" in export(raw["uid"], code=1)
    assert "got no slices at all" in export(failed, code=1)
    told = export(final, "--quantity", "uncertainty", code=1)
    assert "got reconstruction, denoised; name one with --quantity" in told
    (tmp_path / "slices").write_text("in the way")
    assert "expected a folder to write the slices to" in export(raw_uid, code=1)
