import numpy as np
import pytest
import torch

from tomogan_bluesky.errors import ReconstructionError
from tomogan_bluesky.geometry import ScanGeometry
from tomogan_bluesky.recon.gridrec import Gridrec
from tomogan_bluesky.recon.project import Projector


@pytest.mark.parametrize("n_columns", [96, 97])
def test_line_integrals_of_smooth_objects_are_exact(n_columns, make_blobs, relative_error):
    geometry = ScanGeometry(np.linspace(-1, 4, 90), n_columns / 2 + 2.7, n_columns)
    blobs = make_blobs(radius=0.4 * n_columns)
    project = Projector(geometry)
    sinogram = project(blobs.image(n_columns, project.origin))
    assert sinogram.dtype == torch.float32
    assert relative_error(sinogram, blobs.sinogram(geometry)) < 1e-3


def test_edges_are_right_on_a_finer_grid_averaged_down(relative_error):
    n, centre, fine, radius, value = 96, 45.8, 2, 30.3, 0.02
    theta = np.arange(90) * np.pi / 90
    geometry = ScanGeometry(theta, fine * (centre + 0.5) - 0.5, fine * n)
    project = Projector(geometry)
    row, column = np.mgrid[: 8 * fine * n, : 8 * fine * n]
    y, x = ((i + 0.5) / 8 - 0.5 - o for i, o in zip((row, column), project.origin, strict=True))
    disc = np.hypot(x / fine - 4, y / fine + 7) < radius
    image = value / fine * disc.reshape(fine * n, 8, fine * n, 8).mean((1, 3))
    lines = project(torch.from_numpy(image.astype(np.float32))[None])
    t = (np.arange(64 * n) + 0.5) / 64 - 0.5 - centre
    t = t - (4 * np.cos(theta) + 7 * np.sin(theta))[:, None]
    wanted = 2 * value * np.sqrt(np.maximum(radius**2 - t**2, 0))
    wanted = torch.from_numpy(wanted.reshape(1, 90, n, 64).mean(3).astype(np.float32))
    assert relative_error(lines.reshape(1, 90, n, fine).mean(3), wanted) < 2e-3


@pytest.mark.parametrize("oversampling", [1.25, 1.5, 2.0])
@pytest.mark.parametrize("n_columns", [64, 97])
def test_is_the_adjoint_of_unfiltered_reconstruction(n_columns, oversampling):
    geometry = ScanGeometry(np.linspace(0, 3, 41), 0.4 * n_columns, n_columns)
    back_project = Gridrec(geometry, "none", oversampling)
    project = Projector(geometry, oversampling)
    weights = torch.tensor(geometry.weights, dtype=torch.float32)
    image, sinogram = torch.randn(1, n_columns, n_columns), torch.randn(1, 41, n_columns)
    lines = project(image).double()
    volume = back_project(sinogram / weights[:, None]).double()
    difference = (lines * sinogram).sum() - (image * volume).sum()
    assert abs(difference) < 1e-6 * lines.norm() * sinogram.norm()


def test_undoes_reconstruction(make_blobs, relative_error):
    geometry = ScanGeometry(np.arange(150) * np.pi / 150, 47.1, 96)
    project = Projector(geometry)
    image = make_blobs(radius=38).image(96, project.origin)
    assert relative_error(Gridrec(geometry)(project(image)), image) < 3e-3


def test_each_projection_holds_the_whole_object(geometry, make_blobs):
    project = Projector(geometry)
    image = make_blobs(radius=30).image(97, project.origin)
    torch.testing.assert_close(project(image).sum(2), image.sum().expand(1, 61), rtol=2e-3, atol=0)


def test_is_linear(geometry, relative_error):
    a, b = torch.rand(2, 1, 97, 97)
    project = Projector(geometry)
    assert relative_error(project(2 * a - 3 * b), 2 * project(a) - 3 * project(b)) < 1e-5


@pytest.mark.parametrize("n_threads", [1, 2])
def test_bits_do_not_depend_on_the_slices_beside(n_threads, one_or_more_threads):
    one_or_more_threads(n_threads)
    # So many angles that two threads share out the work of a few slices.
    geometry = ScanGeometry(np.arange(181) * np.pi / 181, 46.7, 97)
    project = Projector(geometry)
    images = torch.rand(11, 97, 97)
    sinograms = project(images)
    for size in (1, 3, 7):
        parts = [project(part) for part in images.split(size)]
        assert torch.equal(torch.cat(parts), sinograms), f"slabs of {size}"


def test_refuses_what_does_not_fit(geometry):
    project = Projector(geometry)
    with pytest.raises(ReconstructionError, match=r"\(slice, 97, 97\).*got \(2, 61, 97\)"):
        project(torch.zeros(2, 61, 97))
    broken = torch.zeros(2, 97, 97)
    broken[0, 3, 4] = torch.nan
    with pytest.raises(ReconstructionError, match="nan at slice 0, y 3, x 4"):
        project(broken)
