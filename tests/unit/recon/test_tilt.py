import numpy as np
import pytest
import torch

from tomogan_bluesky.config import PreprocessingConfig, ReconstructionConfig
from tomogan_bluesky.errors import ConfigurationError
from tomogan_bluesky.geometry import ScanGeometry
from tomogan_bluesky.pipeline.slabs import find_rotation_centre
from tomogan_bluesky.recon.gridrec import Gridrec
from tomogan_bluesky.recon.preprocess import Fields
from tomogan_bluesky.recon.tilt import align_rows, row_shifts

THETA = np.arange(90) * np.pi / 90


def test_shifts_are_those_of_a_straight_axis_through_the_middle():
    shifts = row_shifts(2.0, 5, 100)
    assert shifts == pytest.approx(np.tan(np.deg2rad(2.0)) * np.array([-2, -1, 0, 1, 2]))
    with pytest.raises(
        ConfigurationError, match=r"at most 8 columns.*got 10 degrees, which is 8\.7"
    ):
        row_shifts(10.0, 100, 64)


@pytest.mark.parametrize("n_columns", [64, 65])
def test_rows_about_centres_of_their_own_come_to_one_centre(n_columns, make_blobs, relative_error):
    blobs, shifts = make_blobs(radius=22), np.array([-3.3, 0.0, 1.7])
    wanted = blobs.sinogram(ScanGeometry(THETA, 30.2, n_columns))
    tilted = torch.cat(
        [blobs.sinogram(ScanGeometry(THETA, 30.2 + shift, n_columns)) for shift in shifts]
    )
    aligned = align_rows(tilted, shifts)
    assert aligned.dtype == torch.float32
    for row in aligned:
        assert relative_error(row[None], wanted) < 1e-3
    reconstruct = Gridrec(ScanGeometry(THETA, 30.2, n_columns))
    slices = reconstruct(aligned)
    assert relative_error(slices[0], slices[1]) < 2e-3
    assert relative_error(reconstruct(tilted)[0], slices[1]) > 0.1


def test_a_sample_wider_than_the_detector_stays_smooth_at_its_ends():
    ramp = torch.linspace(2, 5, 64).expand(1, 3, 64)
    aligned = align_rows(ramp.contiguous(), np.array([0.5]))
    step = 3 / 63
    assert (aligned[..., 4:-4] - ramp[..., 4:-4] - step / 2).abs().max() < 0.2 * step
    assert (aligned - ramp).abs().max() < 2 * step


@pytest.mark.parametrize("n_threads", [1, 2])
def test_bits_depend_neither_on_rows_beside_nor_on_projections(n_threads, one_or_more_threads):
    lines, shifts = torch.rand(5, 180, 200), np.linspace(-2, 3, 5)
    one_or_more_threads(1)
    wanted = align_rows(lines, shifts)
    one_or_more_threads(n_threads)
    for rows in (slice(0, 1), slice(1, 4)):
        assert torch.equal(align_rows(lines[rows], shifts[rows]), wanted[rows])
    parts = [align_rows(part.contiguous(), shifts) for part in lines.split(7, dim=1)]
    assert torch.equal(torch.cat(parts, dim=1), wanted)


def test_the_centre_is_that_of_the_middle_row_wherever_it_is_looked_for(make_blobs):
    n_rows, tilt = 60, 3.0
    shifts = row_shifts(tilt, n_rows, 96)
    theta = np.arange(181) * np.pi / 180
    lines = torch.cat(
        [make_blobs(radius=38).sinogram(ScanGeometry(theta, 46.2 + shift, 96)) for shift in shifts]
    )
    frames = torch.exp(-0.01 * lines).numpy()
    ones = np.ones((n_rows, 96), np.float32)
    fields = Fields(0 * ones, ones[None], np.ones((181, 1), np.float32))
    config = ReconstructionConfig(preprocessing=PreprocessingConfig(axis_tilt_deg=tilt))
    for rows in ((0, 60), (40, 52)):

        def read(angles, spread, first=rows[0]):
            return frames[spread][:, angles]

        found = find_rotation_centre(read, theta, fields, rows, config)
        assert found.centre == pytest.approx(46.2, abs=0.1)
