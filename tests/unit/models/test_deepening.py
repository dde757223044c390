"""A network of single slices becomes one of several, and says the same at first."""

import pytest
import torch

from tomogan_bluesky.errors import ConfigurationError
from tomogan_bluesky.models.deepening import deepened
from tomogan_bluesky.models.generator import build_generator


@pytest.mark.parametrize(
    ("name", "options"), [("unet4", {"base": 4}), ("tomogan3", {}), ("msd", {"layers": 6})]
)
def test_the_neighbours_count_for_nothing_yet(name, options):
    random = torch.Generator().manual_seed(1)
    flat = build_generator(name, **options).eval()
    for parameter in flat.parameters():  # a residual network would be the identity
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=random)
    deep, description = deepened(flat, name, options, 3)
    assert (deep.depth, description[-9:]) == (3, " depth=3)" if options else "(depth=3)")
    x, noise = torch.rand(2, 3, 40, 24, generator=random), torch.tensor([0.1, 0.2])
    with torch.no_grad():
        torch.testing.assert_close(deep(x, noise), flat(x[:, 1:2], noise))


def test_the_neighbours_can_be_learned_from():
    flat = build_generator("unet4", base=4)
    torch.nn.init.normal_(flat.body.head.weight)
    deep, _ = deepened(flat, "unet4", {"base": 4}, 5)
    deep(torch.rand(1, 5, 32, 32), torch.tensor([0.1])).square().sum().backward()
    gradient = deep.body.down[0][0].weight.grad
    assert (gradient.abs().sum((0, 2, 3)) > 0).all()


@pytest.mark.parametrize(("options", "depth"), [({"base": 4, "depth": 3}, 5), ({"base": 4}, 2)])
def test_what_cannot_be_deepened_is_said(options, depth):
    generator = build_generator("unet4", **options)
    with pytest.raises(ConfigurationError, match="odd number of slices"):
        deepened(generator, "unet4", options, depth)
