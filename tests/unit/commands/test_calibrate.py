"""`tomogan-bluesky calibrate`, small."""

import json
import shlex

import torch
from generators import export_untrained

from tomogan_bluesky.cli import main
from tomogan_bluesky.denoise.denoiser import TorchScriptDenoiser

SMALL = "--size 48 --angles 60 --slices 8 --batch 2 --crop 32 --threads 1 --steps 60"


def run(text: str) -> int:
    return main(["calibrate", *shlex.split(text)])


def test_a_model_learns_its_uncertainty_and_keeps_its_slices(tmp_path, capsys):
    plain = export_untrained(tmp_path / "plain.ts")
    assert run(f"{plain} --simulated {SMALL} --name sure --output {tmp_path} --json") == 0
    card = json.loads(capsys.readouterr().out)
    assert card["name"] == "sure"
    assert card["outputs"] == ["denoised", "uncertainty"]
    assert card["calibration"]["errors"].startswith("noise-free reconstruction")
    assert min(card["calibration"]["units"]) >= 10
    assert "tomogan-bluesky calibrate untrained --simulated" in card["training_command"]
    # On samples that were not calibrated with, either.
    for kind in ("coverage", "coverage_edges", "coverage_flat"):
        assert 0.87 < card["metrics"][f"{kind}_at_0.25"] < 0.99
    slices = 0.01 * torch.rand(2, 48, 48)
    before, after = TorchScriptDenoiser(plain), TorchScriptDenoiser(tmp_path / "model.ts")
    denoised, uncertainty = after.with_uncertainty(slices)
    assert torch.equal(denoised, before(slices))
    assert torch.equal(denoised, after(slices))
    assert (uncertainty > 0).all()


def test_what_is_missing_is_said_before_anything_is_learned(tmp_path, capsys):
    assert run(f"nobody --simulated {SMALL} --output {tmp_path}") == 1
    assert "no model is called 'nobody'" in capsys.readouterr().err
    plain = export_untrained(tmp_path / "plain.ts")
    assert run(f"{plain} --simulated --steps 0 --output {tmp_path}") == 2
    assert "steps" in capsys.readouterr().err
