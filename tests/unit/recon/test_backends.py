import sys
import warnings

import numpy as np
import pytest
import torch

from tomogan_bluesky.config import ReconstructionConfig
from tomogan_bluesky.errors import BackendUnavailableError, ReconstructionError
from tomogan_bluesky.geometry import ScanGeometry
from tomogan_bluesky.recon.astra_backend import AstraFBP, AstraSIRT
from tomogan_bluesky.recon.backends import make_reconstructor
from tomogan_bluesky.recon.fbp import FBP
from tomogan_bluesky.recon.gridrec import Gridrec
from tomogan_bluesky.recon.iterative import SIRT, TotalVariation
from tomogan_bluesky.recon.tomopy_backend import TomopyFBP, TomopyGridrec


@pytest.fixture(scope="module")
def tomopy():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TomoPy warns of optional libraries when imported
        return pytest.importorskip("tomopy", reason="TomoPy is not importable")


def test_makes_what_the_configuration_asks_for(geometry):
    sinograms = torch.rand(1, 61, 97)
    config = ReconstructionConfig(method="gridrec", filter="hann", oversampling=2.0)
    made, wanted = make_reconstructor(geometry, config), Gridrec(geometry, "hann", 2.0)
    assert torch.equal(made(sinograms), wanted(sinograms))
    made = make_reconstructor(geometry, ReconstructionConfig(method="fbp", filter="hann"))
    assert torch.equal(made(sinograms), FBP(geometry, "hann")(sinograms))
    assert made.geometry is geometry
    assert made.origin == (47, 49)
    for method, wanted in (
        ("sirt", SIRT(geometry, 2, 2.0)),
        ("tv", TotalVariation(geometry, 2, 3.0, 2.0)),
    ):
        config = ReconstructionConfig(
            method=method, iterations=2, tv_strength=3.0, oversampling=2.0
        )
        assert torch.equal(make_reconstructor(geometry, config)(sinograms), wanted(sinograms))


@pytest.mark.parametrize(("backend", "method"), [("tomopy", "tv"), ("astra", "gridrec")])
def test_a_backend_without_the_method_is_a_wrong_setting(backend, method):
    with pytest.raises(ValueError, match=f"backend '{backend}' has .*got '{method}'.*'torch'"):
        ReconstructionConfig(backend=backend, method=method)


@pytest.mark.parametrize("method", ["fbp", "sirt"])
def test_says_how_to_get_an_astra_that_is_absent(method, geometry, monkeypatch):
    monkeypatch.setitem(sys.modules, "astra", None)
    config = ReconstructionConfig(backend="astra", method=method)
    with pytest.raises(BackendUnavailableError, match=r"tomogan_bluesky\[astra\].*'torch'"):
        make_reconstructor(geometry, config)


@pytest.fixture(scope="module")
def astra():
    return pytest.importorskip("astra", reason="the ASTRA toolbox is not importable")


@pytest.mark.parametrize("method", ["fbp", "sirt"])
@pytest.mark.parametrize("n_columns", [64, 65])
def test_astra_puts_objects_where_its_origin_says_and_in_absolute_units(
    astra, method, n_columns, make_blobs, relative_error
):
    geometry = ScanGeometry(np.arange(120) * np.pi / 120, 30.3, n_columns)
    config = ReconstructionConfig(backend="astra", method=method, iterations=100)
    reconstruct = make_reconstructor(geometry, config)
    blobs = make_blobs(radius=24, n=3)
    image = reconstruct(blobs.sinogram(geometry))
    assert relative_error(image, blobs.image(n_columns, reconstruct.origin)) < 0.06


def test_astra_back_projects_a_disc_of_one_to_one(astra, golden, golden_geometry, disc_mean):
    reconstruct = AstraFBP(golden_geometry)
    image = reconstruct(torch.from_numpy(golden["disc_sinogram"])[None])[0]
    assert disc_mean(image, reconstruct.origin) == pytest.approx(1, abs=0.005)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (lambda g: AstraFBP(g, "hann"), lambda g: FBP(g, "hann")),
        (lambda g: AstraSIRT(g, 30), lambda g: SIRT(g, 30)),
    ],
    ids=["fbp", "sirt"],
)
def test_astra_agrees_with_torch(astra, theirs, ours, golden, circle, relative_error):
    # Of an odd number of columns, the two put the axis on pixels, though not on the same.
    foam = torch.from_numpy(golden["sinograms"])[:1, :, 1:].contiguous()
    geometry = ScanGeometry(golden["theta"], float(golden["rotation_centre"]) - 1, 191)
    theirs, ours = theirs(geometry), ours(geometry)
    step = [round(a - b) for a, b in zip(theirs.origin, ours.origin, strict=True)]
    assert step == [1, -1]
    image = ours(foam).roll(step, (1, 2))
    mask = torch.from_numpy(circle(191, 0.85))
    assert relative_error(theirs(foam)[:, mask], image[:, mask]) < 0.03


@pytest.mark.parametrize("make", [AstraFBP, lambda geometry: AstraSIRT(geometry, 3)])
def test_astra_bits_do_not_depend_on_the_slab(astra, make, geometry):
    reconstruct = make(geometry)
    sinograms = torch.rand(3, 61, 97)
    volume = reconstruct(sinograms)
    assert torch.equal(torch.cat([reconstruct(part) for part in sinograms.split(1)]), volume)
    assert reconstruct(sinograms[:0]).shape == (0, 97, 97)
    with pytest.raises(ReconstructionError, match=r"got \(2, 60, 97\)"):
        reconstruct(torch.zeros(2, 60, 97))


def test_astra_forgets_its_projector_with_the_object(astra, geometry):
    reconstruct = AstraFBP(geometry)
    identity = reconstruct._projector_id
    del reconstruct
    with pytest.raises(astra.log.AstraError):
        astra.projector.volume_geometry(identity)


@pytest.mark.parametrize("method", ["gridrec", "fbp"])
def test_says_how_to_get_a_tomopy_that_is_absent(method, geometry, monkeypatch):
    monkeypatch.setitem(sys.modules, "tomopy", None)
    config = ReconstructionConfig(backend="tomopy", method=method)
    with pytest.raises(BackendUnavailableError, match=r"conda-forge.*'torch'"):
        make_reconstructor(geometry, config)


@pytest.mark.tomopy
@pytest.mark.parametrize("method", ["gridrec", "fbp"])
@pytest.mark.parametrize("n_columns", [64, 65])
def test_tomopy_puts_objects_where_its_origin_says(tomopy, method, n_columns, make_blobs):
    geometry = ScanGeometry(np.arange(120) * np.pi / 120, 30.3, n_columns)
    config = ReconstructionConfig(backend="tomopy", method=method)
    reconstruct = make_reconstructor(geometry, config)
    blobs = make_blobs(radius=24, n=3)
    image = reconstruct(blobs.sinogram(geometry))[0].numpy()
    wanted = blobs.image(n_columns, reconstruct.origin)[0].numpy()
    assert np.corrcoef(image.ravel(), wanted.ravel())[0, 1] > 0.99
    for axis in (0, 1):
        for step in (-1, 1):
            shifted = np.roll(wanted, step, axis)
            assert np.abs(image - wanted).sum() < 0.6 * np.abs(image - shifted).sum()


@pytest.mark.tomopy
@pytest.mark.parametrize(
    ("method", "slabs"), [(TomopyGridrec, (2, 4)), (TomopyFBP, (1, 2, 3))], ids=["gridrec", "fbp"]
)
@pytest.mark.parametrize("n_threads", [1, 2])
def test_tomopy_bits_do_not_depend_on_the_slab(
    tomopy, method, slabs, n_threads, geometry, one_or_more_threads
):
    reconstruct = method(geometry)
    sinograms = torch.rand(5, 61, 97)
    volume = reconstruct(sinograms)
    one_or_more_threads(n_threads)
    for size in slabs:
        parts = [reconstruct(part) for part in sinograms.split(size)]
        assert torch.equal(torch.cat(parts), volume)
    assert reconstruct(sinograms[:0]).shape == (0, 97, 97)


@pytest.mark.tomopy
def test_tomopy_gridrec_pairs_slices_that_leave_traces_of_rounding_only(
    tomopy, geometry, relative_error
):
    reconstruct = TomopyGridrec(geometry)
    sinograms = torch.rand(3, 61, 97)
    alone = torch.cat([reconstruct(part) for part in sinograms.split(1)])
    assert relative_error(reconstruct(sinograms), alone) < 1e-6


@pytest.mark.tomopy
@pytest.mark.parametrize("method", [TomopyGridrec, TomopyFBP])
def test_tomopy_refuses_what_does_not_fit(tomopy, method, geometry):
    reconstruct = method(geometry)
    with pytest.raises(ReconstructionError, match=r"got \(2, 60, 97\)"):
        reconstruct(torch.zeros(2, 60, 97))
    with pytest.raises(ReconstructionError, match="nan at slice 0, angle 0, column 0"):
        reconstruct(torch.full((2, 61, 97), torch.nan))


@pytest.mark.tomopy
def test_tomopy_back_projection_is_quantitative(tomopy, golden, golden_geometry, disc_mean):
    reconstruct = TomopyFBP(golden_geometry)
    image = reconstruct(torch.from_numpy(golden["disc_sinogram"])[None])[0]
    assert disc_mean(image, reconstruct.origin) == pytest.approx(1, abs=0.02)


@pytest.mark.tomopy
def test_tomopy_gridrec_is_the_golden_one(tomopy, tooth, relative_error):
    attenuation, geometry, reference = tooth
    volume = TomopyGridrec(geometry, "shepp")(attenuation)
    assert relative_error(volume, torch.from_numpy(reference)) < 1e-4


@pytest.mark.tomopy
@pytest.mark.parametrize("name", ["none", "ramlak", "cosine", "hann", "hamming", "parzen"])
def test_tomopy_filters_are_the_golden_ones(
    tomopy, name, shared_data, golden_geometry, relative_error
):
    with np.load(shared_data("tomopy_1.15.2_golden.npz")) as file:
        sinograms = torch.from_numpy(file["sinograms"])
        key = f"gridrec_edgepad2_{name}" + ("_par1" if name in ("hann", "hamming") else "")
        reference = torch.from_numpy(file[key])
    assert relative_error(TomopyGridrec(golden_geometry, name)(sinograms), reference) < 1e-4
