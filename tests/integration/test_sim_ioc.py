"""The IOC of the simulated beamline, over Channel Access on loopback."""

import os
import subprocess
import sys

import flavours
import numpy as np
import pytest
from flavours import ANGLES_DEG

from tomogan_bluesky.errors import ConfigurationError, TomoGANError
from tomogan_bluesky.sim import epics
from tomogan_bluesky.sim.exposure import Imperfections
from tomogan_bluesky.sim.plans import tomo_scan
from tomogan_bluesky.sim.sample_file import load_sample, save_sample

COMMAND = [sys.executable, "-m", "tomogan_bluesky.sim.ioc", "--until-input-closes"]


@pytest.fixture(scope="module")
def devices():
    with flavours.epics(flavours.beamline()) as devices:
        yield devices


def scanned(plan):
    frames = []
    with flavours.run_engine() as RE:
        RE.subscribe(lambda name, doc: frames.append(doc["data"]["camera"]), "event")
        RE(plan)
    return np.stack(frames)


def test_a_second_scan_has_noise_of_its_own(devices):
    first, second = (scanned(flavours.step(devices, n_darks=0, n_flats=0)) for _ in range(2))
    assert first.shape == (31, 3, 32)
    assert (first != second).any(axis=(1, 2)).all()


def test_exposure_time_is_dose(devices):
    devices.camera.exposure_time.set(0.0001).wait(10)
    frames = scanned(flavours.step(devices, n_darks=1, n_flats=1))
    devices.camera.exposure_time.set(0.001).wait(10)
    exposure = flavours.beamline().shots.exposure
    full = exposure.frame("flat", 0).mean() - exposure.frame("dark", 0).mean()
    assert frames[1].mean() - frames[0].mean() == pytest.approx(full / 10, rel=0.05)


def test_a_camera_that_cannot_expose_says_why_and_is_not_stuck(devices):
    bad = tomo_scan(devices.camera, devices.rotation, devices.shutter, devices.sample, [12.5])
    with pytest.raises(TomoGANError, match="camera: rotation: expected one of the 31 angles"):
        scanned(bad)
    assert devices.camera.state.get() == "Error"
    scanned(flavours.step(devices, n_darks=1, n_flats=0))
    assert devices.camera.state.get(use_monitor=False) == "Idle"


def test_the_environment_is_put_back(monkeypatch):
    monkeypatch.delenv("EPICS_CA_ADDR_LIST", raising=False)
    monkeypatch.setenv("EPICS_CA_AUTO_ADDR_LIST", "YES")
    before = dict(os.environ)
    with epics.running_ioc(flavours.beamline().shots, prefix="OTHER:") as prefix:
        assert prefix == "OTHER:"
        assert os.environ["EPICS_CA_ADDR_LIST"].startswith("127.0.0.1:")
        assert os.environ["EPICS_CA_AUTO_ADDR_LIST"] == "NO"
    assert dict(os.environ) == before


def test_the_ioc_on_its_own_ends_when_its_parent_does():
    with subprocess.Popen(
        COMMAND,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as ioc:
        assert int(ioc.stdout.readline()) > 1023
        ioc.stdin.close()
        assert ioc.wait(60) == 0
        assert ioc.stderr.read() == ""


def test_an_ioc_that_does_not_start_is_an_error(monkeypatch, capfd):
    monkeypatch.setattr(epics, "save_sample", lambda path, shots: path.write_bytes(b"no sample"))
    with (
        pytest.raises(ConfigurationError, match="exit status 1 before it served"),
        epics.running_ioc(flavours.beamline().shots),
    ):
        pass
    assert "expected a sample that save_sample wrote" in capfd.readouterr().err


def test_needs_a_channel_access_client(monkeypatch):
    monkeypatch.setattr(epics, "get_cl", lambda: type("Layer", (), {"name": "dummy"}))
    with pytest.raises(ConfigurationError, match="install caproto"):
        epics.EpicsBeamline()


def test_nobody_there_is_a_timeout(devices):
    with pytest.raises(TimeoutError):
        epics.EpicsBeamline("NOBODY:", timeout_s=0.1)


def test_another_process_sees_the_same_sample(tmp_path):
    shots = flavours.beamline(
        imperfections=Imperfections(flat_drift=0.1, ring_gain=0.01, hot_pixels=0.05)
    ).shots
    save_sample(tmp_path / "sample.npz", shots)
    loaded = load_sample(tmp_path / "sample.npz")
    assert loaded.full_exposure_s == shots.full_exposure_s
    np.testing.assert_array_equal(loaded.exposure.angles_deg, ANGLES_DEG)
    for key in [("dark", 0), ("flat", 1), ("projection", 30)]:
        np.testing.assert_array_equal(
            loaded.exposure.frame(*key, elapsed=0.5), shots.exposure.frame(*key, elapsed=0.5)
        )


def test_a_file_that_is_no_sample_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    for path in (tmp_path / "other.npz", tmp_path / "missing.npz"):
        with pytest.raises(ConfigurationError, match="expected a sample that save_sample wrote"):
            load_sample(path)
