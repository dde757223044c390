"""Slices and previews from what is reconstructed while a scan is taken."""

import re
import time

import event_model
import numpy as np
import pytest
import torch
from generators import export_deep, export_untrained
from scans import ANGLES, COLUMNS, disc_frames, scan_documents

from tomogan_bluesky import (
    LiveConfig,
    PreprocessingConfig,
    ReconstructionConfig,
    ScanConfig,
    TomoGANCallback,
    replay,
)
from tomogan_bluesky.denoise.denoiser import TorchScriptDenoiser
from tomogan_bluesky.denoise.refiltered import refiltered
from tomogan_bluesky.geometry import ScanGeometry
from tomogan_bluesky.publish.catalog import derived_runs
from tomogan_bluesky.recon.gridrec import Gridrec

CENTRE = 15.5
GIVEN = ReconstructionConfig(rotation_centre=CENTRE, slab_rows=2)
QUIET = LiveConfig(preview_every_s=None)
PROMISED = {"num_points": ANGLES}


def run_through(docs, *, pause_s=0.0, **options):
    derived = []
    options = {"reconstruction": GIVEN, "live": QUIET, **options}
    options = {"model": None, **options}
    with TomoGANCallback(
        lambda *item: derived.append(item), **options, worker="thread"
    ) as callback:
        for name, doc in docs:
            callback(name, doc)
            time.sleep(pause_s)
        (report,) = callback.wait(60)
    assert report.exit_status in ("success", "abort"), report.reason
    return derived, report


def stream(docs, name):
    """The events of a stream."""
    descriptors = {doc["uid"] for n, doc in docs if n == "descriptor" and doc["name"] == name}
    return [doc for n, doc in docs if n == "event" and doc["descriptor"] in descriptors]


def volume(docs):
    return np.stack([doc["data"]["reconstruction"] for doc in stream(docs, "primary")])


def check_same_as_batch(docs, **options):
    """The report of the live way, once its slices are found to be those of the whole scan."""
    derived, report = run_through(docs, **options)
    options["live"] = LiveConfig(incremental=False, preview_every_s=None)
    batch, other = run_through(docs, **options)
    assert not other.incremental
    np.testing.assert_array_equal(volume(derived), volume(batch))
    assert derived[0][1]["uid"] == batch[0][1]["uid"], "when slices are there decides no pixel"
    assert report.n_clamped == other.n_clamped
    return report


JITTERED = np.linspace(0, 180, ANGLES) + np.random.default_rng(0).uniform(-0.2, 0.2, ANGLES)
EARLY = {
    "both ends of the half turn": {},
    "without the last angle": {"angles_deg": np.arange(ANGLES) * 180 / ANGLES},
    "an encoder that jitters": {"angles_deg": JITTERED},
    "over a whole turn": {"angles_deg": np.arange(ANGLES) * 360 / ANGLES},
    "backwards": {"angles_deg": np.linspace(30, -150, ANGLES)},
}


@pytest.mark.parametrize("case", EARLY)
def test_slices_come_from_what_was_reconstructed_during_the_scan(case):
    report = check_same_as_batch(scan_documents(md=PROMISED, **EARLY[case]))
    assert report.incremental, report.why_batch


@pytest.mark.parametrize(
    "steps",
    [
        {"binning": 2},
        {"zinger_difference": 500.0},
        {"phase": {"pixel_size_um": 1.0, "distance_mm": 10.0, "energy_kev": 20.0}},
    ],
    ids=["binning", "zingers", "phase"],
)
def test_with_the_steps_that_take_one_projection_at_a_time(steps):
    config = ReconstructionConfig(
        rotation_centre=CENTRE, preprocessing=PreprocessingConfig(**steps)
    )
    report = check_same_as_batch(scan_documents(md=PROMISED), reconstruction=config)
    assert report.incremental, report.why_batch


def test_some_rows_alone():
    report = check_same_as_batch(scan_documents(md=PROMISED), scan=ScanConfig(rows=(1, 3)))
    assert report.incremental, report.why_batch


def taken_again(docs):
    """With the tenth projection once more in the end, which counts."""
    events = [doc for n, doc in docs if n == "event" and "rotation" in doc["data"]]
    again = {**events[9], "uid": "again", "time": events[-1]["time"] + 1}
    again["data"] = {**again["data"], "camera": again["data"]["camera"] // 2 + 60}
    return [*docs[:-1], ("event", again), docs[-1]]


def test_a_projection_that_is_taken_again_takes_the_place_of_the_first():
    docs = taken_again(scan_documents(md=PROMISED))
    report = check_same_as_batch(docs)
    assert report.incremental, report.why_batch
    assert report.frames.superseded == 1


def flats_last(docs):
    """Flats both before and after the projections."""
    flat = [item for item in docs if item[0] == "event"][2]
    later = {**flat[1], "uid": "later", "seq_num": 3, "time": docs[-2][1]["time"] + 1}
    later["data"] = {"camera": flat[1]["data"]["camera"] - 500}
    return [*docs[:-1], ("event", later), docs[-1]]


def references_last(docs):
    projections = next(i for i, (n, d) in enumerate(docs) if d.get("name") == "primary")
    return [docs[0], *docs[projections:-1], *docs[1:projections], docs[-1]]


GOLDEN_DEG = np.arange(ANGLES) * 90 * (np.sqrt(5) - 1) % 180
BATCH = {
    "no promise": (scan_documents(), {}, "does not say how many projections"),
    "centre unknown": (
        scan_documents(md=PROMISED),
        {"reconstruction": ReconstructionConfig()},
        "rotation centre is found from the whole scan",
    ),
    "stripes": (
        scan_documents(md=PROMISED),
        {
            "reconstruction": ReconstructionConfig(
                rotation_centre=CENTRE,
                preprocessing=PreprocessingConfig(stripes={"method": "sorting"}),
            )
        },
        "removing stripes.*whole sinograms",
    ),
    "another method": (
        scan_documents(md=PROMISED),
        {"reconstruction": ReconstructionConfig(rotation_centre=CENTRE, method="fbp")},
        "fbp of the torch backend takes whole sinograms",
    ),
    "flats after the scan, too": (
        flats_last(scan_documents(md=PROMISED)),
        {},
        "darks or flats came after",
    ),
    "references after the scan": (
        references_last(scan_documents(md=PROMISED)),
        {},
        "not known before the last projections",
    ),
    "angles by the golden ratio": (
        scan_documents(md=PROMISED, angles_deg=GOLDEN_DEG),
        {},
        "expected angles that are spaced as",
    ),
    "aborted": (
        scan_documents(md={"num_points": 2 * ANGLES}, exit_status="abort"),
        {},
        "74 projections were promised, and 37 can be used",
    ),
    "too many": (
        scan_documents(md={"num_points": ANGLES - 2}),
        {},
        "one more than the start document promised",
    ),
    "no memory": (
        scan_documents(md=PROMISED),
        {"live": LiveConfig(memory_gib=1e-6, preview_every_s=None)},
        r"would take .* GiB, and live\.memory_gib allows 1e-06",
    ),
}


@pytest.mark.parametrize("case", BATCH)
def test_the_whole_scan_is_reconstructed_in_the_end_and_the_report_says_why(case):
    docs, options, why = BATCH[case]
    report = check_same_as_batch(docs, **options)
    assert not report.incremental
    assert re.search(why, report.why_batch), report.why_batch


def test_what_breaks_during_the_scan_costs_time_alone(monkeypatch):
    def broken(self, number):
        raise RuntimeError("no such luck")

    monkeypatch.setattr("tomogan_bluesky.run.live.LiveScan._take", broken)
    report = check_same_as_batch(scan_documents(md=PROMISED))
    assert report.why_batch == "RuntimeError: no such luck"


def test_previews_show_what_has_arrived():
    live = LiveConfig(preview_every=10, preview_every_s=None, preview_rows=(0, 2))
    docs = scan_documents(md=PROMISED, frames=disc_frames())
    derived, report = run_through(docs, live=live, pause_s=0.02)
    previews = stream(derived, "preview")
    assert report.n_previews == len(previews) >= 2
    assert report.incremental, report.why_batch
    names = [name for name, _ in derived]
    assert names[0] == "start"
    assert names.index("event") < len(derived) / 2
    start = derived[0][1]
    assert start["preview_rows"] == [0, 2]
    assert start["rotation_centre"] == CENTRE
    # The projections are without noise: what they show is reconstructed by hand.
    counts = disc_frames().astype(np.float32)
    lines = -np.log((counts - 100) / 10_000).swapaxes(0, 1)[[0, 2]]
    theta = np.linspace(0, np.pi, ANGLES)
    for event in previews:
        n = event["data"]["n_projections"]
        assert event["data"]["rotation_centre"] == CENTRE
        part = torch.from_numpy(np.ascontiguousarray(lines[:, :n]))
        wanted = Gridrec(ScanGeometry(theta[:n], CENTRE, COLUMNS))(part).numpy()
        np.testing.assert_allclose(event["data"]["reconstruction"], wanted, atol=3e-4)
    assert [e["data"]["n_projections"] for e in previews] == sorted(
        {e["data"]["n_projections"] for e in previews}
    )
    for name, doc in derived:
        event_model.schema_validators[event_model.DocumentNames[name]].validate(doc)
    silent, _ = run_through(docs)
    np.testing.assert_array_equal(volume(derived), volume(silent))
    assert silent[0][1]["uid"] == start["uid"]
    # What was not known when the first preview came stands in the stop document.
    conclusions = derived[-1][1]["tomogan_conclusions"]
    assert conclusions["theta_range_deg"] == pytest.approx([0, 180])
    assert "tomogan_conclusions" not in silent[-1][1]


@pytest.mark.parametrize(("deep", "filter"), [(False, "ramlak"), (True, "ramlak"), (True, "hann")])
def test_previews_are_denoised_as_slices_without_neighbours(tmp_path, deep, filter):
    model = (export_deep if deep else export_untrained)(tmp_path / "model.ts")
    live = LiveConfig(preview_every=10, preview_every_s=None, preview_rows=(0, 2))
    docs = scan_documents(md=PROMISED, frames=disc_frames())
    config = GIVEN.model_copy(update={"filter": filter})
    derived, report = run_through(
        docs, live=live, pause_s=0.02, model=str(model), reconstruction=config
    )
    assert report.n_previews >= 1
    denoiser = refiltered(TorchScriptDenoiser(model), config)
    for event in stream(derived, "preview"):
        slices = torch.from_numpy(np.array(event["data"]["reconstruction"]))
        wanted = np.concatenate([denoiser(one[None]).numpy() for one in slices])
        np.testing.assert_allclose(event["data"]["denoised"], wanted, rtol=1e-5, atol=1e-8)


def test_a_centre_that_was_found_before_serves_previews_alone():
    live = LiveConfig(preview_every=10, preview_every_s=None)
    docs = scan_documents(md=PROMISED)
    derived = []
    with TomoGANCallback(
        lambda *item: derived.append(item), None, live=live, worker="thread"
    ) as callback:
        for _ in range(2):
            for name, doc in docs:
                callback(name, doc)
                time.sleep(0.02)
            docs = scan_documents(md=PROMISED)
        first, second = callback.wait(60)
    assert (first.n_previews, first.incremental, second.incremental) == (0, False, False)
    assert second.n_previews > 0
    conclusions = derived[-1][1]["tomogan_conclusions"]
    assert conclusions["rotation_centre"] == second.rotation_centre
    assert conclusions["rotation_centre_confidence"] == second.centre_confidence


def test_a_preview_that_fails_is_the_last_and_spares_the_slices(monkeypatch, caplog):
    def broken(self):
        raise RuntimeError("no picture")

    monkeypatch.setattr("tomogan_bluesky.run.live.LiveScan.preview", broken)
    live = LiveConfig(preview_every=2, preview_every_s=None)
    _, report = run_through(scan_documents(md=PROMISED), live=live)
    assert report.exit_status == "success"
    assert report.n_previews == 0
    assert caplog.text.count("no more previews: no picture") == 1


def test_previews_are_in_tiled_while_the_scan_goes_on(catalog):
    """And the final slices beside them, in the same run."""
    live = LiveConfig(preview_every=8, preview_every_s=None)
    docs = scan_documents(md=PROMISED)
    client = catalog.client()
    with TomoGANCallback(
        client, None, reconstruction=GIVEN, live=live, worker="thread"
    ) as callback:
        for name, doc in docs[: len(docs) // 2 + 3]:
            callback(name, doc)
        callback.wait(60)
        (uid,) = derived_runs(client, docs[0][1])
        preview = client[uid]["preview"]
        assert len(preview["n_projections"].read()) > 0
        before = preview["reconstruction"].read()
        assert "stop" not in client[uid].metadata
        for name, doc in docs[len(docs) // 2 + 3 :]:
            callback(name, doc)
        (report,) = callback.wait(60)
    assert report.derived_uid == uid
    assert before.shape[1:] == (1, COLUMNS, COLUMNS)
    assert np.isfinite(before).all()
    assert client[uid].stop["exit_status"] == "success"
    assert client[uid]["primary"]["reconstruction"].shape == (3, COLUMNS, COLUMNS)


def test_a_replay_has_the_bits_of_the_live_scan():
    docs = scan_documents(md=PROMISED)
    derived, _ = run_through(docs)
    again = []
    with TomoGANCallback(
        lambda *item: again.append(item), None, reconstruction=GIVEN, worker="thread"
    ) as callback:
        replay(docs, callback)
    np.testing.assert_array_equal(volume(again), volume(derived))
