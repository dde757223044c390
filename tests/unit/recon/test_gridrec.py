from functools import partial

import numpy as np
import pytest
import torch

from tomogan_bluesky.config import ReconstructionConfig
from tomogan_bluesky.errors import ReconstructionError
from tomogan_bluesky.geometry import ScanGeometry
from tomogan_bluesky.recon.fbp import FBP
from tomogan_bluesky.recon.gridrec import Gridrec
from tomogan_bluesky.recon.incremental import IncrementalGridrec
from tomogan_bluesky.recon.iterative import SIRT
from tomogan_bluesky.recon.kernel import LEAST_OVERSAMPLING, KaiserBessel
from tomogan_bluesky.recon.project import Projector

METHODS = pytest.mark.parametrize("method", [Gridrec, FBP])
DEGREES = np.deg2rad(np.arange(360))


def test_kernel_transform_is_the_integral_over_the_kernel():
    kernel = KaiserBessel(4, 1.5)
    distance = torch.linspace(-2, 2, 20001, dtype=torch.float64)
    for frequency in (0.0, 0.1, 1 / 3):
        integrand = kernel(distance) * torch.cos(2 * torch.pi * frequency * distance)
        wanted = torch.trapezoid(integrand, distance)
        got = kernel.transform(torch.tensor(frequency, dtype=torch.float64))
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=0)


@METHODS
@pytest.mark.parametrize("n_columns", [96, 97])
def test_objects_come_out_in_their_place_and_in_absolute_units(
    method, n_columns, make_blobs, circle, relative_error
):
    geometry = ScanGeometry(np.arange(180) * np.pi / 180, n_columns / 2 - 3.3, n_columns)
    blobs = make_blobs(radius=0.4 * n_columns)
    reconstruct = method(geometry)
    image = reconstruct(blobs.sinogram(geometry))
    assert image.dtype == torch.float32
    wanted = blobs.image(n_columns, reconstruct.origin)
    mask = torch.from_numpy(circle(n_columns))
    assert relative_error(image[:, mask], wanted[:, mask]) < 2e-3


@METHODS
def test_a_full_turn_and_any_order_of_angles_give_the_same(
    method, make_blobs, circle, relative_error
):
    blobs = make_blobs(radius=26)
    half = ScanGeometry(np.arange(120) * np.pi / 120, 30.2, 64)
    order = np.random.default_rng(0).permutation(240)
    full = ScanGeometry((np.arange(240) * np.pi / 120 - 1.0)[order], 30.2, 64)
    mask = torch.from_numpy(circle(64))
    images = [method(geometry)(blobs.sinogram(geometry))[:, mask] for geometry in (half, full)]
    assert relative_error(*images) < 2e-3


@METHODS
def test_to_turn_the_angles_turns_the_slice(method, make_blobs, circle, relative_error):
    geometry = ScanGeometry(np.arange(120) * np.pi / 120, 30.2, 64)
    turn = 0.4
    blobs = make_blobs(radius=26)
    amplitude, sigma, x, y = blobs.blobs.T
    turned = type(blobs)(
        np.stack(
            (
                amplitude,
                sigma,
                x * np.cos(turn) + y * np.sin(turn),
                y * np.cos(turn) - x * np.sin(turn),
            ),
            axis=1,
        )
    )
    reconstruct = method(ScanGeometry(geometry.theta + turn, 30.2, 64))
    mask = torch.from_numpy(circle(64))
    image = reconstruct(blobs.sinogram(geometry))[:, mask]
    assert relative_error(image, turned.image(64, reconstruct.origin)[:, mask]) < 2e-3
    assert relative_error(image, blobs.image(64, reconstruct.origin)[:, mask]) > 0.1


@METHODS
def test_phantoms_come_out_as_well_as_the_golden_figures(
    method, golden, golden_geometry, circle, residual
):
    volume = method(golden_geometry)(torch.from_numpy(golden["sinograms"]))
    mask = circle(192)
    foam, shepp = (residual(*pair, mask) for pair in zip(volume, golden["phantom"], strict=True))
    assert foam <= 0.077
    assert shepp <= 0.093


@METHODS
@pytest.mark.parametrize("name", ["ramlak", "shepp"])
def test_agrees_with_tomopy_up_to_its_scale_and_offset(
    method, name, golden, golden_geometry, circle, residual
):
    volume = method(golden_geometry, name)(torch.from_numpy(golden["sinograms"]))
    for image, wanted in zip(volume, golden[f"gridrec_{name}"], strict=True):
        assert residual(image, wanted, circle(192)) <= 2.5e-2


@pytest.mark.parametrize("name", ["none", "cosine", "hann", "hamming", "parzen", "butterworth"])
def test_agrees_with_each_filter_of_tomopy(name, shared_data, golden_geometry, circle, residual):
    with np.load(shared_data("tomopy_1.15.2_golden.npz")) as file:
        sinograms = file["sinograms"]
        key = f"gridrec_edgepad2_{name}" + ("_par1" if name in ("hann", "hamming") else "")
        reference = file[key]
    volume = Gridrec(golden_geometry, name)(torch.from_numpy(sinograms))
    for image, wanted in zip(volume, reference, strict=True):
        assert residual(image, wanted, circle(192)) <= 2.5e-2


@pytest.mark.parametrize("oversampling", [1.25, 1.5, 2.0])
def test_a_disc_of_one_is_one(oversampling, golden, golden_geometry, disc_mean):
    reconstruct = Gridrec(golden_geometry, oversampling=oversampling)
    image = reconstruct(torch.from_numpy(golden["disc_sinogram"])[None])[0]
    assert disc_mean(image, reconstruct.origin) == pytest.approx(1, abs=0.002)


def test_a_disc_of_one_is_one_by_direct_back_projection(golden, golden_geometry, disc_mean):
    reconstruct = FBP(golden_geometry)
    image = reconstruct(torch.from_numpy(golden["disc_sinogram"])[None])[0]
    assert disc_mean(image, reconstruct.origin) == pytest.approx(1, abs=0.002)


@METHODS
@pytest.mark.parametrize(
    "theta",
    [
        DEGREES[:180],
        DEGREES[:181],
        DEGREES,
        np.arange(233) * np.pi * (np.sqrt(5) - 1) / 2 % np.pi,
        np.random.default_rng(0).permutation(DEGREES[:180]),
        np.repeat(DEGREES[:180:2], 3),
        np.deg2rad(np.r_[0:90:0.5, 90:180:2]),
        DEGREES[:150],
    ],
    ids=["half", "closed", "full", "golden", "shuffled", "repeated", "two-densities", "aborted"],
)
def test_a_disc_of_one_is_one_however_it_is_scanned(method, theta):
    geometry = ScanGeometry(theta, 46.3, 96)
    reconstruct = method(geometry)
    x = (np.arange(96 * 8) + 0.5) / 8 - 0.5 - geometry.rotation_centre
    distance = x - (4 * np.cos(theta) - 3 * np.sin(theta))[:, None]
    lines = 2 * np.sqrt(np.maximum(30**2 - distance**2, 0)).reshape(len(theta), 96, 8).mean(2)
    image = reconstruct(torch.from_numpy(lines.astype(np.float32))[None])[0].numpy()
    row, column = np.indices(image.shape)
    radius = np.hypot(row - reconstruct.origin[0] - 3, column - reconstruct.origin[1] - 4)
    # Edges that no projection was taken along blur, which tells in the middle of an arc's disc.
    part, tolerance = (0.4, 0.05) if len(theta) == 150 else (0.8, 0.01)
    assert image[radius < part * 30].mean() == pytest.approx(1, abs=tolerance)


@METHODS
@pytest.mark.parametrize(
    "theta",
    [
        DEGREES[:181],
        np.deg2rad(np.r_[0:90:0.5, 90:180:2]),
        np.pi * np.arange(240) ** 1.2 / 240**1.2,
    ],
    ids=["closed", "two-densities", "ever-wider"],
)
def test_uneven_angles_show_no_direction_more_than_another(
    method, theta, make_blobs, circle, relative_error
):
    geometry = ScanGeometry(theta, 30.2, 64)
    blobs = make_blobs(radius=26)
    reconstruct = method(geometry)
    mask = torch.from_numpy(circle(64))
    wanted = blobs.image(64, reconstruct.origin)
    assert relative_error(reconstruct(blobs.sinogram(geometry))[:, mask], wanted[:, mask]) < 4e-3


@METHODS
def test_the_order_of_projections_changes_rounding_only(method, golden, relative_error):
    theta = golden["theta"] ** 1.2
    sinogram = torch.from_numpy(golden["sinograms"][:1, :, 48:144])
    order = np.random.default_rng(0).permutation(len(theta))
    ordered = method(ScanGeometry(theta, 46.3, 96))(sinogram)
    shuffled = method(ScanGeometry(theta[order], 46.3, 96))(sinogram[:, order])
    assert relative_error(shuffled, ordered) < 1e-6


def test_bits_do_not_depend_on_the_number_of_threads(one_or_more_threads):
    # More samples than torch computes on one thread, at sizes where it shows in the last bit.
    geometry = ScanGeometry(np.arange(400) * np.pi / 400, 100.7, 251)
    sinograms = torch.rand(3, 400, 251)
    volumes = []
    for n_threads in (1, 3):
        one_or_more_threads(n_threads)
        volumes.append(Gridrec(geometry)(sinograms))
    assert torch.equal(*volumes)


def test_agrees_with_direct_back_projection(golden, golden_geometry, circle, relative_error):
    sinograms = torch.from_numpy(golden["sinograms"])
    mask = torch.from_numpy(circle(192))
    direct = FBP(golden_geometry)(sinograms)[:, mask]
    assert relative_error(Gridrec(golden_geometry)(sinograms)[:, mask], direct) < 0.01
    fine = Gridrec(golden_geometry, oversampling=4.0)
    assert relative_error(fine(sinograms)[:, mask], direct) < 0.004


@METHODS
def test_is_linear(method, geometry, relative_error):
    a, b = torch.rand(2, 1, 61, 97)
    reconstruct = method(geometry, "shepp")
    together = reconstruct(2 * a - 3 * b)
    assert relative_error(together, 2 * reconstruct(a) - 3 * reconstruct(b)) < 1e-5


@METHODS
@pytest.mark.parametrize("n_threads", [1, 2])
def test_bits_do_not_depend_on_the_slices_beside(method, n_threads, one_or_more_threads):
    one_or_more_threads(n_threads)
    # So many angles that two threads share out the work of a few slices.
    geometry = ScanGeometry(np.arange(181) * np.pi / 181, 46.7, 96)
    reconstruct = method(geometry)
    sinograms = torch.rand(11, 181, 96)
    volume = reconstruct(sinograms)
    for size in (1, 3, 7):
        parts = [reconstruct(part) for part in sinograms.split(size)]
        assert torch.equal(torch.cat(parts), volume), f"slabs of {size}"


@METHODS
def test_refuses_what_does_not_fit(method, geometry):
    reconstruct = method(geometry)
    with pytest.raises(ReconstructionError, match=r"\(slice, 61, 97\).*got \(2, 60, 97\)"):
        reconstruct(torch.zeros(2, 60, 97))
    with pytest.raises(ReconstructionError, match=r"got \(61, 97\)"):
        reconstruct(torch.zeros(61, 97))
    with pytest.raises(ReconstructionError, match="float64"):
        reconstruct(torch.zeros(2, 61, 97, dtype=torch.float64))
    with pytest.raises(ReconstructionError, match=r"torch.Tensor, got ndarray; .*from_numpy"):
        reconstruct(np.zeros((2, 61, 97), np.float32))
    broken = torch.zeros(2, 61, 97)
    broken[1, 5, 90] = torch.inf
    with pytest.raises(ReconstructionError, match="inf at slice 1, angle 5, column 90"):
        reconstruct(broken)
    # Values so large that their sum overflows are still finite values.
    reconstruct(torch.full((2, 61, 97), 1e35))


@METHODS
def test_refuses_one_direction_and_settings_that_do_not_exist(method):
    one = ScanGeometry(np.full(3, 0.7), 46.7, 97)
    with pytest.raises(ReconstructionError, match="different angles, got 3 at 0.7 radians"):
        method(one)(torch.zeros(2, 3, 97))
    with pytest.raises(ReconstructionError, match="filter: expected one of ramlak, .*'shep'"):
        method(one, "shep")


@pytest.mark.parametrize("oversampling", [0.5, 1.0, 1.2, np.inf, np.nan])
def test_refuses_a_grid_that_is_too_small(oversampling):
    """With 600 columns a slice does not even fit into the grid of an oversampling of 1."""
    geometry = ScanGeometry(np.arange(5) * np.pi / 5, 300.0, 600)
    for method in (
        Gridrec,
        Projector,
        partial(SIRT, iterations=1),
        partial(IncrementalGridrec, n_slices=1),
    ):
        with pytest.raises(ReconstructionError, match=r"at least 1\.25 image widths, got"):
            method(geometry, oversampling=oversampling)


def test_the_configuration_allows_what_is_not_refused():
    (least,) = (
        bound.ge
        for bound in ReconstructionConfig.model_fields["oversampling"].metadata
        if hasattr(bound, "ge")
    )
    assert least == LEAST_OVERSAMPLING
    for n_columns in (96, 97, 600, 601):
        geometry = ScanGeometry(np.arange(5) * np.pi / 5, 50.0, n_columns)
        slices = Gridrec(geometry, oversampling=least)(torch.rand(1, 5, n_columns))
        assert torch.isfinite(slices).all()


@METHODS
def test_no_slices_give_no_slices(method, geometry):
    assert method(geometry)(torch.zeros(0, 61, 97)).shape == (0, 97, 97)


def test_real_scan_agrees_with_tomopy(tooth, circle, residual):
    attenuation, geometry, reference = tooth
    volume = Gridrec(geometry, "shepp")(attenuation)
    for image, wanted in zip(volume, reference, strict=True):
        assert residual(image, wanted, circle(640)) <= 1e-2
