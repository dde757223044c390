"""What people copy: each file under profiles/ and examples/ runs."""

import runpy
from pathlib import Path

import numpy as np
from bluesky import RunEngine

from tomogan_bluesky.publish.server import serve_catalog
from tomogan_bluesky.recon.beam import Beam
from tomogan_bluesky.sim.beamline import SimBeamline
from tomogan_bluesky.sim.plans import tomo_scan

ROOT = Path(__file__).resolve().parents[2]


def test_the_example_of_a_live_scan(tmp_path, capsys):
    example = runpy.run_path(str(ROOT / "examples" / "live_scan.py"))
    uid = example["main"](str(tmp_path), columns=48, n_angles=91)
    told = capsys.readouterr().out
    assert "success: 91 projections, 4 slices" in told
    assert uid in told


def test_the_example_of_training_from_a_catalog(tmp_path, capsys):
    example = runpy.run_path(str(ROOT / "examples" / "train_from_catalog.py"))
    uid = example["main"](
        str(tmp_path), columns=64, n_angles=25, families=("foam", "shale"), steps=3
    )
    told = capsys.readouterr().out
    assert "success: 3 slices" in told
    assert "my-beamline" in told  # of the evaluation
    assert (tmp_path / "model" / "model.ts").exists()
    assert uid in told


def test_the_startup_file_of_the_sim_profile(tmp_path, monkeypatch):
    angles_deg = np.linspace(0, 180, 19)
    disc = (np.hypot(*np.mgrid[-1:1:64j, -1:1:64j]) < 0.5).astype(np.float32)
    beamline = SimBeamline(np.stack([disc, disc]), angles_deg, Beam(), rotation_centre=15.0)
    with serve_catalog(tmp_path) as server:
        monkeypatch.setenv("TILED_URI", server.uri)
        monkeypatch.setenv("TILED_API_KEY", server.api_key)
        monkeypatch.setenv("TOMOGAN_VOLUMES", str(server.volumes))
        RE = RunEngine()
        startup = ROOT / "profiles" / "sim" / "startup" / "90-tomogan.py"
        tomogan = runpy.run_path(str(startup), {"RE": RE})["tomogan"]
        with tomogan:
            RE(
                tomo_scan(
                    beamline.camera,
                    beamline.rotation,
                    beamline.shutter,
                    beamline.sample,
                    angles_deg,
                    n_darks=1,
                    n_flats=1,
                )
            )
            (report,) = tomogan.wait(60)
        assert report.exit_status == "success", report.reason
        assert server.client()[report.derived_uid]["primary"]["denoised"].shape == (2, 32, 32)
