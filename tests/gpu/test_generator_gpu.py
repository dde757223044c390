"""The networks on a GPU give what they give on a processor."""

import pytest
import torch

from tomogan_bluesky.config import DEFAULT_MODEL
from tomogan_bluesky.denoise.denoiser import TorchScriptDenoiser
from tomogan_bluesky.models.generator import PRESETS, build_generator
from tomogan_bluesky.trust.noise import estimate_noise

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(autouse=True)
def full_precision():
    """TensorFloat-32 keeps 10 bits: enough to denoise, too few to compare."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def slices(n, size=200):
    generator = torch.Generator().manual_seed(4)
    return 0.01 + 1e-3 * torch.randn(n, size, size, generator=generator)


@pytest.mark.parametrize("name", PRESETS)
def test_generator_agrees_with_the_cpu(name):
    torch.manual_seed(1)
    generator = build_generator(name).eval()
    torch.nn.init.normal_(list(generator.parameters())[-2], std=0.3)
    x = slices(2 * generator.depth).unflatten(0, (2, generator.depth))
    noise = torch.tensor([1e-3, 2e-3])
    with torch.inference_mode():
        expected = generator(x, noise)
        found = generator.cuda()(x.cuda(), noise.cuda()).cpu()
    assert torch.allclose(found, expected, atol=1e-4 * expected.abs().max().item(), rtol=0)


def test_noise_estimate_agrees_with_the_cpu():
    x = slices(3, 201)
    assert torch.allclose(estimate_noise(x.cuda()).cpu(), estimate_noise(x), rtol=1e-6)


def test_shipped_model_agrees_with_the_cpu():
    x = slices(3)
    expected = TorchScriptDenoiser(DEFAULT_MODEL, device="cpu")(x)
    denoiser = TorchScriptDenoiser(DEFAULT_MODEL, device="auto")
    assert denoiser.device.type == "cuda"
    from_host, from_device = denoiser(x), denoiser(x.cuda())
    assert from_host.device.type == "cpu"
    assert from_device.device.type == "cuda"
    for found in (from_host, from_device.cpu()):
        assert torch.allclose(found, expected, atol=1e-4 * expected.abs().max().item(), rtol=0)
