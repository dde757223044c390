import warnings

import pytest
import torch

from tomogan_bluesky.errors import ConfigurationError
from tomogan_bluesky.models.generator import (
    PRESETS,
    build_generator,
    depth_of,
    describe_generator,
    parse_generator,
)

SMALL = {
    "unet4": {"base": 4},
    "tomogan3": {},
    "unet3d": {"base": 2, "depth": 1},
    "msd": {"layers": 12},
}


def seeded(name, **options):
    """A network whose last layer does something."""
    torch.manual_seed(1)
    generator = build_generator(name, **(SMALL[name] | options)).eval()
    torch.nn.init.normal_(list(generator.parameters())[-2], std=0.3)
    return generator


def slices(*shape, scale=0.01):
    generator = torch.Generator().manual_seed(2)
    return scale * torch.rand(*shape, generator=generator)


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("unet4", {}, 1_224_801),
        ("unet4", {"base": 24}, 2_754_769),
        ("tomogan3", {}, 694_897),  # as the original TensorFlow program
        ("unet3d", {}, 157_713),
        ("msd", {}, 4_247),
    ],
)
def test_number_of_parameters(name, options, count):
    assert sum(p.numel() for p in build_generator(name, **options).parameters()) == count


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize(("height", "width"), [(64, 64), (33, 47), (16, 31), (5, 3), (1, 1)])
def test_any_size(name, height, width):
    out = seeded(name)(slices(2, 1, height, width), torch.tensor([1e-3, 2e-3]))
    assert out.shape == (2, 1, height, width)
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("factor", [1e-4, 37.0, 1e5])
def test_scale_law(name, factor):
    generator, x, noise = seeded(name), slices(2, 1, 32, 40), torch.tensor([1e-3, 2e-3])
    expected = factor * generator(x, noise)
    scaled = generator(factor * x, factor * noise)
    assert torch.allclose(scaled, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("name", PRESETS)
def test_output_depends_on_its_reach_alone(name):
    """By gradient of one pixel: nothing beyond the reach, and not much less. So no statistics of
    the whole image enter, and tiles that overlap by the reach can equal the whole."""
    generator = seeded(name)
    for parameter in generator.parameters():  # positive weights: no path is cut off by a ReLU
        torch.nn.init.uniform_(parameter, 0.0, 0.1)
    size = generator.multiple * -(-(2 * generator.reach + 40) // generator.multiple)
    # Distinct values: pooling passes on a gradient to the largest one alone.
    x = slices(1, 1, size, size).requires_grad_()
    for at in range(size // 2 - 8, size // 2 + 8, 5):
        (gradient,) = torch.autograd.grad(generator(x, torch.tensor([1e-3]))[0, 0, at, at], x)
        seen = gradient[0, 0] != 0
        there = torch.nonzero(seen.any(0) | seen.any(1)).flatten()
        assert at - generator.reach <= there[0]
        assert there[-1] <= at + generator.reach
        assert there[-1] - there[0] > 1.4 * generator.reach


@pytest.mark.parametrize("name", PRESETS)
def test_slices_of_a_batch_do_not_mix(name):
    generator, x, noise = seeded(name), slices(3, 1, 32, 32), torch.tensor([1e-3, 2e-3, 3e-3])
    alone = torch.cat([generator(x[i : i + 1], noise[i : i + 1]) for i in range(3)])
    assert torch.allclose(generator(x, noise), alone, rtol=1e-4, atol=1e-7)


def test_residual_networks_start_as_the_identity():
    x = slices(1, 5, 40, 40)
    for name in ("unet4", "unet3d", "msd"):
        assert torch.equal(build_generator(name, depth=5)(x, torch.tensor([1e-3])), x[:, 2:3])


def test_descriptions_are_read_as_they_are_written():
    for name, options in (("unet4", {"base": 24, "depth": 3}), ("tomogan3", {})):
        assert parse_generator(describe_generator(name, options)) == (name, options)
    assert depth_of("unet3d", {}) == build_generator("unet3d").depth == 5
    assert depth_of("unet4", {"depth": 7}) == 7
    for wrong in ("unet4", "unet4(base)", "unet4(base=a)", "os.system(x=1) "):
        with pytest.raises(ConfigurationError, match="such as unet4"):
            parse_generator(wrong)


def test_unet4_leaves_an_image_without_noise_alone():
    x = slices(1, 1, 32, 32)
    assert torch.equal(seeded("unet4")(x, torch.tensor([0.0])), x)


@pytest.mark.parametrize("name", PRESETS)
def test_adjacent_slices_enter_and_the_middle_one_leaves(name):
    generator, x = seeded(name, depth=3), slices(2, 3, 32, 32)
    assert generator(x, torch.tensor([1e-3, 1e-3])).shape == (2, 1, 32, 32)
    if generator.residual:
        fresh = build_generator(name, depth=3)
        assert torch.equal(fresh(x, torch.tensor([1e-3, 1e-3])), x[:, 1:2])


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("size", [32, 21])
def test_scripted_is_eager(name, size):
    generator, x, noise = seeded(name), slices(2, 1, size, size), torch.tensor([1e-3, 2e-3])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is", DeprecationWarning)
        scripted = torch.jit.script(generator)
    for _ in range(3):  # TorchScript compiles anew after the first calls
        assert torch.equal(scripted(x, noise), generator(x, noise))


@pytest.mark.parametrize("name", PRESETS)
def test_every_parameter_learns(name):
    generator = seeded(name).train()
    generator(slices(2, 1, 32, 32), torch.tensor([1e-3, 2e-3])).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in generator.parameters())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("unet5", {}, "unet4, tomogan3.*unet5"),
        ("tomogan3", {"base": 8}, "no option 'base'.*depth"),
        ("unet4", {"base": 0}, "base=0"),
    ],
)
def test_refuses_unknown_networks(name, options, message):
    with pytest.raises(ConfigurationError, match=message):
        build_generator(name, **options)
