import logging
from itertools import pairwise

import numpy as np
import pytest
import torch

from tomogan_bluesky.errors import ReconstructionError
from tomogan_bluesky.geometry import ScanGeometry
from tomogan_bluesky.recon import iterative
from tomogan_bluesky.recon.gridrec import Gridrec
from tomogan_bluesky.recon.iterative import SIRT, TotalVariation, projection_noise
from tomogan_bluesky.recon.project import Projector

METHODS = pytest.mark.parametrize("method", [SIRT, TotalVariation])
N = 96


def even(n_angles, centre=45.2, n_columns=N):
    return ScanGeometry(np.arange(n_angles) * np.pi / n_angles, centre, n_columns)


def discs(geometry, origin, fine=8):
    """A disc of 1 with a hole: exact line integrals (1, angle, column), and the slice (1, y, x)."""
    n = geometry.n_columns
    shapes = ((1.0, 2.0, -3.0, 0.36 * n), (-0.5, -8.0, 6.0, 0.1 * n))
    t = (np.arange(n * fine) + 0.5) / fine - 0.5 - geometry.rotation_centre
    place = (np.arange(n * fine) + 0.5) / fine - 0.5
    rows, columns = place[:, None] - origin[0], place - origin[1]
    lines, image = 0.0, 0.0
    for value, x, y, r in shapes:
        shadow = (x * np.cos(geometry.theta) - y * np.sin(geometry.theta))[:, None]
        lines = lines + 2 * value * np.sqrt(np.maximum(r**2 - (t - shadow) ** 2, 0))
        image = image + value * ((columns - x) ** 2 + (rows - y) ** 2 < r**2)
    lines = lines.reshape(-1, n, fine).mean(2)
    image = image.reshape(n, fine, n, fine).mean((1, 3))
    return (torch.from_numpy(a.astype(np.float32))[None] for a in (lines, image))


def noisy(lines, level=2.0):
    return lines + level * torch.randn(lines.shape, generator=torch.Generator().manual_seed(0))


@METHODS
@pytest.mark.parametrize("n_columns", [N, N + 1])
def test_objects_come_out_in_their_place_and_in_absolute_units(method, n_columns, relative_error):
    geometry = even(120, n_columns / 2 - 3.3, n_columns)
    reconstruct = method(geometry, 60)
    lines, wanted = discs(geometry, reconstruct.origin)
    image = reconstruct(lines)
    assert image.dtype == torch.float32
    assert relative_error(image, wanted) < 0.12
    rows, columns = np.indices(wanted[0].shape)
    inside = np.hypot(rows - n_columns / 2 + 14, columns - n_columns / 2 - 14) < 8
    assert wanted[0, inside].min() == 1
    assert image[0, inside].mean() == pytest.approx(1, abs=0.01)


@METHODS
@pytest.mark.parametrize("n_columns", [64, 97])
def test_projector_and_back_projector_are_each_others_transpose(method, n_columns):
    theta = np.random.default_rng(2).uniform(0, np.pi, 41)
    geometry = ScanGeometry(theta, 0.4 * n_columns, n_columns)
    reconstruct = method(geometry, 1)
    weights = torch.tensor(geometry.weights, dtype=torch.float64)[:, None]
    image, sinogram = torch.randn(1, n_columns, n_columns), torch.randn(1, 41, n_columns)
    lines = reconstruct._project(image).double()
    volume = reconstruct._back_project(sinogram).double()
    difference = (lines * weights * sinogram).sum() - (image * volume).sum()
    assert abs(difference) < 1e-6 * lines.norm() * (weights * sinogram).norm()


@METHODS
def test_projections_of_what_comes_out_fit_what_went_in(method, make_blobs, relative_error):
    geometry = even(120)
    lines = make_blobs(radius=38).sinogram(geometry)
    image = method(geometry, 100)(lines)
    assert relative_error(Projector(geometry)(image), lines) < 0.015


@METHODS
def test_angles_that_were_measured_three_times_count_once(method, relative_error):
    once = even(40)
    thrice = ScanGeometry(np.repeat(once.theta, 3), once.rotation_centre, N)
    lines, _ = discs(once, (47, 48))
    # Else the estimate of the noise would have less of it.
    images = [
        method(geometry, 30)(sinogram)
        for geometry, sinogram in ((once, lines), (thrice, lines.repeat_interleave(3, dim=1)))
    ]
    if method is TotalVariation:
        # Three measurements of the same noise are worth one, which its strength can't know.
        images[1] = method(thrice, 30, strength=3**0.5)(lines.repeat_interleave(3, dim=1))
    assert relative_error(images[1], images[0]) < 1e-3


@METHODS
def test_scales_with_the_data(method, geometry, relative_error):
    sinograms = torch.rand(1, 61, 97)
    reconstruct = method(geometry, 10)
    assert relative_error(reconstruct(0.01 * sinograms), 0.01 * reconstruct(sinograms)) < 1e-5


def test_sirt_is_linear(geometry, relative_error):
    a, b = torch.rand(2, 1, 61, 97)
    reconstruct = SIRT(geometry, 10)
    assert (
        relative_error(reconstruct(2 * a - 3 * b), 2 * reconstruct(a) - 3 * reconstruct(b)) < 1e-5
    )


def test_sirt_comes_closer_to_the_data_with_each_iteration():
    geometry = even(60)
    lines, _ = discs(geometry, (47, 48))
    project = Projector(geometry)
    misfits = [float((project(SIRT(geometry, k)(lines)) - lines).norm()) for k in (1, 3, 10, 30)]
    assert all(after < 0.8 * before for before, after in pairwise(misfits))


def cost(geometry, image, lines, bound):
    """What total variation makes smallest."""
    weights = torch.from_numpy(geometry.weights)[:, None]
    misfit = (Projector(geometry, 1.5)(image).double() - lines) ** 2 * weights
    down, right = image.double().diff(dim=1)[..., :-1], image.double().diff(dim=2)[:, :-1]
    return float(misfit.sum() / 2 + bound * torch.hypot(down, right).sum())


def test_total_variation_finds_the_least_of_its_cost():
    geometry = even(60)
    lines = noisy(next(discs(geometry, (47, 48))))
    bound = float(projection_noise(lines)) * np.sqrt((geometry.weights**2).sum())
    found = TotalVariation(geometry, 400)(lines)
    least = cost(geometry, found, lines, bound)
    assert least < 0.8 * cost(geometry, Gridrec(geometry, "hann")(lines), lines, bound)
    assert cost(geometry, TotalVariation(geometry, 100)(lines), lines, bound) < 1.005 * least
    smoother = torch.nn.functional.avg_pool2d(found, 3, 1, 1)
    for direction in (found, smoother - found, torch.randn(found.shape)):
        direction = direction * float(found.norm() / direction.norm())
        for step in (-0.01, 0.01):
            assert cost(geometry, found + step * direction, lines, bound) > least


@pytest.mark.parametrize("level", [0.5, 4.0])
def test_total_variation_beats_every_filter_at_any_dose(level, circle):
    geometry = even(60)
    reconstruct = TotalVariation(geometry, 60)
    lines, wanted = discs(geometry, reconstruct.origin)
    lines, mask = noisy(lines, level), torch.from_numpy(circle(N))

    def error(image):
        return float((image - wanted)[:, mask].norm())

    filtered = min(error(Gridrec(geometry, f)(lines)) for f in ("ramlak", "hann", "parzen"))
    assert error(reconstruct(lines)) < 0.6 * filtered


def test_noise_of_projections_is_told_from_their_content():
    lines = next(discs(even(60), (47, 48)))
    for level in (0.5, 2.0):
        found = projection_noise(torch.cat((noisy(lines, level), noisy(0 * lines, level))))
        assert found.tolist() == pytest.approx([level, level], rel=0.25)
    assert projection_noise(torch.zeros(2, 5, 2)).tolist() == [0, 0]


@METHODS
def test_nothing_comes_of_nothing(method, geometry):
    assert not method(geometry, 3)(torch.zeros(1, 61, 97)).any()
    assert method(geometry, 3)(torch.zeros(0, 61, 97)).shape == (0, 97, 97)


@METHODS
@pytest.mark.parametrize("n_threads", [1, 2])
def test_bits_do_not_depend_on_the_slices_beside(method, n_threads, one_or_more_threads):
    one_or_more_threads(n_threads)
    reconstruct = method(ScanGeometry(np.arange(181) * np.pi / 181, 46.7, N), 2)
    # Of noise of their own each, by which total variation is to be weighed.
    sinograms = torch.rand(11, 181, N) * torch.linspace(0.1, 3, 11)[:, None, None]
    volume = reconstruct(sinograms)
    for size in (1, 3, 7):
        parts = [reconstruct(part) for part in sinograms.split(size)]
        assert torch.equal(torch.cat(parts), volume), f"slabs of {size}"


@METHODS
def test_refuses_what_does_not_fit(method, geometry):
    with pytest.raises(ReconstructionError, match=r"got \(2, 60, 97\)"):
        method(geometry, 1)(torch.zeros(2, 60, 97))
    with pytest.raises(ReconstructionError, match="nan at slice 0, angle 0, column 0"):
        method(geometry, 1)(torch.full((2, 61, 97), torch.nan))


@METHODS
def test_says_how_far_it_is(method, geometry, caplog, monkeypatch):
    monkeypatch.setattr(iterative, "_SECONDS_BETWEEN_LOGS", 0.0)
    with caplog.at_level(logging.INFO, logger=iterative.__name__):
        method(geometry, 2)(torch.rand(3, 61, 97))
    assert caplog.messages == [f"{method.name} of 3 slices: iteration {i} of 2" for i in (1, 2)]
