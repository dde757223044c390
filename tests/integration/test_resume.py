"""Exactly one final version: after a kill or a close at any place, with two at once, and so on."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from itertools import count

import h5py
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.preprocessors import plan_mutator
from processes import TESTS
from scans import ANGLES, disc_frames, scan_documents

from tomogan_bluesky import (
    LiveConfig,
    PublishingConfig,
    ReconstructionConfig,
    TomoGANCallback,
)
from tomogan_bluesky.cli import main
from tomogan_bluesky.intake.archive import documents
from tomogan_bluesky.publish.catalog import derived_runs
from tomogan_bluesky.publish.identity import derived_uid, volume_path
from tomogan_bluesky.publish.server import serve_catalog
from tomogan_bluesky.publish.tiled_publisher import TiledPublisher
from tomogan_bluesky.recon.beam import Beam
from tomogan_bluesky.sim.beamline import SimBeamline
from tomogan_bluesky.sim.plans import tomo_scan

# A replay that kills itself when so many documents of a kind have been handed to the catalog.
_KILLED = """
import os, signal, sys
from tomogan_bluesky.cli import main
from tomogan_bluesky.publish.tiled_publisher import TiledPublisher

folder, kind, number, when = sys.argv[1:]
publish, seen = TiledPublisher.__call__, []

def counted(self, name, doc):
    seen.append(name)
    last = name == kind and seen.count(kind) == int(number)
    if last and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    publish(self, name, doc)
    if last:
        os.kill(os.getpid(), signal.SIGKILL)

TiledPublisher.__call__ = counted
main(["replay", "--resume", "--catalog", folder, "--model", "none"])
"""
# A program with a worker process; both are killed when the derived run has begun to come.
_BOTH_KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from scans import scan_documents
from tomogan_bluesky import PublishingConfig, TomoGANCallback, WorkerConfig
from tomogan_bluesky.publish.connection import connect
from tomogan_bluesky.publish.tiled_publisher import TiledPublisher

def kill(name, doc):
    if name == "event_page":
        os.kill(tomogan.worker_pid, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

uri, volumes = sys.argv[2:]
raw = TiledPublisher(connect(uri))
tomogan = TomoGANCallback(
    [uri, kill], None, publishing=PublishingConfig(directory=volumes), worker=WorkerConfig(nice=0)
)
for name, doc in scan_documents(md={"about": "both killed"}):
    raw(name, doc)
    tomogan(name, doc)
tomogan.wait()
"""
RESUME = ("replay", "--resume", "--model", "none", "--json", "--catalog")
CENTRE = 15.5
# A preview comes of the first eight projections, however busy the machine is.
PREVIEWED = {
    "model": None,
    "reconstruction": ReconstructionConfig(rotation_centre=CENTRE),
    "live": LiveConfig(preview_every=8, preview_every_s=None),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A catalog, served by us, so that many short commands find it running."""
    folder = tmp_path_factory.mktemp("resume")
    with serve_catalog(folder):
        yield folder


@pytest.fixture(scope="module")
def client(folder):
    with serve_catalog(folder) as server:
        yield server.client()


@pytest.fixture
def raw(client):
    """A raw run in the catalog, the only one that has no final version."""
    docs = scan_documents()
    publish = TiledPublisher(client)
    for name, doc in docs:
        publish(name, doc)
    return docs


def resume(folder, capsys, *options):
    code = main([*RESUME, str(folder), *options])
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def resume_one(docs, folder, capsys):
    """What became of one raw run: with another centre, those of other tests are taken up, too."""
    _, outcomes = resume(folder, capsys, "--centre", str(CENTRE))
    return [o for o in outcomes if o["report"]["raw_uid"] == docs[0][1]["uid"]]


def digest(client, uid):
    volume = client[uid]["primary"]["reconstruction"].read()
    return hashlib.sha256(np.ascontiguousarray(volume).tobytes()).hexdigest()


def undisturbed(docs, centre=None):
    """What the same scan gives where nothing happens."""
    slices = []
    with TomoGANCallback(
        lambda name, doc: slices.append(doc),
        None,
        reconstruction=ReconstructionConfig(rotation_centre=centre),
        live=LiveConfig(preview_every_s=None),
        worker="thread",
    ) as callback:
        for name, doc in docs:
            callback(name, doc)
        callback.wait(60)
    volume = np.stack([doc["data"]["reconstruction"] for doc in slices if "data" in doc])
    return hashlib.sha256(volume.tobytes()).hexdigest()


def check_one_final_version(client, folder, docs, report, centre=None, exit_status="success"):
    """And nothing beside it: no node, no file, no claim."""
    assert report["exit_status"] == exit_status, report
    raw_start = docs[0][1]
    assert derived_runs(client, raw_start) == [report["derived_uid"]]
    assert digest(client, report["derived_uid"]) == undisturbed(docs, centre)
    files = sorted((folder / "volumes").iterdir())
    assert {path.suffix for path in files} == {".h5"}
    ours = [path for path in files if raw_uid_of(path) == raw_start["uid"]]
    assert ours == [volume_path(folder / "volumes", report["derived_uid"])]


def raw_uid_of(path):
    with h5py.File(path, swmr=True, libver="latest") as file:
        return file.attrs["raw_run_uid"]


@pytest.mark.parametrize(
    ("kind", "number", "when"),
    [("start", 1, "before"), ("descriptor", 1, "after"), ("stop", 1, "before")],
)
def test_killed_and_resumed_gives_one_final_version(
    kind, number, when, raw, folder, client, capsys
):
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, str(folder), kind, str(number), when],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    code, (outcome,) = resume(folder, capsys)
    assert code == 0
    check_one_final_version(client, folder, raw, outcome["report"])
    assert resume(folder, capsys) == (0, [])  # as often as one likes


def test_a_program_and_its_worker_are_killed_and_the_run_resumed(folder, client, capsys):
    with serve_catalog(folder) as server:
        arguments = [TESTS, server.uri, folder / "volumes"]
        done = subprocess.run(
            [sys.executable, "-c", _BOTH_KILLED, *map(str, arguments)],
            env=os.environ | {"TILED_API_KEY": server.api_key},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == -signal.SIGKILL, done.stderr
    code, (outcome,) = resume(folder, capsys)
    assert code == 0
    raw = client[outcome["report"]["raw_uid"]]
    assert raw.metadata["start"]["about"] == "both killed"
    check_one_final_version(client, folder, list(documents(raw)), outcome["report"])


def publish_to(client, folder, docs, *others):
    with TomoGANCallback(
        [*others, client],
        None,
        worker="thread",
        publishing=PublishingConfig(directory=folder / "volumes"),
    ) as callback:
        for name, doc in docs:
            callback(name, doc)
        (report,) = callback.wait(60)
    return report


def test_what_failed_is_tried_again_and_leaves_nothing(raw, folder, client, capsys):
    """A file that somebody else has put where ours would be is left alone."""
    failed = publish_to(client, folder, raw_with(raw, flats=False))
    assert failed.exit_status == "fail"
    foreign = volume_path(folder / "volumes", derived_uid(derivation_of_(client, failed), 2))
    with h5py.File(foreign, "w") as file:
        file.attrs["raw_run_uid"] = "somebody's"
    code, (outcome,) = resume(folder, capsys)
    assert code == 0
    assert foreign.exists()
    foreign.unlink()
    check_one_final_version(client, folder, raw, outcome["report"])


def raw_with(docs, flats):
    """The documents of a scan whose flats got lost on the way."""
    flat = next(doc["uid"] for name, doc in docs if doc.get("name") == "flat")
    return [(n, d) for n, d in docs if flats or d.get("descriptor") != flat]


def derivation_of_(client, report):
    return client[report.derived_uid].metadata["start"]["derivation"]


def test_two_at_once_make_one_derived_run(raw, folder, client, capsys):
    """The second one says so, and makes nothing; when the first has gone, there is no trace."""
    derivation = None

    def second(name, doc):
        nonlocal derivation
        if name == "descriptor" and derivation is None:
            derivation = True
            code, (outcome,) = resume(folder, capsys)
            assert code == 1
            seen.append(outcome["report"])

    seen = []
    first = publish_to(client, folder, raw, second)
    assert first.exit_status == "success", first.reason
    assert seen[0]["derived_uid"] is None
    assert "another process makes it now" in seen[0]["reason"]
    check_one_final_version(client, folder, raw, first.as_dict())


# Closed in mid-scan ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def beamline():
    size = 32
    y, x = np.mgrid[:size, :size] / size * 2 - 1
    discs = [((x - 0.2) ** 2 + y**2 < r**2).astype(np.float32) for r in (0.4, 0.5, 0.6)]
    angles_deg = np.linspace(0.0, 180.0, ANGLES)
    phantom = np.stack(discs).repeat(2, 1).repeat(2, 2)
    return SimBeamline(phantom, angles_deg, Beam(), rotation_centre=CENTRE)


def scan_with(beamline, number, then):
    """A plan in which something happens right before a projection of that number is saved."""
    plan = tomo_scan(
        beamline.camera,
        beamline.rotation,
        beamline.shutter,
        beamline.sample,
        np.linspace(0.0, 180.0, ANGLES),
        n_darks=2,
        n_flats=2,
    )
    saved = count(1 - 4)  # darks and flats come first

    def mutate(message):
        if message.command == "save" and next(saved) == number:
            then()
        return None, None

    return plan_mutator(plan, mutate)


def check_closed(client, docs):
    """The derived run of a scan that was left has an end, which says why, and its previews."""
    (uid,) = derived_runs(client, docs[0][1])
    stop = client[uid].stop
    assert stop["exit_status"] == "abort"
    assert "closed" in stop["reason"]
    assert "replay" in stop["reason"]
    n_previews = stop["num_events"]["preview"]
    assert stop["num_events"] == {"preview": n_previews}
    assert client[uid]["preview"]["reconstruction"].read().shape[0] == n_previews >= 1


@pytest.mark.parametrize(
    ("worker", "target"), [("thread", "client"), ("process", "client"), ("process", "address")]
)
def test_closed_on_a_run_engine_in_mid_scan_and_resumed(
    worker, target, beamline, folder, client, capsys, monkeypatch
):
    docs = []
    with serve_catalog(folder) as server:
        monkeypatch.setenv("TILED_API_KEY", server.api_key)
        tomogan = TomoGANCallback(
            client if target == "client" else server.uri,
            worker=worker,
            publishing=PublishingConfig(directory=folder / "volumes"),
            **PREVIEWED,
        )
        RE = RunEngine()
        RE.subscribe(TiledPublisher(client))
        RE.subscribe(tomogan)
        RE.subscribe(lambda *item: docs.append(item))

        def close():
            tomogan.close(120)
            check_closed(client, docs)

        RE(scan_with(beamline, 20, close))
    assert docs[-1][1]["exit_status"] == "success", "the scan goes on"
    assert tomogan.wait() == []
    (outcome,) = resume_one(docs, folder, capsys)
    check_one_final_version(client, folder, docs, outcome["report"], CENTRE)
    assert resume_one(docs, folder, capsys) == []


def test_closed_in_mid_scan_before_that_is_aborted(folder, client, capsys):
    """What there was of the scan is the final version then, and not what was closed before."""
    docs = scan_documents(frames=disc_frames(), exit_status="abort", md={"num_points": 2 * ANGLES})
    publish = TiledPublisher(client)
    with TomoGANCallback(client, worker="thread", **PREVIEWED) as tomogan:
        for name, doc in docs[:-1]:
            publish(name, doc)
            tomogan(name, doc)
    publish(*docs[-1])
    check_closed(client, docs)
    (outcome,) = resume_one(docs, folder, capsys)
    check_one_final_version(client, folder, docs, outcome["report"], CENTRE, "abort")
    assert resume_one(docs, folder, capsys) == []


def test_closed_before_a_preview_there_is_no_derived_run():
    derived = []
    with TomoGANCallback(
        lambda *item: derived.append(item), worker="thread", **PREVIEWED
    ) as tomogan:
        for name, doc in scan_documents()[:10]:
            tomogan(name, doc)
    assert derived == []


def test_closed_in_mid_scan_with_less_time_than_it_takes():
    """It is ended as soon as what was at hand is done."""
    free, derived = threading.Event(), []

    def slow(name, doc):
        assert name != "event" or free.wait(60)
        derived.append((name, doc))

    tomogan = TomoGANCallback(slow, worker="thread", **PREVIEWED)
    for name, doc in scan_documents(md={"num_points": ANGLES})[:-1]:
        tomogan(name, doc)
    with pytest.raises(TimeoutError):
        tomogan.close(1)
    free.set()
    tomogan.close(60)
    assert [name for name, _ in derived] == ["start", "descriptor", "event", "stop"]
    assert derived[-1][1]["exit_status"] == "abort"
