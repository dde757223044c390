"""The callback on a real RunEngine with simulated devices, and with the documents of odd scans."""

import threading
from itertools import count

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import numpy as np
import pytest
import torch
from bluesky import RunEngine
from bluesky.preprocessors import plan_mutator
from bluesky.utils import RunEngineInterrupted
from event_model import DocumentNames, schema_validators
from generators import export_deep
from hypothesis import given, settings
from hypothesis import strategies as st
from ophyd.sim import SynGauss, motor
from scans import as_pages, disc_frames, scan_documents, slice_events

from tomogan_bluesky import PublishingConfig, ReconstructionConfig, ScanConfig, TomoGANCallback
from tomogan_bluesky.denoise.denoiser import TorchScriptDenoiser
from tomogan_bluesky.denoise.refiltered import refiltered
from tomogan_bluesky.errors import ReconstructionError
from tomogan_bluesky.pipeline.slabs import SlabPipeline
from tomogan_bluesky.recon.beam import Beam
from tomogan_bluesky.sim.beamline import SimBeamline
from tomogan_bluesky.sim.plans import tomo_scan

RECONSTRUCTION = ReconstructionConfig(slab_rows=2)
ANGLES_DEG = np.linspace(0.0, 180.0, 31)


def volume(docs, quantity="reconstruction"):
    """The slices of the derived runs in a list of documents."""
    return np.stack([doc["data"][quantity] for doc in slice_events(docs)])


def run_through(docs, **options):
    derived = []
    options.setdefault("reconstruction", RECONSTRUCTION)
    model = options.pop("model", None)
    with TomoGANCallback(
        lambda name, doc: derived.append((name, doc)), model, **options, worker="thread"
    ) as callback:
        for name, doc in docs:
            callback(name, doc)
        reports = callback.wait(60)
    return derived, reports


@pytest.fixture(scope="module")
def beamline():
    size = 32
    y, x = np.mgrid[:size, :size] / size * 2 - 1
    phantom = np.stack([((x - 0.2) ** 2 + y**2 < r**2).astype(np.float32) for r in (0.4, 0.5, 0.6)])
    return SimBeamline(phantom.repeat(2, 1).repeat(2, 2), ANGLES_DEG, Beam(), rotation_centre=16.2)


@pytest.fixture
def scan(beamline):
    return lambda **md: tomo_scan(
        beamline.camera,
        beamline.rotation,
        beamline.shutter,
        beamline.sample,
        ANGLES_DEG,
        n_darks=2,
        n_flats=2,
        md=md,
    )


def test_a_scan_on_a_run_engine_becomes_slices(beamline, scan):
    derived = []
    RE = RunEngine()
    with TomoGANCallback(
        lambda name, doc: derived.append((name, doc)),
        None,
        reconstruction=RECONSTRUCTION,
        worker="thread",
    ) as callback:
        RE.subscribe(callback)
        (raw_uid,) = RE(scan(sample={"name": "discs"}))
        (report,) = callback.wait(60)
    assert report.exit_status == "success", report.reason
    assert report.raw_uid == raw_uid
    assert report.frames.as_dict() == {
        "expected": 31,
        "used": 31,
        "superseded": 0,
        "missing": 0,
        "rejected": {},
    }
    assert report.rotation_centre == pytest.approx(16.2, abs=0.25)
    assert set(report.centre_methods) == {"pair", "wedge", "centroid"}
    assert report.centre_confidence > 0.5
    slices = volume(derived)
    assert slices.shape == beamline.truth.shape
    assert slices.dtype == np.float32
    inside = beamline.truth > 0.9 * beamline.truth.max()
    assert slices[inside].mean() == pytest.approx(beamline.truth.max(), rel=0.03)
    start = derived[0][1]
    assert start["original_run_uid"] == raw_uid
    assert start["sample"] == {"name": "discs"}
    for name, doc in derived:
        schema_validators[DocumentNames[name]].validate(doc)


def test_events_and_pages_of_any_split_give_the_same_bits():
    reference = volume(run_through(scan_documents())[0])

    @given(st.lists(st.integers(1, 50), min_size=1, max_size=9))
    @settings(max_examples=8, deadline=None)
    def check(sizes):
        np.testing.assert_array_equal(
            volume(run_through(as_pages(scan_documents(), sizes))[0]), reference
        )

    check()


@pytest.mark.parametrize("slab_rows", [1, 3, 8])
def test_the_size_of_slabs_changes_no_bit(slab_rows):
    config = ReconstructionConfig(slab_rows=slab_rows)
    np.testing.assert_array_equal(
        volume(run_through(scan_documents(), reconstruction=config)[0]),
        volume(run_through(scan_documents())[0]),
    )


@pytest.mark.parametrize("slab_rows", [1, 2, 8])
def test_adjacent_slices_are_seen_across_slabs(slab_rows, tmp_path):
    """A model of several slices: each slab waits for the next one, and no bit depends on it."""
    model = export_deep(tmp_path / "deep.ts", depth=3)
    config = ReconstructionConfig(slab_rows=slab_rows)
    docs, (report,) = run_through(scan_documents(), model=model, reconstruction=config)
    assert (report.exit_status, report.n_slices, report.n_failed_slices) == ("success", 3, 0)
    rows = [doc["data"]["detector_row"] for doc in slice_events(docs)]
    assert rows == [0, 1, 2]
    slices = torch.from_numpy(volume(docs))
    np.testing.assert_array_equal(volume(docs, "denoised"), TorchScriptDenoiser(model)(slices))


def test_a_slab_that_fails_is_the_end_of_the_volume_for_its_neighbours(tmp_path, monkeypatch):
    reconstruct, numbers = SlabPipeline.reconstruct, count()

    def fail_second(self, attenuation):
        if next(numbers) == 1:
            raise ReconstructionError("this slab is broken")
        return reconstruct(self, attenuation)

    monkeypatch.setattr(SlabPipeline, "reconstruct", fail_second)
    model = export_deep(tmp_path / "deep.ts", depth=3)
    config = ReconstructionConfig(slab_rows=1)
    docs, (report,) = run_through(scan_documents(), model=model, reconstruction=config)
    assert (report.n_slices, report.n_failed_slices) == (3, 1)
    slices, denoised = volume(docs), volume(docs, "denoised")
    assert np.isnan(denoised[1]).all()
    denoiser = TorchScriptDenoiser(model)
    for i in (0, 2):
        alone = torch.from_numpy(slices[i : i + 1])
        np.testing.assert_array_equal(denoised[i : i + 1], denoiser(alone))


def test_rows_are_a_part_of_the_whole():
    some = volume(run_through(scan_documents(), scan=ScanConfig(rows=(1, 3)))[0])
    np.testing.assert_array_equal(some, volume(run_through(scan_documents())[0])[1:3])


def test_a_paused_and_rewound_scan_gives_the_slices_of_an_undisturbed_one(scan):
    """A real pause: what was taken since the checkpoint is taken again under the same number."""
    raw, saved = [], count(1)

    def pause_after_the_tenth_point(message):
        if message.command == "save" and next(saved) == 10:
            return None, bps.pause()
        return None, None

    RE = RunEngine()
    RE.subscribe(lambda name, doc: raw.append((name, doc)))
    with pytest.raises(RunEngineInterrupted):
        RE(plan_mutator(scan(), pause_after_the_tenth_point))
    RE.resume()
    last = {(doc["descriptor"], doc["seq_num"]): doc["uid"] for n, doc in raw if n == "event"}
    undisturbed = [(n, doc) for n, doc in raw if n != "event" or doc["uid"] in last.values()]
    n_again = len(raw) - len(undisturbed)
    assert n_again > 0, "the pause rewound nothing; this test tests nothing"

    derived, (report,) = run_through(raw)
    assert report.frames.as_dict() == {
        "expected": 31 + n_again,
        "used": 31,
        "superseded": n_again,
        "missing": 0,
        "rejected": {},
    }
    np.testing.assert_array_equal(volume(derived), volume(run_through(undisturbed)[0]))


def test_interleaved_runs_are_kept_apart():
    one, two = scan_documents(), scan_documents(frames=disc_frames() // 2 + 100)
    mixed = [item for pair in zip(one, two, strict=True) for item in pair]
    derived, reports = run_through(mixed)
    assert [r.raw_uid for r in reports] == [one[0][1]["uid"], two[0][1]["uid"]]
    np.testing.assert_array_equal(
        volume(derived), np.concatenate([volume(run_through(d)[0]) for d in (one, two)])
    )


def test_runs_of_other_kinds_are_left_alone(scan):
    derived = []
    RE = RunEngine()
    detector = SynGauss("detector", motor, "motor", center=0, Imax=1)
    with TomoGANCallback(
        lambda name, doc: derived.append((name, doc)),
        None,
        reconstruction=RECONSTRUCTION,
        worker="thread",
    ) as callback:
        RE.subscribe(callback)
        RE(bp.scan([detector], motor, -1, 1, 5))
        assert callback.wait(60) == []
        RE(scan())
        assert [r.exit_status for r in callback.wait(60)] == ["success"]
    assert [name for name, _ in derived].count("start") == 1


def test_a_run_whose_images_are_called_otherwise_is_left_alone_and_remarked_on(caplog):
    docs = scan_documents()
    assert run_through(docs, scan=ScanConfig(image_key="camra")) == ([], [])
    assert "under the data key 'camra', as scan.image_key says, got camera" in caplog.text


def test_our_own_runs_are_never_processed():
    derived, _ = run_through(scan_documents())
    assert run_through(derived) == ([], [])
    # Not even one that is a complete scan by itself, as another analysis may publish.
    assert run_through(scan_documents(md={"original_run_uid": "raw"})) == ([], [])


def test_a_late_subscription_leaves_the_run_alone():
    assert run_through(scan_documents()[1:]) == ([], [])


def test_derived_uid_is_the_same_for_the_same_run_and_settings():
    docs = scan_documents()
    uids = [run_through(docs)[1][0].derived_uid for _ in range(2)]
    other = run_through(docs, reconstruction=ReconstructionConfig(filter="shepp"))[1][0].derived_uid
    assert uids[0] == uids[1] != other


def test_slices_of_a_smoother_filter_are_denoised_as_the_model_knows_them(tmp_path):
    model = export_deep(tmp_path / "model.ts")
    config = RECONSTRUCTION.model_copy(update={"filter": "hann"})
    derived, (report,) = run_through(scan_documents(), reconstruction=config, model=model)
    assert "trained on" not in report.reason
    slices = torch.from_numpy(volume(derived))
    denoiser = refiltered(TorchScriptDenoiser(model), config)
    np.testing.assert_allclose(volume(derived, "denoised"), denoiser(slices), rtol=1e-5, atol=1e-8)
    unaware = TorchScriptDenoiser(model)(slices).numpy()
    assert not np.allclose(volume(derived, "denoised"), unaware, rtol=1e-2)


def test_close_leaves_no_thread_and_later_documents_are_ignored():
    callback = TomoGANCallback(lambda name, doc: None, None, worker="thread")
    for name, doc in scan_documents():
        callback(name, doc)
    callback.close(60)
    assert not [t for t in threading.enumerate() if t.name.startswith("tomogan-")]
    callback("start", {"uid": "late"})
    assert len(callback.wait(1)) == 1


def test_slices_are_published_in_the_units_that_are_asked_for():
    docs = scan_documents(md={"pixel_um": 2.0})
    derived, _ = run_through(docs)
    per_pixel = volume(derived)
    per_cm = PublishingConfig(units="1/cm", pixel_size_um_key="pixel_um")
    derived, (report,) = run_through(docs, publishing=per_cm)
    assert report.exit_status == "success"
    np.testing.assert_allclose(volume(derived), per_pixel * 5000, rtol=1e-6)
    (descriptor,) = (doc for name, doc in derived if name == "descriptor")
    assert descriptor["data_keys"]["reconstruction"]["units"] == "1/cm"
    _, (report,) = run_through(scan_documents(), publishing=per_cm)
    assert report.exit_status == "fail"
    assert "start key 'pixel_um'" in report.reason
