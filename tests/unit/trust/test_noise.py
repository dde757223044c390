"""The noise of a slice, told from the slice alone."""

import pytest
import torch

from tomogan_bluesky.errors import ModelError
from tomogan_bluesky.trust.noise import estimate_noise


def white(sigma, *shape):
    return sigma * torch.randn(*shape, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("shape", [(128, 128), (127, 90)])
def test_white_noise_is_measured(shape):
    found = estimate_noise(torch.stack([white(1e-3, *shape), white(0.2, *shape)]))
    assert found.shape == (2,)
    assert torch.allclose(found, torch.tensor([1e-3, 0.2]), rtol=0.05)


def test_structure_is_not_noise():
    """Smooth contrast, a step and an offset do not change the estimate much."""
    noise = white(1e-3, 1, 128, 128)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 128), torch.linspace(-1, 1, 128), indexing="ij")
    sample = 0.02 * (y**2 + x**2 < 0.6) + 0.01 * x + 5.0
    assert torch.allclose(estimate_noise(noise + sample), estimate_noise(noise), rtol=0.1)


def test_noise_scales_with_the_slices_and_ignores_the_corners():
    x = white(1e-3, 1, 128, 128)
    assert torch.allclose(estimate_noise(1e4 * x), 1e4 * estimate_noise(x))
    corners = x.clone()
    corners[:, :15, :15] = white(9.0, 15, 15)
    assert torch.equal(estimate_noise(corners), estimate_noise(x))


def test_noise_of_nothing_is_zero_and_of_tiny_slices_is_finite():
    assert estimate_noise(torch.full((1, 16, 16), 3.0)).item() == 0
    assert torch.isfinite(estimate_noise(white(1.0, 1, 2, 2))).all()


@pytest.mark.parametrize("shape", [(16, 16), (1, 1, 16), (1, 1, 16, 16)])
def test_noise_refuses_other_shapes(shape):
    with pytest.raises(ModelError, match="expected .slice, y, x."):
        estimate_noise(torch.zeros(shape))
