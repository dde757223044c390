"""How far off each pixel may be, from a scan on a RunEngine to Tiled and back."""

from itertools import count

import numpy as np
import pytest
import torch
from bluesky import RunEngine
from generators import export_uncertain, export_untrained
from scans import scan_documents, slice_events

from tomogan_bluesky import (
    DenoisingConfig,
    PublishingConfig,
    ReconstructionConfig,
    TomoGANCallback,
)
from tomogan_bluesky.denoise.denoiser import TorchScriptDenoiser
from tomogan_bluesky.errors import ModelError
from tomogan_bluesky.pipeline.checks import SliceChecks
from tomogan_bluesky.pipeline.slabs import SlabPipeline
from tomogan_bluesky.publish.server import serve_catalog
from tomogan_bluesky.publish.tiled_publisher import TiledPublisher
from tomogan_bluesky.recon.beam import Beam
from tomogan_bluesky.run import run_model
from tomogan_bluesky.sim.beamline import SimBeamline
from tomogan_bluesky.sim.plans import tomo_scan
from tomogan_bluesky.training.noise_profile import NoiseProfile

ANGLES_DEG = np.linspace(0.0, 180.0, 31)


@pytest.fixture(scope="module", params=[1, 3])
def model(request, tmp_path_factory):
    return export_uncertain(tmp_path_factory.mktemp("model") / "a.ts", request.param)


def run_through(model, **options):
    derived = []
    options.setdefault("reconstruction", ReconstructionConfig(slab_rows=1))
    with TomoGANCallback(
        lambda name, doc: derived.append((name, doc)), model, **options, worker="thread"
    ) as callback:
        for name, doc in scan_documents():
            callback(name, doc)
        (report,) = callback.wait(60)
    names = ("reconstruction", "denoised", "uncertainty")
    events = slice_events(derived)
    found = {n: np.stack([d["data"][n] for d in events]) for n in names if n in events[0]["data"]}
    return derived, report, found


def test_it_comes_back_from_tiled_beside_the_slices(tmp_path):
    model = export_uncertain(tmp_path / "a.ts")
    size = 32
    y, x = np.mgrid[: 2 * size, : 2 * size] / size - 1
    phantom = np.stack([(x**2 + y**2 < r**2).astype(np.float32) for r in (0.4, 0.5, 0.6)])
    beamline = SimBeamline(phantom, ANGLES_DEG, Beam(), rotation_centre=16.2)
    RE = RunEngine()
    with serve_catalog(tmp_path) as server:
        client = server.client()
        RE.subscribe(TiledPublisher(client))
        units = {"units": "1/cm", "pixel_size_um": 10.0}
        publishing = PublishingConfig(directory=server.volumes, **units)
        with TomoGANCallback(client, model, publishing=publishing, worker="thread") as callback:
            RE.subscribe(callback)
            devices = (beamline.camera, beamline.rotation, beamline.shutter, beamline.sample)
            RE(tomo_scan(*devices, ANGLES_DEG, n_darks=2, n_flats=2))
            (report,) = callback.wait(60)
        assert report.exit_status == "success", report.reason
        stream = client[report.derived_uid]["primary"]
        found = {n: stream[n].read() for n in ("reconstruction", "denoised", "uncertainty")}
        spots = stream["strangest_spot"].read()
    assert spots.max() == pytest.approx(report.checks["strangest_spot"])
    per_pixel = torch.from_numpy(found["reconstruction"] / np.float32(1000))
    denoised, uncertainty = TorchScriptDenoiser(model).with_uncertainty(per_pixel)
    assert found["uncertainty"].shape == found["denoised"].shape == (3, size, size)
    # In the units of the slices.
    np.testing.assert_allclose(found["denoised"], 1000 * denoised, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found["uncertainty"], 1000 * uncertainty, rtol=1e-3)
    assert (found["uncertainty"] > 0).all()


def test_slabs_change_no_bit_and_neighbours_are_seen(model):
    _, _, by_one = run_through(model)
    _, _, at_once = run_through(model, reconstruction=ReconstructionConfig(slab_rows=8))
    direct = TorchScriptDenoiser(model).with_uncertainty(torch.from_numpy(by_one["reconstruction"]))
    for name, expected in zip(("denoised", "uncertainty"), direct, strict=True):
        np.testing.assert_array_equal(by_one[name], at_once[name])
        np.testing.assert_array_equal(by_one[name], expected)


@pytest.fixture
def photons(monkeypatch):
    """The flats of these documents are without noise: here they have that of ten thousand."""
    known = {"gain": 1.0, "read_noise": 2.0, "flat_electrons": 1e4}
    profile = NoiseProfile(**known, flat_pattern=0.0, blur_px=0.0)
    monkeypatch.setattr(run_model, "measure_noise", lambda *frames: profile)


def test_checks_stand_beside_each_slice_and_in_the_report(model, photons):
    docs, report, _ = run_through(model)
    slices = slice_events(docs)
    for doc in slices:
        for name in ("chi2_reconstruction", "chi2_denoised", "strangest_spot"):
            assert np.isfinite(doc["data"][name])
        assert "strangeness" not in doc["data"]  # the card does not say what it knows
    assert report.checks["chi2_denoised"] == max(d["data"]["chi2_denoised"] for d in slices)
    assert report.seconds["check"] > 0
    docs, report, _ = run_through(model, denoising=DenoisingConfig(check_slices=1))
    known = [np.isfinite(d["data"]["chi2_denoised"]) for d in slice_events(docs)]
    assert known == [False, True, False]
    docs, report, _ = run_through(model, denoising=DenoisingConfig(check_slices=0))
    assert "chi2_denoised" not in slice_events(docs)[0]["data"]
    assert report.checks == {}


def test_slices_that_contradict_the_projections_are_remarked_on(model, photons, monkeypatch):
    work = TorchScriptDenoiser.with_uncertainty

    def darker(self, *args):
        denoised, uncertainty = work(self, *args)
        return 0.8 * denoised, uncertainty

    monkeypatch.setattr(TorchScriptDenoiser, "with_uncertainty", darker)
    docs, report, _ = run_through(model)
    assert report.exit_status == "success"
    assert "contradict their projections" in report.reason
    assert "contradict their projections" in docs[-1][1]["reason"]


def test_without_photons_nothing_is_said_of_projections(model):
    docs, report, _ = run_through(model)
    assert not any("chi2_denoised" in doc["data"] for doc in slice_events(docs))
    assert set(report.checks) == {"strangest_spot"}


def test_checks_that_fail_cost_no_slices(model, monkeypatch):
    def fail(*args):
        raise ValueError("no such thing")

    monkeypatch.setattr(SliceChecks, "_check", fail)
    docs, report, found = run_through(model)
    assert (report.exit_status, report.n_failed_slices) == ("success", 0)
    assert "could not be checked: no such thing" in report.reason
    monkeypatch.setattr(run_model, "slice_checks", fail)
    docs, report, found = run_through(model)
    assert (report.exit_status, report.n_failed_slices) == ("success", 0)
    assert np.isfinite(found["uncertainty"]).all()


def test_it_can_be_left_out_and_changes_no_other_bit(model):
    _, _, both = run_through(model)
    docs, _, without = run_through(model, denoising=DenoisingConfig(uncertainty=False))
    assert set(without) == {"reconstruction", "denoised"}
    np.testing.assert_array_equal(without["denoised"], both["denoised"])
    descriptor = next(doc for name, doc in docs if name == "descriptor")
    assert "uncertainty" not in descriptor["data_keys"]


def test_of_a_slab_that_fails_nothing_is_known(model, monkeypatch):
    work, numbers = TorchScriptDenoiser.with_uncertainty, count()

    def fail_second(self, *args):
        if next(numbers) == 1:
            raise ModelError("this slab is broken")
        return work(self, *args)

    monkeypatch.setattr(TorchScriptDenoiser, "with_uncertainty", fail_second)
    _, report, found = run_through(model)
    assert (report.n_slices, report.n_failed_slices) == (3, 1)
    for name in ("denoised", "uncertainty"):
        assert np.isnan(found[name][1]).all()
        assert np.isfinite(found[name][[0, 2]]).all()
    assert np.isfinite(found["reconstruction"]).all()


def test_where_the_reconstruction_fails_too(model, monkeypatch):
    def fail(self, attenuation):
        raise ModelError("broken")

    monkeypatch.setattr(SlabPipeline, "reconstruct", fail)
    _, report, found = run_through(model)
    assert report.n_failed_slices == 3
    assert np.isnan(found["uncertainty"]).all()


def test_a_model_that_does_not_know_says_how_to_teach_it(tmp_path):
    denoiser = TorchScriptDenoiser(export_untrained(tmp_path / "a.ts"))
    with pytest.raises(ModelError, match="tomogan-bluesky calibrate"):
        denoiser.with_uncertainty(torch.zeros(1, 16, 16))
