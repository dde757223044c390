"""Which model a run is denoised with, and whether it was made for its detector."""

import numpy as np
import pytest
import torch
from generators import CARD
from scans import scan_documents

from tomogan_bluesky import TomoGANCallback
from tomogan_bluesky.models.artifact import export_model
from tomogan_bluesky.models.files import model_sha256
from tomogan_bluesky.models.generator import build_generator
from tomogan_bluesky.models.registry import Instrument, Registry


def exported(path, **card):
    torch.manual_seed(len(path.name))
    export_model(build_generator("unet4", base=4), CARD.model_copy(update=card), path)
    return path


def processed(callback, documents, published):
    """Report and start document of the derived run."""
    published.clear()
    for name, doc in documents:
        callback(name, doc)
    (report,) = callback.wait(60)
    (start,) = (doc for name, doc in published if name == "start")
    return report, start


def with_noise(gain):
    """Makes darks and flats of a detector of so many counts an electron."""
    rng = np.random.default_rng(0)

    def edit(name, doc):
        if name == "event" and np.ptp(doc["data"]["camera"]) == 0:
            level = int(doc["data"]["camera"][0, 0])
            shape = doc["data"]["camera"].shape
            electrons = rng.poisson((level - 90) / gain, shape)
            frame = np.rint(90 + gain * electrons + rng.normal(0, 1, shape)).astype(np.uint16)
            return {**doc, "data": {**doc["data"], "camera": frame}}
        return doc

    return edit


@pytest.mark.parametrize(("gain", "alike"), [(1.0, True), (4.0, False)])
def test_another_detector_than_the_models_is_remarked(tmp_path, gain, alike):
    detector = {
        "gain": 1.0,
        "read_noise": 3.3,
        "flat_electrons": 1e4,
        "flat_pattern": 0.0,
        "blur_px": 0.0,
    }
    model = exported(tmp_path / "a.ts", detector=detector)
    documents = scan_documents(darks=10, flats=10, edit=with_noise(gain))
    published = []
    with TomoGANCallback(lambda *d: published.append(d), model, worker="thread") as callback:
        report, _ = processed(callback, documents, published)
    assert report.exit_status == "success"
    remarked = "trained on scans of another detector: gain" in (report.reason or "")
    assert remarked is not alike


def test_a_scan_with_more_photons_than_were_learned_from_is_left_alone(tmp_path):
    model = exported(tmp_path / "a.ts", least_noise=10.0)
    documents = scan_documents(darks=10, flats=10, edit=with_noise(1.0))
    published = []
    with TomoGANCallback(lambda *d: published.append(d), model, worker="thread") as callback:
        report, _ = processed(callback, documents, published)
    assert report.exit_status == "success"
    assert "0% denoised and 100% as reconstructed" in report.reason
    # Flats without noise tell nothing of the photons: the model is used as it is.
    with TomoGANCallback(lambda *d: published.append(d), model, worker="thread") as callback:
        report, _ = processed(callback, scan_documents(), published)
    assert "as reconstructed" not in (report.reason or "")


def test_a_registry_changes_the_model_between_two_runs(tmp_path):
    first, second = (exported(tmp_path / name, name=name) for name in ("first.ts", "second1.ts"))
    registry = Registry(tmp_path / "registry")
    instrument = Instrument(beamline="HEX")
    registry.promote(first, instrument)
    published = []
    with TomoGANCallback(
        lambda *d: published.append(d), f"registry:{registry.folder}", worker="thread"
    ) as callback:

        def model_of_next(beamline):
            documents = scan_documents(md={"beamline_id": beamline})
            report, start = processed(callback, documents, published)
            return report, start.get("model_sha256")

        report, sha256 = model_of_next("HEX")
        assert report.exit_status == "success"
        assert sha256 == model_sha256(first)
        registry.promote(second, instrument)
        assert model_of_next("HEX")[1] == model_sha256(second)
        registry.rollback(instrument.fingerprint)
        assert model_of_next("HEX")[1] == model_sha256(first)
        # A scan of another instrument is reconstructed, and says why it is not denoised.
        report, sha256 = model_of_next("FXI")
        assert sha256 is None
        assert "expected one model that fits beamline=FXI" in report.reason
