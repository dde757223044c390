"""The callback with its work in a process: the same documents and bits as with a thread."""

from functools import partial
from pathlib import Path

import flavours
import numpy as np
import pytest
from generators import NanDenoiser
from scans import as_pages, scan_documents, slice_events

from tomogan_bluesky import (
    LiveConfig,
    PublishingConfig,
    ReconstructionConfig,
    ScanConfig,
    TomoGANCallback,
    WorkerConfig,
    replay,
)
from tomogan_bluesky.errors import ConfigurationError
from tomogan_bluesky.publish.catalog import attempts
from tomogan_bluesky.publish.tiled_publisher import TiledPublisher
from tomogan_bluesky.torch_environment import TORCH_ENVIRONMENT

RECONSTRUCTION = ReconstructionConfig(slab_rows=2)
QUIET = LiveConfig(preview_every_s=None)  # whether there are previews depends on the time


class Shared:
    """A callback with a worker process, which takes seconds to start; what it published."""

    def __init__(self):
        self.derived, self.progress = [], []
        self.callback = TomoGANCallback(
            lambda name, doc: self.derived.append((name, doc)),
            reconstruction=RECONSTRUCTION,
            live=QUIET,
            worker="process",
            progress=lambda *args: self.progress.append(args),
        )
        self.run(scan_documents())

    def run(self, docs):
        self.derived.clear()
        self.progress.clear()
        for name, doc in docs:
            self.callback(name, doc)
        reports = self.callback.wait(120)
        return list(self.derived), reports


@pytest.fixture(scope="module")
def process():
    shared = Shared()
    with shared.callback:
        yield shared


def in_thread(docs):
    derived = []
    with TomoGANCallback(
        lambda name, doc: derived.append((name, doc)),
        reconstruction=RECONSTRUCTION,
        live=QUIET,
        worker="thread",
    ) as callback:
        for name, doc in docs:
            callback(name, doc)
        return derived, callback.wait(60)


def stable(value):
    """A document without what differs from one time to the next, and arrays as their bytes."""
    if isinstance(value, dict):
        return {k: stable(v) for k, v in value.items() if k not in _UNSTABLE}
    if isinstance(value, list | tuple):
        return [stable(v) for v in value]
    return (value.dtype.str, value.tobytes()) if isinstance(value, np.ndarray) else value


def untimed(report):
    return {k: v for k, v in report.as_dict().items() if k != "seconds" and not k.endswith("lag_s")}


_UNSTABLE = {"time", "timestamps", "descriptor", "uid", "run_start", "writer"}


@pytest.mark.parametrize("pages", [None, [1, 7]])
def test_a_process_gives_the_documents_and_the_bits_of_a_thread(process, pages):
    docs = scan_documents(md={"sample": {"name": "discs"}, "pixel_size_um": 1.5})
    docs = docs if pages is None else as_pages(docs, pages)
    there, (report,) = process.run(docs)
    here, (expected,) = in_thread(docs)
    assert stable(there) == stable(here)
    assert there[0][1]["uid"] == here[0][1]["uid"]
    assert report.seconds.keys() == expected.seconds.keys()
    assert untimed(report) == untimed(expected)
    assert process.progress == [(report.raw_uid, 2, 3), (report.raw_uid, 3, 3)]


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="the kernel is not Linux")
def test_torch_finds_its_environment_there(process):
    found = Path(f"/proc/{process.callback.worker_pid}/environ").read_text().split("\0")
    assert {f"{name}={value}" for name, value in TORCH_ENVIRONMENT.items()} <= set(found)


def test_metadata_of_any_kind_costs_no_scan(process, caplog):
    odd = {"where": Path("/data"), "numbers": np.arange(3), "level": np.float32(0.5), "set": {1}}
    _, (report,) = process.run(scan_documents(edit=partial(with_metadata, odd)))
    assert report.exit_status == "success"
    assert "got a PosixPath; its text is used" in caplog.text


def with_metadata(md, name, doc):
    return {**doc, **md} if name == "start" else doc


def test_a_document_that_cannot_be_told_costs_that_scan_alone(process):
    docs = scan_documents(edit=partial(with_metadata, {"odd": np.array([object()])}))
    _, (report,) = process.run(docs)
    assert report.exit_status == "fail"
    assert report.raw_uid == docs[0][1]["uid"]
    assert "dtype object" in report.reason
    assert "replay the run" in report.reason
    _, (report,) = process.run(scan_documents())
    assert report.exit_status == "success"


def test_a_callable_that_raises_fails_the_derived_run_alone(process, monkeypatch):
    class Full(list):
        def append(self, item):
            raise RuntimeError("no room here")

    with monkeypatch.context() as patch:
        patch.setattr(process, "derived", Full())
        _, (report,) = process.run(scan_documents())
    assert report.exit_status == "fail"
    assert "no room here" in report.reason
    _, (report,) = process.run(scan_documents())
    assert report.exit_status == "success"


def test_settings_and_models_arrive_as_they_are(process):
    derived, _ = process.run(scan_documents())
    expected, _ = in_thread(scan_documents())
    for key in ("configuration", "model_sha256", "model_card", "rotation_centre"):
        assert derived[0][1][key] == expected[0][1][key]


@pytest.mark.parametrize("flavour", ["area_detector", "async_step"])
def test_frames_in_files_and_replay_give_the_bits_of_a_thread(process, flavour, tmp_path, catalog):
    catalog.make_readable(tmp_path)
    client = catalog.client()
    docs = flavours.run(flavour, tmp_path, TiledPublisher(client))
    (uid,) = [doc["uid"] for name, doc in docs if name == "start"]
    expected, _ = in_thread(docs)
    live, (report,) = process.run(docs)
    assert report.exit_status == "success", report.reason
    assert slices(live) == slices(expected)
    process.derived.clear()
    (report,) = replay(client[uid], process.callback)  # the frames are read on this side
    assert report.exit_status == "success", report.reason
    assert slices(process.derived) == slices(expected)


def slices(docs):
    return [stable(doc["data"]) for doc in slice_events(docs)]


@pytest.mark.parametrize("targets", ["client", "address"])
def test_a_catalog_by_client_and_by_address_live_and_replayed(
    catalog, client, targets, tmp_path, monkeypatch
):
    """Darks and flats are in a run that only the catalog knows; the second time nothing is done."""
    monkeypatch.setenv("TILED_API_KEY", catalog.api_key)
    flats = scan_documents(frames=[], md={"about": targets})
    docs = scan_documents(darks=0, flats=0, md={"flats_in": flats[0][1]["uid"], "about": targets})
    publisher = TiledPublisher(client)
    for name, doc in [*flats, *docs]:
        publisher(name, doc)
    target = {"client": client, "address": catalog.uri}[targets]
    options = {
        "reconstruction": ReconstructionConfig(slab_rows=2, rotation_centre=15.5),
        "scan": ScanConfig(references_run_key="flats_in"),
        "publishing": PublishingConfig(directory=catalog.volumes),
    }
    with TomoGANCallback(target, None, worker="process", **options) as callback:
        (report,) = replay(client[docs[0][1]["uid"]], callback)
        assert report.exit_status == "success", report.reason
        for name, doc in docs:  # the same scan, live
            callback(name, doc)
        (again,) = callback.wait(120)
    assert again.already_done
    assert again.derived_uid == report.derived_uid
    derivation = client[report.derived_uid].metadata["start"]["derivation"]
    assert [a.exit_status for a in attempts(client, derivation)] == ["success"]
    expected = []
    with TomoGANCallback(
        [client, lambda name, doc: expected.append((name, doc))],
        None,
        worker="thread",
        again=True,
        **options | {"publishing": PublishingConfig()},
    ) as callback:
        for name, doc in [*flats, *docs]:
            callback(name, doc)
        callback.wait(60)
    slices = [doc["data"]["reconstruction"] for doc in slice_events(expected)]
    published = client[report.derived_uid]["primary"]["reconstruction"].read()
    np.testing.assert_array_equal(published, slices)


@pytest.mark.parametrize("kind", ["process", "thread"])
def test_a_detector_that_uses_its_buffer_again_is_copied_at_once(kind):
    buffer = np.empty((3, 32), np.uint16)
    docs = scan_documents()
    expected, _ = in_thread(docs)
    derived = []
    with TomoGANCallback(
        lambda *item: derived.append(item),
        reconstruction=RECONSTRUCTION,
        worker=WorkerConfig(kind=kind, copy_images=True),
    ) as callback:
        for name, doc in docs:
            if name == "event":
                buffer[:] = doc["data"]["camera"]
                doc = {**doc, "data": {**doc["data"], "camera": buffer}}
            callback(name, doc)
            buffer[:] = 0
        (report,) = callback.wait(120)
    assert report.exit_status == "success", report.reason
    assert stable(derived) == stable(expected)


def test_what_cannot_go_to_a_process_is_refused_with_the_way_out():
    with pytest.raises(ConfigurationError, match=r"NanDenoiser.*worker='thread'"):
        TomoGANCallback(lambda *item: None, NanDenoiser(), worker="process")
    with pytest.raises(ConfigurationError, match="'process', 'thread' or a WorkerConfig"):
        TomoGANCallback(lambda *item: None, worker="elsewhere")
    with pytest.raises(ConfigurationError, match="publish: expected"):
        TomoGANCallback(3, worker="process")
