from typing import get_args

import numpy as np
import pytest
import torch

from tomogan_bluesky.config import FilterName
from tomogan_bluesky.recon.filters import band_limited_ramp, filter_response, transform_size


@pytest.mark.parametrize("name", get_args(FilterName))
def test_each_filter_is_a_damped_ramp(name):
    response = filter_response(name, 384)
    assert response.dtype == torch.float64
    assert response.shape == (193,)
    if name == "none":
        assert torch.equal(response, torch.ones(193, dtype=torch.float64))
        return
    ramp = band_limited_ramp(384)
    window = response / ramp
    assert window[0] == pytest.approx(1)
    assert (window.diff() <= 1e-12).all()
    at_nyquist = {"ramlak": 1, "shepp": 2 / np.pi, "hamming": 0.08, "butterworth": 0.5}
    assert window[-1] == pytest.approx(at_nyquist.get(name, 0), abs=1e-12)


def test_ramp_is_the_absolute_frequency_but_keeps_the_mean():
    ramp = band_limited_ramp(512)
    frequency = torch.arange(257, dtype=torch.float64) / 512
    torch.testing.assert_close(ramp[1:], frequency[1:], rtol=0, atol=1e-3)
    assert 0 < ramp[0] < 1e-3


def test_filtering_at_twice_the_columns_is_a_linear_convolution():
    n = 50
    line = np.random.default_rng(0).random(n)
    distance = np.arange(1 - n, n)
    kernel = np.where(distance % 2 == 0, 0, -1 / (np.pi * np.where(distance, distance, 1)) ** 2)
    kernel[n - 1] = 0.25
    spectrum = np.fft.rfft(line, 2 * n) * filter_response("ramlak", 2 * n).numpy()
    wanted = np.convolve(line, kernel)[n - 1 : 2 * n - 1]
    np.testing.assert_allclose(np.fft.irfft(spectrum, 2 * n)[:n], wanted, atol=1e-12)


def test_transform_sizes_are_even_products_of_small_primes():
    for minimum in (1.5, 2, 97 * 1.5, 288, 1999.2, 3072):
        size = transform_size(minimum)
        assert minimum <= size < 1.2 * minimum + 2
        assert size % 2 == 0
        for prime in (2, 3, 5):
            while size % prime == 0:
                size //= prime
        assert size == 1
