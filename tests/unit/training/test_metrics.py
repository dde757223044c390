import math

import numpy as np
import pytest
from scipy import ndimage
from skimage.metrics import structural_similarity

from tomogan_bluesky.errors import ConfigurationError
from tomogan_bluesky.training.metrics import (
    edge_f1,
    edge_fidelity,
    field_of_view,
    fourier_ring_correlation,
    frc_frequency,
    psnr,
    sobel_magnitude,
    ssim,
)

SCORES = (psnr, ssim, edge_fidelity, edge_f1)


@pytest.fixture
def reference():
    rng = np.random.default_rng(0)
    return ndimage.gaussian_filter(rng.standard_normal((96, 96)), 3).astype(np.float32)


def test_field_of_view_is_a_centred_circle():
    inside = field_of_view(101)
    assert inside.sum() == pytest.approx(math.pi * (0.9 * 50.5) ** 2, rel=0.01)
    assert np.array_equal(inside, inside[::-1])
    assert np.array_equal(inside, inside.T)


def test_psnr_of_a_known_error(reference):
    peak = np.ptp(reference[field_of_view(96)])
    assert psnr(reference + np.float32(peak / 100), reference) == pytest.approx(40, abs=1e-3)
    assert psnr(reference, reference) == math.inf


def test_equal_images_are_perfect(reference):
    assert ssim(reference, reference) == pytest.approx(1)
    assert edge_fidelity(reference, reference) == 1
    assert edge_f1(reference, reference) == 1


@pytest.mark.parametrize("score", SCORES)
def test_more_noise_scores_lower(score, reference):
    noise = np.random.default_rng(1).standard_normal(reference.shape).astype(np.float32)
    scores = [score(reference + s * reference.std() * noise, reference) for s in (0.1, 0.3, 1.0)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > scores[2]


@pytest.mark.parametrize("score", SCORES)
def test_units_and_what_lies_outside_do_not_matter(score, reference):
    image = ndimage.gaussian_filter(reference, 1)
    expected = score(image, reference)
    assert score(1e3 * image, 1e3 * reference) == pytest.approx(expected, rel=1e-4)
    far = ~ndimage.binary_dilation(field_of_view(96), iterations=7)
    garbage = image.copy()
    garbage[far] = 50.0
    assert score(garbage, reference) == pytest.approx(expected, rel=1e-6)


def test_blurred_edges_lose_fidelity_in_proportion():
    """All gradients halved: half of each edge's magnitude is gone."""
    ramp = np.random.default_rng(2).random((64, 64))
    assert edge_fidelity(0.5 * ramp, ramp) == pytest.approx(0.5)


def test_fidelity_looks_at_edges_alone(reference):
    """Noise away from the reference's edges does not count."""
    strength = sobel_magnitude(reference)
    edges = strength > np.quantile(strength[field_of_view(96)], 0.85)
    away = ~ndimage.binary_dilation(edges, np.ones((5, 5)))
    noise = np.random.default_rng(3).standard_normal(reference.shape) * reference.std()
    assert edge_fidelity(reference + 0.5 * noise * away, reference) == 1
    assert edge_fidelity(reference + 0.5 * noise, reference) < 0.9


def test_sobel_is_scipys(reference):
    expected = np.hypot(*(ndimage.sobel(reference.astype(float), axis=a) for a in (0, 1)))
    assert np.allclose(sobel_magnitude(reference), expected, atol=1e-12)


@pytest.mark.parametrize("size", [96, 31])  # at 31 pixels the windows reach over the borders
def test_ssim_is_scikit_images_inside_the_circle(reference, size):
    reference = reference[:size, :size]
    noise = np.random.default_rng(4).standard_normal((size, size)) * reference.std()
    image = reference + 0.3 * noise + 0.1
    inside = field_of_view(size)
    peak = float(np.ptp(reference[inside]))
    _, local = structural_similarity(
        reference.astype(np.float64), image, data_range=peak, full=True
    )
    assert ssim(image, reference) == pytest.approx(local[inside].mean(), abs=1e-9)


@pytest.mark.parametrize("score", SCORES)
def test_refuses_what_can_not_be_compared(score):
    with pytest.raises(ConfigurationError, match=r"\(8, 8\) and \(9, 9\)"):
        score(np.zeros((8, 8)), np.zeros((9, 9)))
    with pytest.raises(ConfigurationError, match="square"):
        score(np.zeros((8, 9)), np.zeros((8, 9)))
    with pytest.raises(ConfigurationError, match="constant"):
        score(np.zeros((8, 8)), np.ones((8, 8)))


def test_ring_correlation_falls_where_noise_begins(reference):
    """White noise in the upper half of the frequencies: correlation 1 below and none above."""
    size = len(reference)
    rng = np.random.default_rng(5)
    white = rng.standard_normal((size, size))
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size))
    coloured = np.fft.ifft2(np.fft.fft2(white) * (frequency > 0.25)).real
    image = (
        white
        - coloured
        + np.fft.ifft2(np.fft.fft2(rng.standard_normal((size, size))) * (frequency > 0.25)).real
    )
    rings, correlation = fourier_ring_correlation(image, white)
    assert correlation[(rings > 0.02) & (rings < 0.22)].min() > 0.9
    assert abs(correlation[rings > 0.28].mean()) < 0.1
    assert frc_frequency(image, white) == pytest.approx(0.25, abs=0.02)
    assert frc_frequency(white, white) == pytest.approx(0.5)


def test_ring_correlation_does_not_depend_on_units_or_offset(reference):
    noisy = reference + np.random.default_rng(6).standard_normal(reference.shape) * reference.std()
    _, expected = fourier_ring_correlation(noisy, reference)
    _, found = fourier_ring_correlation(1e3 * noisy + 5, reference)
    np.testing.assert_allclose(found, expected, atol=1e-6)
