import warnings

import numpy as np
import pytest
import torch

from tomogan_bluesky.errors import ReconstructionError, RotationCentreError
from tomogan_bluesky.geometry import ScanGeometry
from tomogan_bluesky.recon.binning import (
    bin_frames,
    binned_column,
    full_to_half_turn,
    unbinned_column,
)


@pytest.fixture(scope="module")
def tomopy():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TomoPy warns of optional libraries when imported
        return pytest.importorskip("tomopy", reason="TomoPy is not importable")


def full_turn(n):
    return np.arange(n) * (2 * np.pi / n)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_binning_takes_means_of_squares(k):
    counts = torch.randint(0, 65535, (11, 3, 17), dtype=torch.int32).to(torch.uint16)
    rows, columns = 11 // k, 17 // k
    squares = counts.numpy()[: rows * k, :, : columns * k].astype(float)
    wanted = squares.reshape(rows, k, 3, columns, k).mean((1, 4))
    binned = bin_frames(counts, k)
    assert binned.dtype == torch.float32
    np.testing.assert_allclose(binned, wanted, rtol=1e-6)


def test_binning_moves_the_axis_to_where_its_column_went(make_blobs):
    fine = ScanGeometry(np.linspace(0, np.pi, 7), 83.3, 192)
    lines = make_blobs(radius=60).sinogram(fine)
    mass = bin_frames(lines.repeat(4, 1, 1), 4)[0].double()
    centroid = (mass @ torch.arange(48.0).double()) / mass.sum(1)
    x = lines[0].double()
    wanted = (x @ torch.arange(192.0).double()) / x.sum(1)
    np.testing.assert_allclose(centroid, [binned_column(float(c), 4) for c in wanted], atol=1e-3)
    assert unbinned_column(binned_column(83.3, 4), 4) == pytest.approx(83.3)
    assert binned_column(0.5, 2) == 0


@pytest.mark.parametrize("k", [0, 5, -1])
def test_binning_refuses_more_pixels_than_there_are(k):
    with pytest.raises(
        ReconstructionError, match=f"the 4 rows and 9 columns of the frames, got {k}"
    ):
        bin_frames(torch.zeros(4, 2, 9), k)
    with pytest.raises(ReconstructionError, match=r"got \(4, 9\)"):
        bin_frames(torch.zeros(4, 9), 1)


@pytest.mark.parametrize("centre", [16.0, 19.5, 22.3, 75.0, 77.5, 70.81])
@pytest.mark.parametrize("n_angles", [60, 61])
def test_stitching_gives_the_scan_of_a_wider_detector(centre, n_angles, make_blobs):
    """An odd last angle repeats the first."""
    theta = np.arange(n_angles) * (np.pi / 30) + 0.3
    blobs = make_blobs(radius=90)
    narrow = blobs.sinogram(ScanGeometry(theta, centre, 96))
    stitched, half, new_centre = full_to_half_turn(narrow, theta, centre)
    geometry = ScanGeometry(half, new_centre, stitched.shape[2])
    assert len(half) == 30
    assert geometry.n_columns == int(2 * max(centre, 95 - centre)) + 1
    wanted = blobs.sinogram(geometry)
    # Interpolation between columns costs a little.
    error = 1e-5 if float(2 * centre).is_integer() else 5e-3
    assert (stitched - wanted).norm() < error * wanted.norm()


@pytest.mark.parametrize("centre", [0, 9.5, 24.0, 30.5, 40, 49])
def test_stitching_is_tomopys(centre, tomopy):
    sinogram = np.random.default_rng(0).normal(size=(2, 12, 50)).astype(np.float32)
    stitched, _, _ = full_to_half_turn(torch.from_numpy(sinogram), full_turn(12), centre)
    right = centre > 24.5
    wanted = tomopy.sino_360_to_180(
        sinogram.transpose(1, 0, 2).copy(),
        overlap=2 * (49 - centre if right else centre) + 1,
        rotation="right" if right else "left",
    )
    if min(centre, 49 - centre):  # of one column, TomoPy's weights keep none
        np.testing.assert_allclose(stitched, wanted.transpose(1, 0, 2), atol=1e-6)
    assert stitched.shape == (2, 6, wanted.shape[2])


def test_stitching_does_not_depend_on_the_rows_beside():
    sinogram = torch.rand(5, 20, 33)
    together, _, _ = full_to_half_turn(sinogram, full_turn(20), 25.3)
    for row in range(5):
        alone, _, _ = full_to_half_turn(sinogram[row : row + 1], full_turn(20), 25.3)
        assert torch.equal(alone[0], together[row])


def test_stitching_refuses_other_scans():
    sinogram = torch.rand(1, 20, 33)
    for theta in (full_turn(20) / 2, np.sort(np.random.default_rng(0).uniform(0, 6.28, 20))):
        with pytest.raises(ReconstructionError, match="angles evenly over 360 degrees"):
            full_to_half_turn(sinogram, theta, 5)
    with pytest.raises(ReconstructionError, match=r"\(1, 20, 33\) and \(19,\) angles"):
        full_to_half_turn(sinogram, full_turn(20)[1:], 5)
    with pytest.raises(ReconstructionError, match="got none"):
        full_to_half_turn(sinogram[:, :0], full_turn(20)[:0], 5)
    for centre in (-1, 33, 16, float("nan")):
        with pytest.raises(RotationCentreError, match="beside its middle"):
            full_to_half_turn(sinogram, full_turn(20), centre)
