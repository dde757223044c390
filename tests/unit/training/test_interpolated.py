"""Slices as a linearly interpolating back-projection shows them."""

import numpy as np
import pytest
import torch

from tomogan_bluesky.geometry import ScanGeometry
from tomogan_bluesky.recon.filters import apply_response, filter_response, transform_size
from tomogan_bluesky.recon.gridrec import Gridrec
from tomogan_bluesky.training.goals import verdicts
from tomogan_bluesky.training.interpolated import LINEAR, Views, interpolated
from tomogan_bluesky.training.metrics import field_of_view, ssim
from tomogan_bluesky.training.pinned import PinnedSlices


def back_projection(sinogram, geometry, origin):
    """The textbook's: each pixel sums filtered projections, linearly interpolated."""
    n = geometry.n_columns
    size = transform_size(2 * n)
    spectrum = torch.fft.rfft(torch.from_numpy(sinogram), size)
    filtered = torch.fft.irfft(
        apply_response(spectrum, filter_response("ramlak", size).float()), size
    )[:, :n].numpy()
    y, x = (np.arange(n) - o for o in origin)
    image = np.zeros((n, n))
    for theta, line in zip(geometry.theta, filtered, strict=True):
        at = geometry.rotation_centre + x * np.cos(theta) - y[:, None] * np.sin(theta)
        image += np.interp(at, np.arange(n), line)
    return image * np.pi / geometry.n_angles


def test_contrast_is_that_of_a_back_projection_that_interpolates_linearly():
    """What it aliases besides has nothing to do with what it shows, and drops out of a product."""
    n = 128
    geometry = ScanGeometry(np.arange(384) * (np.pi / 384), 63.5, n)
    gridrec = Gridrec(geometry)
    sinogram = np.random.default_rng(0).standard_normal((384, n), dtype=np.float32)
    ours = gridrec(torch.from_numpy(sinogram[None])).numpy()
    theirs = back_projection(sinogram, geometry, gridrec.origin)
    inside = field_of_view(n)

    def contrast(image):
        return (theirs * image)[inside].sum() / (image[inside] ** 2).sum()

    assert contrast(ours[0]) < 0.7
    assert contrast(interpolated(ours)[0]) == pytest.approx(1, abs=0.02)
    assert interpolated(ours).dtype == np.float32


def test_means_stay_and_the_highest_frequency_is_damped():
    flat = np.full((1, 8, 8), 3.0, np.float32)
    stripes = np.where(np.arange(8) % 2, 1, -1).astype(np.float32) * np.ones((1, 8, 1), np.float32)
    seen = interpolated(flat + stripes)
    assert seen == pytest.approx(flat + stripes * np.sinc(0.5) ** 2, abs=1e-6)


@pytest.fixture
def slices():
    clean = np.random.default_rng(0).random((2, 32, 32), dtype=np.float32)
    return PinnedSlices(("foam", "shale"), clean, clean + 0.1, {0.25: clean + 0.2})


def test_a_second_view_is_scored_against_references_seen_so(slices):
    images = slices.clean[:, ::-1]
    plain, linear = Views("256", slices, linear=True).score(0.25, "net", images, 3.0, 0.5)
    assert (plain.case, linear.case) == ("256", "256" + LINEAR)
    assert linear.ms_a_slice == 3.0
    assert linear.share == 0.5
    for name, reference in (("ssim", slices.clean), ("ssim_full", slices.full_dose)):
        pairs = zip(interpolated(images), interpolated(reference), strict=True)
        np.testing.assert_array_equal(linear.scores[name], [ssim(a, b) for a, b in pairs])
    (only,) = Views("256", slices, linear=False).score(0.25, "net", images)
    np.testing.assert_array_equal(only.scores["ssim"], plain.scores["ssim"])


def test_the_goals_are_asked_of_both_views(slices):
    results = list(Views("256", slices, linear=True).score(0.25, "net", slices.clean))
    found = [v for v in verdicts(results, "net") if v.goal == "dose 0.25: ssim"]
    assert [(v.case, v.needed, v.met) for v in found] == [
        ("256", 0.945, True),
        ("256" + LINEAR, 0.945, True),
    ]
