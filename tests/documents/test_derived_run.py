"""The documents of a derived run: their order, their schemas, what they say."""

import json
from uuid import UUID

import event_model
import h5py
import numpy as np
import pytest

from tomogan_bluesky.config import PER_PIXEL, PublishingConfig, Scale
from tomogan_bluesky.errors import ConfigurationError, PublishError
from tomogan_bluesky.publish.documents import DerivedRun
from tomogan_bluesky.publish.identity import derivation_of, derived_uid, is_derived, volume_path

SHAPE = (5, 4, 6)
RAW = {"uid": "raw", "time": 1.0, "scan_id": 7, "sample": {"name": "tooth"}, "owner": None}
DERIVATION = derivation_of("raw", "settings", "model")
ACCOUNT = {"expected": 9, "used": 6, "superseded": 1, "missing": 1, "rejected": {"NaN, 1.5": 1}}
QUANTITIES = ("reconstruction", "denoised")


@pytest.fixture
def published():
    return []


@pytest.fixture
def make(published):
    def make(raw=RAW, attempt=1, metadata=None, scale=PER_PIXEL, **config):
        def emit(name, doc):
            event_model.schema_validators[event_model.DocumentNames[name]].validate(doc)
            published.append((name, doc))

        return DerivedRun(
            emit,
            raw,
            derivation=DERIVATION,
            attempt=attempt,
            metadata=metadata or {},
            config=PublishingConfig(**config),
            scale=scale,
        )

    return make


def volumes(seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=SHAPE).astype("f4") for name in QUANTITIES}


def write(run, stored, first, last):
    run.write_slab(
        first,
        {name: volume[first:last] for name, volume in stored.items()},
        {"detector_row": [10 + i for i in range(first, last)], "seconds": [0.5] * (last - first)},
    )


def whole(run):
    run.start()
    run.open_volume(SHAPE, QUANTITIES, scalars=("detector_row", "seconds"))
    for first, last in ((0, 2), (2, 4), (4, 5)):
        write(run, volumes(), first, last)
    run.stop("success", "", ACCOUNT)


def names(published):
    return [name for name, _ in published]


def only(published, name):
    (doc,) = (doc for n, doc in published if n == name)
    return doc


def test_other_units_are_reached_and_said_in_events_and_in_the_file(make, published, tmp_path):
    for config in ({}, {"directory": tmp_path}):
        published.clear()
        run = make(scale=Scale("1/cm", 1e4 / 0.65), **config)
        whole(run)
        keys = only(published, "descriptor")["data_keys"]
        assert {keys[quantity]["units"] for quantity in QUANTITIES} == {"1/cm"}
        if not config:
            slices = [d["data"]["denoised"] for n, d in published if n == "event"]
            np.testing.assert_allclose(slices, volumes()["denoised"] * 1e4 / 0.65, rtol=1e-6)
    with h5py.File(run.volume_path) as file:
        dataset = file["entry/data/denoised"]
        assert dataset.attrs["units"] == "1/cm"
        np.testing.assert_allclose(dataset, volumes()["denoised"] * 1e4 / 0.65, rtol=1e-6)


SLAB = ["stream_datum", "stream_datum", "event_page"]
OPENING = ["descriptor", "stream_resource", "stream_resource"]


def test_each_slab_is_announced_when_it_is_in_the_file(make, published, tmp_path):
    run = make(directory=tmp_path)
    run.start()
    run.open_volume(SHAPE, QUANTITIES, scalars=("detector_row", "seconds"))
    assert names(published) == ["start"]
    write(run, volumes(), 0, 2)
    assert names(published) == ["start", *OPENING, *SLAB]
    with h5py.File(run.volume_path, libver="latest", swmr=True) as file:
        np.testing.assert_array_equal(file["entry/data/denoised"], volumes()["denoised"][:2])
    write(run, volumes(), 2, 5)
    assert names(published) == ["start", *OPENING, *SLAB, *SLAB]
    run.stop("success", "", ACCOUNT)
    assert names(published)[-1] == "stop"


def test_announced_at_the_end_means_after_the_file_is_closed(make, published, tmp_path):
    run = make(directory=tmp_path, announce="at_end")
    run.start()
    run.open_volume(SHAPE, QUANTITIES, scalars=("detector_row", "seconds"))
    write(run, volumes(), 0, 2)
    write(run, volumes(), 2, 5)
    assert names(published) == ["start"]
    run.stop("success", "", ACCOUNT)
    assert names(published) == ["start", *OPENING, *SLAB, *SLAB, "stop"]
    with h5py.File(run.volume_path) as file:
        np.testing.assert_array_equal(file["entry/data/denoised"], volumes()["denoised"])


@pytest.mark.parametrize("announce", ["live", "at_end"])
def test_how_slabs_are_announced_changes_nothing_else(make, published, tmp_path, announce):
    whole(make(directory=tmp_path, announce=announce))
    ranges = {}
    for name, doc in published:
        if name == "stream_datum":
            ranges.setdefault(doc["stream_resource"], []).append(doc["indices"])
            assert doc["seq_nums"] == {key: n + 1 for key, n in doc["indices"].items()}
    expected = [{"start": 0, "stop": 2}, {"start": 2, "stop": 4}, {"start": 4, "stop": 5}]
    assert list(ranges.values()) == [expected, expected]
    pages = [doc for name, doc in published if name == "event_page"]
    assert [n for page in pages for n in page["seq_num"]] == [1, 2, 3, 4, 5]
    assert [n for page in pages for n in page["data"]["slice_index"]] == [0, 1, 2, 3, 4]
    assert [n for page in pages for n in page["data"]["detector_row"]] == [10, 11, 12, 13, 14]
    assert only(published, "stop")["num_events"] == {"primary": 5}


def test_without_a_directory_the_slices_are_in_the_events(make, published):
    run = make(announce="at_end")  # nothing to wait for: there is no file
    run.start()
    run.open_volume(SHAPE, QUANTITIES, scalars=("detector_row", "seconds"))
    write(run, volumes(), 0, 2)
    assert names(published) == ["start", "descriptor", "event", "event"]
    write(run, volumes(), 2, 5)
    run.stop("success", "", ACCOUNT)
    assert run.volume_path is None
    assert names(published) == ["start", "descriptor", *["event"] * 5, "stop"]
    for i, doc in enumerate(doc for name, doc in published if name == "event"):
        assert doc["seq_num"] == i + 1
        np.testing.assert_array_equal(doc["data"]["denoised"], volumes()["denoised"][i])
    assert "external" not in only(published, "descriptor")["data_keys"]["denoised"]


def test_the_start_document_leads_to_the_raw_run_and_back(make, published):
    make(metadata={"rotation_centre": 3.5, "card": {"a.b/c": 1}, "model": None}).start()
    start = only(published, "start")
    assert start["original_run_uid"] == "raw"
    assert start["derived_from"] == ["raw"]
    assert start["derivation"] == DERIVATION
    assert start["attempt"] == 1
    assert start["sample"] == {"name": "tooth"}
    assert start["raw_scan_id"] == 7
    assert "scan_id" not in start
    assert start["rotation_centre"] == 3.5
    assert json.loads(start["card"]) == {"a.b/c": 1}
    assert not {"model", "owner"} & set(start)
    assert is_derived(start)
    assert not is_derived(RAW)


def test_access_tags_travel_with_the_data(make, published):
    make(raw={**RAW, "tiled_access_tags": ["group-7"]}).start()
    assert only(published, "start")["tiled_access_tags"] == ["group-7"]


def test_data_keys_say_type_shape_and_units(make, published, tmp_path):
    whole(make(directory=tmp_path))
    keys = only(published, "descriptor")["data_keys"]
    assert set(keys) == {*QUANTITIES, "slice_index", "detector_row", "seconds"}
    for quantity in QUANTITIES:
        assert keys[quantity]["dtype_numpy"] == "<f4"
        assert keys[quantity]["shape"] == [4, 6]
        assert keys[quantity]["units"] == "1/pixel"
        assert keys[quantity]["external"] == "STREAM:"
    assert keys["detector_row"]["dtype"] == "integer"
    assert keys["seconds"]["dtype"] == "number"


def test_the_stop_document_accounts_for_every_frame(make, published):
    run = make()
    run.start()
    run.stop("abort", "cut off", ACCOUNT)
    stop = only(published, "stop")
    assert (stop["exit_status"], stop["reason"]) == ("abort", "cut off")
    assert stop["tomogan_frames"] == {
        "expected": 9,
        "used": 6,
        "superseded": 1,
        "missing": 1,
        "rejected": [{"reason": "NaN, 1.5", "frames": 1}],
    }


def test_a_scan_that_fails_is_a_start_and_a_stop(make, published, tmp_path):
    run = make(directory=tmp_path)
    run.start()
    run.stop("fail", "no flats", ACCOUNT)
    assert names(published) == ["start", "stop"]
    assert list(tmp_path.iterdir()) == []


def test_the_same_settings_give_the_same_uids_and_others_do_not():
    assert derivation_of("raw", "settings", "model") == DERIVATION
    others = {
        derivation_of("raw", "settings", "none"),
        derivation_of("raw", "model", "settings"),
        derivation_of("raw2", "settings", "model"),
        derivation_of("ra", "wsettings", "model"),
    }
    assert len(others | {DERIVATION}) == 5
    assert len({derived_uid(DERIVATION, n) for n in range(1, 9)}) == 8
    assert UUID(derived_uid(DERIVATION, 1)).version == 5


def test_documents_out_of_turn_are_refused(make, tmp_path):
    run = make(directory=tmp_path)
    slab = {name: volume[:1] for name, volume in volumes().items()}
    with pytest.raises(PublishError, match="one open_volume between start and stop"):
        run.open_volume(SHAPE, QUANTITIES)
    with pytest.raises(PublishError, match="one stop, after the start"):
        run.stop("success", "", {})
    run.start()
    with pytest.raises(PublishError, match="second one"):
        run.start()
    with pytest.raises(PublishError, match="between open_volume and stop"):
        run.write_slab(0, slab, {})
    run.open_volume(SHAPE, QUANTITIES)
    with pytest.raises(PublishError, match="one open_volume"):
        run.open_volume(SHAPE, QUANTITIES)
    run.stop("fail", "", {})
    with pytest.raises(PublishError, match="one stop, after the start"):
        run.stop("fail", "", {})
    with pytest.raises(PublishError, match="between open_volume and stop"):
        run.write_slab(0, slab, {})


@pytest.mark.parametrize("directory", [True, False])
def test_slabs_come_in_row_order_with_their_scalars(make, published, tmp_path, directory):
    run = make(directory=tmp_path if directory else None)
    run.start()
    run.open_volume(SHAPE, QUANTITIES, scalars=("detector_row",))
    slab = {name: volume[:2] for name, volume in volumes().items()}
    with pytest.raises(PublishError, match="starts at slice 0, got one at slice 2"):
        run.write_slab(2, slab, {"detector_row": [1, 2]})
    for scalars in ({}, {"detector_row": [1]}, {"detector_row": [1, 2], "more": [1, 2]}):
        with pytest.raises(PublishError, match="expected 2 values of each of detector_row"):
            run.write_slab(0, slab, scalars)
    assert names(published) == ["start"]
    run.write_slab(0, slab, {"detector_row": np.array([1, 2])})
    assert names(published)[-1] == ("event_page" if directory else "event")


def test_a_file_that_cannot_be_closed_makes_the_run_fail(make, published, tmp_path, monkeypatch):
    run = make(directory=tmp_path, announce="at_end")
    run.start()
    run.open_volume(SHAPE, QUANTITIES, scalars=("detector_row", "seconds"))
    write(run, volumes(), 0, 5)
    close = h5py.File.close

    def close_on_a_full_disk(file):
        close(file)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(h5py.File, "close", close_on_a_full_disk)
    with pytest.raises(PublishError, match="could not close .*No space left"):
        run.stop("success", "", ACCOUNT)
    assert names(published) == ["start", "stop"]
    assert only(published, "stop")["exit_status"] == "fail"
    assert "No space left" in only(published, "stop")["reason"]


def test_the_file_says_whose_it_is(make, tmp_path):
    run = make(directory=tmp_path)
    whole(run)
    assert run.volume_path == volume_path(tmp_path, run.uid)
    with h5py.File(run.volume_path) as file:
        assert file.attrs["derived_run_uid"] == run.uid
        assert file.attrs["raw_run_uid"] == "raw"


def test_a_folder_that_no_reader_could_find_is_refused(make, tmp_path):
    run = make(directory=tmp_path / "50% done")
    run.start()
    with pytest.raises(ConfigurationError, match="does not unescape, got %"):
        run.open_volume(SHAPE, QUANTITIES)
    assert list(tmp_path.iterdir()) == []
