"""A network that says how far off it may be gives the very slices that it gave before."""

import pytest
import torch
from generators import CALIBRATION, CARD, export_uncertain

from tomogan_bluesky.models.artifact import export_model, load_generator, load_model
from tomogan_bluesky.models.card import ModelCard, network_of
from tomogan_bluesky.models.generator import PRESETS, build_generator
from tomogan_bluesky.models.uncertainty import UncertainGenerator

SMALL = {
    "unet4": {"base": 4, "depth": 3},
    "tomogan3": {},
    "unet3d": {"base": 2, "depth": 3},
    "msd": {"layers": 6},
}
NOISE = torch.tensor([1e-3, 2e-3])


def pair(name):
    """A network whose last layer does something, and the same with an uncertainty."""
    torch.manual_seed(1)
    generator = build_generator(name, **SMALL[name]).eval()
    torch.nn.init.normal_(list(generator.parameters())[-2], std=0.3)
    return generator, UncertainGenerator(generator).eval()


def slices(generator, height, width):
    random = torch.Generator().manual_seed(2)
    return 0.01 * torch.rand(2, generator.depth, height, width, generator=random)


@pytest.mark.parametrize("name", PRESETS)
@torch.no_grad()
def test_denoised_slices_stay_what_they_were_to_the_bit(name):
    plain, uncertain = pair(name)
    for height, width in ((33, 47), (5, 3)):
        x = slices(plain, height, width)
        both = uncertain(x, NOISE)
        assert both.shape == (2, 2, height, width)
        assert torch.equal(both[:, :1], plain(x, NOISE))
        assert (both[:, 1] > 0).all()


@pytest.mark.parametrize("suffix", [".ts", ".pt2"])
@torch.no_grad()
def test_also_in_model_files(suffix, tmp_path):
    plain, uncertain = pair("msd")
    network = {"network": "msd(layers=6)"}
    both = {"outputs": ("denoised", "uncertainty"), "calibration": CALIBRATION}
    export_model(plain, CARD.model_copy(update=network), tmp_path / "plain.ts")
    export_model(uncertain, CARD.model_copy(update=network | both), tmp_path / f"both{suffix}")
    x = slices(plain, 48, 37)[:1]
    one, two = (load_model(tmp_path / name)[0] for name in ("plain.ts", f"both{suffix}"))
    assert torch.equal(two(x, NOISE[:1])[:, :1], one(x, NOISE[:1]))


@pytest.mark.parametrize("name", PRESETS)
@torch.no_grad()
def test_scale_law(name):
    _, generator = pair(name)
    x = slices(generator, 32, 40)
    expected = 37.0 * generator(x, NOISE)
    scaled = generator(37.0 * x, 37.0 * NOISE)
    assert torch.allclose(scaled, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


def test_it_depends_on_its_reach_alone():
    """By gradient of one pixel's uncertainty: nothing beyond the reach, and more than before."""
    plain = build_generator("msd", layers=3)
    generator = UncertainGenerator(plain)
    for parameter in generator.parameters():  # positive weights: no path is cut off by a ReLU
        torch.nn.init.uniform_(parameter, 0.0, 0.1)
    assert generator.reach > plain.reach
    x = slices(generator, 64, 64)[:1].requires_grad_()
    (gradient,) = torch.autograd.grad(generator(x, NOISE[:1])[0, 1, 32, 32], x)
    there = torch.nonzero(gradient[0, 0].any(0) | gradient[0, 0].any(1)).flatten()
    assert there[0] >= 32 - generator.reach
    assert there[-1] <= 32 + generator.reach
    assert there[-1] - there[0] > 2 * plain.reach


def test_training_goes_on_without_it(tmp_path):
    generator, card = load_generator(export_uncertain(tmp_path / "a.ts"))
    assert generator(torch.rand(1, 1, 16, 16), NOISE[:1]).shape == (1, 1, 16, 16)
    assert isinstance(network_of(card), UncertainGenerator)


def test_a_card_with_an_uncertainty_says_how_it_was_calibrated():
    with pytest.raises(ValueError, match="with a calibration"):
        ModelCard.model_validate(CARD.model_dump() | {"outputs": ("denoised", "uncertainty")})
