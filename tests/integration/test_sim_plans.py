"""Plans of the simulated beamline on a real RunEngine, and what goes wrong in them."""

import threading
from itertools import count

import bluesky.plan_stubs as bps
import flavours
import h5py
import numpy as np
import pytest
from bluesky.preprocessors import plan_mutator
from bluesky.run_engine import call_in_bluesky_event_loop
from bluesky.utils import FailedStatus, RunEngineInterrupted
from flavours import ANGLES_DEG, REFERENCES

from tomogan_bluesky.errors import ConfigurationError
from tomogan_bluesky.sim.area_detector import SimAreaDetector
from tomogan_bluesky.sim.async_beamline import AsyncBeamline
from tomogan_bluesky.sim.exposure import Imperfections
from tomogan_bluesky.sim.fly_plans import tomo_fly_scan
from tomogan_bluesky.sim.plans import dark_flat, paired_dose_scan, tomo_scan


def devices(b):
    return b.camera, b.rotation, b.shutter, b.sample


def recorded(plan):
    """The documents of a plan, and what it returned."""
    documents, returned = [], []

    def with_result():
        returned.append((yield from plan))

    with flavours.run_engine() as RE:
        RE.subscribe(lambda name, doc: documents.append((name, doc)))
        RE(with_result())
    return documents, returned[0]


def frames(documents, stream="primary"):
    """Frames in the events of one stream, by run."""
    found, descriptors = {}, {}
    for name, doc in documents:
        if name == "descriptor" and doc["name"] == stream:
            descriptors[doc["uid"]] = doc["run_start"]
        if name == "event" and doc["descriptor"] in descriptors:
            found.setdefault(descriptors[doc["descriptor"]], []).append(doc["data"]["camera"])
    return {run: np.stack(images) for run, images in found.items()}


def starts(documents):
    return [doc for name, doc in documents if name == "start"]


def test_a_step_scan_says_what_it_holds_and_returns_its_uid():
    b = flavours.beamline()
    plan = tomo_scan(*devices(b), ANGLES_DEG, n_flats_after=2, md={"sample": "disc"}, **REFERENCES)
    documents, uid = recorded(plan)
    (start,) = starts(documents)
    assert start["uid"] == uid
    assert (start["num_projections"], start["num_darks"], start["num_flats"]) == (31, 2, 3)
    assert start["sample"] == "disc"
    assert documents[-1][1]["num_events"] == {"dark": 2, "flat": 5, "primary": 31}
    assert b.shutter.get() == "closed"
    assert b.sample.get() == "out"


def test_matched_scans_at_several_doses():
    b = flavours.beamline()
    b.camera.exposure_time.put(0.5)
    plan = paired_dose_scan(*devices(b), ANGLES_DEG, exposure_s=0.001, md={"a": 1}, **REFERENCES)
    documents, uids = recorded(plan)
    runs = starts(documents)
    assert [start["uid"] for start in runs] == uids
    assert [start["dose"] for start in runs] == [1.0, 0.25, 0.1]
    assert [start["exposure_s"] for start in runs] == pytest.approx([1e-3, 2.5e-4, 1e-4])
    assert len({start["paired_scan"] for start in runs}) == 1
    assert all(start["a"] == 1 for start in runs)
    assert b.camera.exposure_time.get() == 0.001
    dark_level = 100 * b.shots.exposure.beam.gain
    for stream in ("flat", "primary"):
        means = [images.mean() - dark_level for images in frames(documents, stream).values()]
        assert np.array(means) / means[0] == pytest.approx([1, 0.25, 0.1], rel=0.02)


def test_matched_scans_leave_the_camera_at_full_exposure_when_they_fail():
    b = flavours.beamline()
    with flavours.run_engine() as RE, pytest.raises(ConfigurationError):
        RE(paired_dose_scan(*devices(b), [7.0], exposure_s=0.002, doses=(0.5,)))
    assert b.camera.exposure_time.get() == 0.002


def test_a_rewound_scan_records_the_frames_of_an_undisturbed_one():
    documents, saved = [], count(1)

    def pause_after_the_tenth_point(message):
        if message.command == "save" and next(saved) == 10:
            return None, bps.pause()
        return None, None

    b = flavours.beamline()
    with flavours.run_engine() as RE:
        RE.subscribe(lambda name, doc: documents.append((name, doc)))
        with pytest.raises(RunEngineInterrupted):
            RE(
                plan_mutator(
                    tomo_scan(*devices(b), ANGLES_DEG, **REFERENCES), pause_after_the_tenth_point
                )
            )
        RE.resume()
    events = [doc for name, doc in documents if name == "event" and "rotation" in doc["data"]]
    again = len(events) - len(ANGLES_DEG)
    assert again > 0, "the pause rewound nothing; this test tests nothing"
    for doc in events:
        pure = b.shots.exposure.frame("projection", doc["seq_num"] - 1)
        np.testing.assert_array_equal(doc["data"]["camera"], pure)


def test_drift_is_in_flats_before_and_after():
    b = flavours.beamline(imperfections=Imperfections(flat_drift=0.2))
    documents, _ = recorded(tomo_scan(*devices(b), ANGLES_DEG, n_flats_after=3, **REFERENCES))
    (flats,) = frames(documents, "flat").values()
    before, after = flats[:3].mean(0), flats[3:].mean(0)
    assert (after / before)[-1, -1] == pytest.approx(1.2, rel=0.02)


def test_references_alone_and_the_scan_that_names_them():
    b = flavours.beamline()
    _, references = recorded(dark_flat(b.camera, b.shutter, b.sample, **REFERENCES))
    documents, _ = recorded(tomo_scan(*devices(b), ANGLES_DEG, dark_flat_run=references))
    (start,) = starts(documents)
    assert start["current_dark_flat_scan_uid"] == references
    assert "num_darks" not in start
    assert documents[-1][1]["num_events"] == {"primary": 31}


# What goes wrong -------------------------------------------------------------------------------


def test_an_angle_that_was_not_simulated_ends_the_scan(tmp_path):
    b = flavours.beamline()
    with flavours.run_engine() as RE:
        with pytest.raises(ConfigurationError, match="one of the 31 angles"):
            RE(tomo_scan(*devices(b), [12.5], **REFERENCES))
        with pytest.raises(ConfigurationError, match="one of the 31 angles"):
            RE(tomo_scan(SimAreaDetector(b, tmp_path), *devices(b)[1:], [12.5], **REFERENCES))
        moving = AsyncBeamline(b.shots, tmp_path)
        moving.connect()
        plans = (
            tomo_scan(*devices(moving), [12.5], **REFERENCES),
            tomo_fly_scan(moving.camera, None, *devices(moving)[1:], [0.0, 12.5], **REFERENCES),
        )
        for plan in plans:
            with pytest.raises(FailedStatus) as failure:
                RE(plan)
            assert "one of the 31 angles" in repr(failure.value.__cause__)


def test_an_area_detector_that_is_not_staged_says_so(tmp_path):
    camera = SimAreaDetector(flavours.beamline(), tmp_path)
    with pytest.raises(ConfigurationError, match="stage it in the plan"):
        camera.trigger()


class Stop(Exception):
    pass


def stop_at(name, stream, number):
    """A subscriber that stops the scan at one of such documents of a stream."""
    streams, seen = {}, count(1)

    def subscriber(this, doc):
        if this == "descriptor":
            streams[doc["uid"]] = doc["name"]
        ours = this == name and streams.get(doc.get("descriptor", doc["uid"])) == stream
        if ours and next(seen) == number:
            raise Stop

    return subscriber


def open_files():
    return h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE)


@pytest.mark.parametrize(
    ("kind", "document", "stream", "number"),
    [
        ("fly", "stream_datum", "primary", 2),
        ("async_step", "event", "primary", 5),
        ("sweep", "descriptor", "primary", 1),
        ("sweep", "event", "rotation_monitor", 9),
        ("area_detector", "event", "primary", 5),
    ],
)
def test_a_scan_that_is_stopped_lets_go_of_its_files_and_can_be_run_again(
    kind, document, stream, number, tmp_path
):
    b = flavours.beamline()
    before = set(threading.enumerate())
    n_open = open_files()
    documents = []
    with flavours.run_engine() as RE:
        moving = AsyncBeamline(b.shots, tmp_path)
        moving.connect()
        camera = SimAreaDetector(b, tmp_path)
        if kind == "sweep":
            moving.rotation.listeners[:] = [camera.on_pulse]

        def plan(**options):
            if kind == "fly":
                return flavours.fly(moving, moving.encoder, **options)
            if kind == "async_step":
                return flavours.step(moving)
            if kind == "area_detector":
                return flavours.step(b, camera)
            return flavours.sweep(b, camera, moving.rotation)

        stopper = RE.subscribe(stop_at(document, stream, number))
        with pytest.raises((Stop, FailedStatus)) as failure:
            RE(plan(period_s=0.05))
        assert Stop in (failure.type, type(failure.value.__cause__))
        if kind == "fly":
            assert call_in_bluesky_event_loop(moving.rotation.user_readback.get_value()) < 180
        assert list(tmp_path.glob("*.h5"))
        assert open_files() == n_open
        RE.unsubscribe(stopper)
        RE.subscribe(lambda name, doc: documents.append((name, doc)))
        RE(plan())
    stop = documents[-1][1]
    assert stop["exit_status"] == "success"
    assert stop["num_events"]["primary"] == (1 if kind == "sweep" else 31)
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive(), thread


@pytest.mark.parametrize("kind", ["events", "area_detector", "async"])
def test_two_scans_have_noise_of_their_own(kind, tmp_path):
    b = flavours.beamline()
    take, taken = b.shots.take, []
    b.shots.take = lambda **state: taken.append(take(**state)) or taken[-1]
    with flavours.run_engine() as RE:
        moving = AsyncBeamline(b.shots, tmp_path)
        moving.connect()
        where, camera = {
            "events": (b, b.camera),
            "area_detector": (b, SimAreaDetector(b, tmp_path)),
            "async": (moving, moving.camera),
        }[kind]
        for _ in range(2):
            RE(flavours.step(where, camera, n_darks=0, n_flats=0))
    first, second = np.reshape(taken, (2, 31, 3, 32))
    assert (first != second).any(axis=(1, 2)).all()
