"""A model that can't be used: the reconstruction is published, and the run says what was wrong."""

import re

import numpy as np
import pytest
from generators import CARD, NanDenoiser, export_untrained
from scans import scan_documents

from tomogan_bluesky import DenoisingConfig, ReconstructionConfig, TomoGANCallback
from tomogan_bluesky.config import DEFAULT_MODEL
from tomogan_bluesky.models.artifact import export_model
from tomogan_bluesky.models.generator import build_generator


def missing(tmp_path):
    return tmp_path / "no_such_model.ts", r"no_such_model\.ts"


def unknown_name(tmp_path):
    return "no-such-model", rf"no-such-model.*{DEFAULT_MODEL}"


def corrupt(tmp_path):
    path = tmp_path / "corrupt.ts"
    path.write_bytes(b"this was a model once")
    return path, r"corrupt\.ts"


def wrong_depth(tmp_path):
    """A card that says one thing of a network that is another."""
    path, card = tmp_path / "deep.ts", CARD.model_copy(update={"depth": 3})
    export_model(build_generator("unet4", base=4), card, path)
    return path, r"depth of 3 slices, .*unet4\(base=4\), which takes 1"


@pytest.mark.parametrize("case", [missing, unknown_name, corrupt, wrong_depth])
def test_an_unusable_model_costs_the_denoised_slices_only(case, tmp_path, caplog):
    model, message = case(tmp_path)
    derived = []
    with TomoGANCallback(lambda *item: derived.append(item), model, worker="thread") as callback:
        for docs in (scan_documents(), scan_documents()):
            for name, doc in docs:
                callback(name, doc)
        reports = callback.wait(60)
    assert [report.exit_status for report in reports] == ["fail", "fail"]
    stop = derived[-1][1]
    for text in (reports[-1].reason, stop["reason"], caplog.text):
        assert re.search(message, text), text
    slices = [d["data"]["reconstruction"] for n, d in derived if n == "event"]
    assert len(slices) == 6
    assert np.isfinite(slices).all()
    assert "reconstruction alone" in reports[-1].reason
    starts = [doc for name, doc in derived if name == "start"]
    assert all(re.search(message, start["degraded"]) for start in starts)
    # Nobody takes it for the version that is wanted without a generator, nor the other way round.
    with TomoGANCallback(lambda *item: None, None, worker="thread") as callback:
        for name, doc in docs:
            callback(name, doc)
        (wanted,) = callback.wait(60)
    assert wanted.derived_uid != reports[-1].derived_uid


def test_a_model_trained_on_another_reconstruction_is_used_and_said(tmp_path, caplog):
    config = ReconstructionConfig(method="fbp")
    model = export_untrained(tmp_path / "model.ts")
    with TomoGANCallback(
        lambda *item: None, model, reconstruction=config, worker="thread"
    ) as callback:
        for name, doc in scan_documents():
            callback(name, doc)
        (report,) = callback.wait(60)
    assert report.exit_status == "success"
    assert "these come from fbp" in report.reason
    assert "these come from fbp" in caplog.text


def test_a_model_trained_on_another_reconstruction_can_be_refused(tmp_path):
    model = export_untrained(tmp_path / "model.ts")
    reports, keys = {}, {}
    for method in ("gridrec", "tv"):
        derived = []
        with TomoGANCallback(
            lambda *item, derived=derived: derived.append(item),
            model,
            reconstruction=ReconstructionConfig(method=method, iterations=2),
            denoising=DenoisingConfig(on_mismatch="refuse"),
            worker="thread",
        ) as callback:
            for name, doc in scan_documents():
                callback(name, doc)
            (reports[method],) = callback.wait(60)
        keys[method] = {key for name, doc in derived if name == "event" for key in doc["data"]}
    assert reports["gridrec"].exit_status == "success"
    assert "denoised" in keys["gridrec"]
    assert reports["tv"].exit_status == "fail"
    assert re.search("these come from tv.*on_mismatch", reports["tv"].reason)
    assert "reconstruction" in keys["tv"]
    assert "denoised" not in keys["tv"]


def test_a_generator_that_returns_nan_costs_the_denoised_slices_only():
    derived = []
    with TomoGANCallback(
        lambda *item: derived.append(item), NanDenoiser(), worker="thread"
    ) as callback:
        for name, doc in scan_documents():
            callback(name, doc)
        (report,) = callback.wait(60)
    assert report.exit_status == "fail"
    assert report.n_failed_slices == report.n_slices == 3
    slices = {
        k: [d["data"][k] for n, d in derived if n == "event"]
        for k in ("reconstruction", "denoised")
    }
    assert np.isfinite(slices["reconstruction"]).all()
    assert np.isnan(slices["denoised"]).all()
