import pytest
import torch

from tomogan_bluesky.denoise.tiles import Tiling
from tomogan_bluesky.errors import ConfigurationError
from tomogan_bluesky.models.generator import PRESETS, build_generator

SMALL = {
    "unet4": {"base": 4},
    "tomogan3": {},
    "unet3d": {"base": 2, "depth": 3},
    "msd": {"layers": 12},
}


@pytest.mark.parametrize("name", PRESETS)
def test_tiles_equal_the_whole(name):
    """To 1e-5 of the image's range, at a size that is no multiple of anything; and not where the
    network sees further than it says."""
    torch.manual_seed(1)
    generator = build_generator(name, **SMALL[name]).eval()
    for parameter in generator.parameters():  # positive weights: the furthest pixels count most
        torch.nn.init.uniform_(parameter, 0.0, 0.1)
    reach, multiple = generator.reach, generator.multiple
    tiling = Tiling(Tiling(4096, reach, multiple).overlap + 64, reach, multiple)
    height, width = tiling.width + 77, tiling.width - 13
    x, noise = 0.01 * torch.rand(1, generator.depth, height, width), torch.tensor([1e-3])
    with torch.inference_mode():
        whole, tiled = generator(x, noise), tiling(generator, x, noise)
        short = Tiling(tiling.width, reach // 3, multiple)(generator, x, noise)
    assert len(tiling.spans(height)) > 1
    assert len(tiling.spans(width)) == 1
    assert (tiled - whole).abs().max() < 1e-5 * whole.abs().max()
    assert (short - whole).abs().max() > 2e-5 * whole.abs().max()


def test_an_image_that_fits_is_not_cut():
    calls = []

    def network(x, noise):
        calls.append(x.shape)
        return x

    Tiling(80, 8, 8)(network, torch.zeros(1, 1, 80, 50), torch.ones(1))
    assert calls == [(1, 1, 80, 50)]


@pytest.mark.parametrize("n", [65, 100, 128, 129, 500])
def test_weights_add_up_to_one_and_margins_count_for_nothing(n):
    tiling = Tiling(112, 20, 8)
    total = torch.zeros(n)
    spans = tiling.spans(n)
    assert spans[0][0] == 0
    assert spans[-1][1] == n
    for first, last in spans:
        assert first % 8 == 0
        weights = tiling.weights((first, last), n)
        total[first:last] += weights
        assert first == 0 or (weights[:20] == 0).all()
        assert last == n or (weights[-20:] == 0).all()
    assert torch.allclose(total, torch.ones(n))


def test_tiles_must_be_wider_than_they_overlap():
    for width in (104, 117, 1):
        with pytest.raises(ConfigurationError, match="multiple of 8 of at least 112 pixels"):
            Tiling(width, 20, 8)
