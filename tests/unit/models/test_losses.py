import math

import pytest
import torch
from skimage.metrics import structural_similarity

from tomogan_bluesky.errors import ModelError
from tomogan_bluesky.models.discriminator import PatchDiscriminator
from tomogan_bluesky.models.features import EncoderFeatures, FixedFeatures, VGG16Features
from tomogan_bluesky.models.generator import build_generator
from tomogan_bluesky.models.losses import (
    FeatureLoss,
    discriminator_loss,
    generator_loss,
    local_ssim,
    ms_ssim_loss,
    pixel_loss,
    ssim_loss,
)
from tomogan_bluesky.training.metrics import field_of_view, ssim


def images(n=2, size=48):
    """Discs of value 1, and the same in noise."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(*2 * [torch.linspace(-1, 1, size)], indexing="ij")
    radius = torch.linspace(0.4, 0.7, n)[:, None, None, None]
    target = (y**2 + x**2 < radius**2).float()
    return target + 0.2 * torch.randn(n, 1, size, size, generator=generator), target


def vgg16_weights():
    """Random weights with torchvision's names, those of the classifier among them."""
    generator = torch.Generator().manual_seed(0)
    weights, channels = {"classifier.0.weight": torch.zeros(1)}, 3
    convolutions = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    widths = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
    for index, out in zip(convolutions, widths, strict=True):
        shape = (out, channels, 3, 3)
        weights[f"features.{index}.weight"] = torch.randn(shape, generator=generator) / (
            3 * math.sqrt(channels)
        )
        weights[f"features.{index}.bias"] = torch.zeros(out)
        channels = out
    return weights


def backbone(name):
    torch.manual_seed(0)
    if name == "vgg16":
        return VGG16Features(vgg16_weights())
    return FixedFeatures() if name == "fixed" else EncoderFeatures(build_generator("unet4", base=4))


def adversary(name):
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(base=4).eval()
    return lambda x, y: generator_loss(name, discriminator(y, x))


TERMS = {
    "l1": lambda x, y: pixel_loss("l1", x, y).mean(),
    "charbonnier": lambda x, y: pixel_loss("charbonnier", x, y).mean(),
    "ssim": lambda x, y: ssim_loss(x, y, 1.0).mean(),
    "ms-ssim": lambda x, y: ms_ssim_loss(x, y).mean(),
    "bce": adversary("bce"),
    "hinge": adversary("hinge"),
    **{
        name: lambda x, y, name=name: FeatureLoss(backbone(name))(x, y).mean()
        for name in ("encoder", "fixed", "vgg16")
    },
}


@pytest.mark.parametrize("name", TERMS)
def test_every_term_moves_the_generator(name):
    """Each loss has a gradient on every weight of the network that makes the image."""
    noisy, target = images()
    torch.manual_seed(1)
    generator = build_generator("unet4", base=4)
    torch.nn.init.normal_(generator.body.head.weight, std=0.1)
    denoised = generator(noisy, torch.full((2,), 0.2))
    TERMS[name](denoised, target).backward()
    for parameter in generator.parameters():
        assert torch.isfinite(parameter.grad).all()
        assert parameter.grad.abs().max() > 0


@pytest.mark.parametrize("name", [name for name in TERMS if name not in ("bce", "hinge")])
def test_equal_images_cost_nothing_and_noise_costs(name):
    noisy, target = images()
    half = (noisy + target) / 2
    none, some, more = (float(TERMS[name](x, target)) for x in (target, half, noisy))
    assert none == pytest.approx(0, abs=1e-6)
    assert 0 < some < more


def test_charbonnier_is_l1_for_large_errors_and_smooth_at_none():
    x, y = torch.full((1, 1, 4, 4), 2.0, requires_grad=True), torch.zeros(1, 1, 4, 4)
    assert pixel_loss("charbonnier", x, y).item() == pytest.approx(2.0, rel=1e-3)
    pixel_loss("charbonnier", y.requires_grad_(), torch.zeros(1, 1, 4, 4)).sum().backward()
    assert torch.equal(y.grad, torch.zeros_like(y))


def test_one_scale_is_the_structural_similarity():
    """Images too small for two scales: the SSIM of scikit-image with a Gaussian window."""
    noisy, target = images(size=20)
    for x, y, loss in zip(noisy, target, ms_ssim_loss(noisy, target), strict=True):
        _, full = structural_similarity(
            x[0].numpy(),
            y[0].numpy(),
            data_range=1.0,
            gaussian_weights=True,
            use_sample_covariance=False,
            full=True,
        )
        # Ours is luminance times contrast of means rather than the mean of their product.
        assert 1 - loss.item() == pytest.approx(full[5:-5, 5:-5].mean(), abs=0.02)


def test_ssim_is_the_one_that_models_are_judged_by():
    noisy, target = images(n=1, size=70)
    local = local_ssim(noisy, target, data_range=1.0)
    inside = torch.from_numpy(field_of_view(70))[3:-3, 3:-3]  # no window leaves the image there
    judged = ssim(noisy[0, 0].numpy(), target[0, 0].numpy())
    assert local[0, 0][inside].mean().item() == pytest.approx(judged, abs=1e-5)
    assert ssim_loss(noisy, target, 1.0).item() == pytest.approx(1 - local.mean().item())


def test_ssim_of_flat_crops_is_as_calm_as_their_noise():
    flat = torch.full((1, 1, 64, 64), 0.5)
    noise = 1e-3 * torch.randn(flat.shape, generator=torch.Generator().manual_seed(0))
    loss = ssim_loss(flat + noise, flat, data_range=1.0).item()
    assert loss == pytest.approx(1e-3**2 / 0.03**2, rel=0.05)


def test_ms_ssim_sees_coarse_errors_that_fine_scales_forgive():
    _, target = images(size=176)
    offset = target + 0.1 * torch.linspace(-1, 1, 176)
    noisy = target + 0.02 * torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
    assert (ms_ssim_loss(offset, target) > 0).all()
    assert (ms_ssim_loss(noisy, target) < ms_ssim_loss(target + 5 * (noisy - target), target)).all()


def test_adversaries_at_chance_and_at_their_best():
    even, sure = torch.zeros(2, 1, 3, 3), torch.full((2, 1, 3, 3), 50.0)
    assert discriminator_loss("bce", even, even).item() == pytest.approx(math.log(2))
    assert discriminator_loss("hinge", even, even).item() == pytest.approx(1)
    for name in ("bce", "hinge"):
        assert discriminator_loss(name, sure, -sure).item() == pytest.approx(0, abs=1e-6)
        assert discriminator_loss(name, -sure, sure).item() > 10
        assert generator_loss(name, sure) < generator_loss(name, even) < generator_loss(name, -sure)


@pytest.mark.parametrize("name", ["encoder", "fixed", "vgg16"])
def test_features_are_frozen_and_of_several_scales(name):
    loss = FeatureLoss(backbone(name))
    assert not any(p.requires_grad for p in loss.parameters())
    maps = loss.features(images()[1])
    sizes = [m.shape[-1] for m in maps]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) >= 3


def test_fixed_bank_ignores_constants():
    assert all(m.abs().max() < 1e-6 for m in FixedFeatures()(torch.ones(1, 1, 32, 32)))


def test_vgg16_takes_the_weights_it_is_given():
    weights = vgg16_weights()
    features = VGG16Features(weights)
    assert torch.equal(features.blocks[4][4].weight, weights["features.28.weight"])
    del weights["features.7.bias"]
    with pytest.raises(ModelError, match=r"expected features\.7\.bias of shape \(128,\), got none"):
        VGG16Features(weights)


def test_encoder_needs_a_u_net():
    generator = build_generator("unet4", base=4)
    generator.body = torch.nn.Identity()
    with pytest.raises(ModelError, match="'fixed'"):
        EncoderFeatures(generator)
