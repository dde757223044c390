"""The mean over several sides of a slice."""

from types import SimpleNamespace

import pytest
import torch
from generators import export_deep, export_uncertain

from tomogan_bluesky.config import DEFAULT_MODEL, DenoisingConfig, Settings
from tomogan_bluesky.denoise.denoiser import TorchScriptDenoiser
from tomogan_bluesky.denoise.turned import TurnedDenoiser, turned
from tomogan_bluesky.run.engine import Engine
from tomogan_bluesky.training.pinned import pinned_slices


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory):
    """Of random weights, of three slices."""
    return TorchScriptDenoiser(export_deep(tmp_path_factory.mktemp("model") / "test.ts"))


def slices(n, height=48, width=48):
    generator = torch.Generator().manual_seed(4)
    return 0.01 + 1e-3 * torch.randn(n, height, width, generator=generator)


SIDES = {
    2: [lambda x: x.rot90(2, (1, 2))],
    4: [lambda x: x.rot90(1, (1, 2)), lambda x: x.rot90(3, (1, 2))],
    8: [lambda x: x.flip(1), lambda x: x.flip(2), lambda x: x.mT],
}


@pytest.mark.parametrize("n", SIDES)
def test_it_is_all_the_same_from_which_side_one_looks(denoiser, n):
    x = slices(4)
    whole, plain = TurnedDenoiser(denoiser, n), denoiser(x, (1, 1))
    found = whole(x, (1, 1))
    assert found.shape == (2, 48, 48)
    for turn in SIDES[n]:
        torch.testing.assert_close(whole(turn(x), (1, 1)), turn(found), rtol=1e-5, atol=1e-8)
        assert not torch.allclose(denoiser(turn(x), (1, 1)), turn(plain), rtol=1e-3, atol=0)


def test_so_is_the_uncertainty(tmp_path):
    one, x = TorchScriptDenoiser(export_uncertain(tmp_path / "test.ts", depth=3)), slices(4)
    whole = TurnedDenoiser(one, 8)
    denoised, half_width = whole.with_uncertainty(x, (1, 1))
    assert torch.equal(denoised, whole(x, (1, 1)))
    for turn in SIDES[8]:
        found = whole.with_uncertainty(turn(x), (1, 1))[1]
        torch.testing.assert_close(found, turn(half_width), rtol=1e-4, atol=0)
        alone = one.with_uncertainty(turn(x), (1, 1))[1]
        assert not torch.allclose(alone, turn(one.with_uncertainty(x, (1, 1))[1]), rtol=1e-3)


def test_slices_may_be_oblong_and_in_any_slabs(denoiser):
    x, whole = slices(5, 33, 70), TurnedDenoiser(denoiser, 8)
    found = whole(x)
    assert found.shape == x.shape
    parts = [whole(x[:3], (0, 1)), whole(x[1:], (1, 0))]
    assert torch.equal(torch.cat(parts), found)


def test_it_is_the_mean_of_what_the_sides_give(denoiser):
    x = slices(3)
    mean = (denoiser(x) + denoiser(x.rot90(2, (1, 2))).rot90(2, (1, 2))) / 2
    torch.testing.assert_close(TurnedDenoiser(denoiser, 2)(x), mean)
    assert turned(denoiser, 1) is denoiser


def test_a_setting_makes_it_so():
    settings = Settings(denoising=DenoisingConfig(sides=4))
    assert settings.digest() != Settings().digest()
    engine = Engine(SimpleNamespace(find_run=None), DEFAULT_MODEL, settings, device="cpu")
    assert isinstance(engine.denoiser(), TurnedDenoiser)
    assert isinstance(engine.denoiser().on("cpu"), TurnedDenoiser)
    assert engine.denoiser() is engine.denoiser()


def test_errors_of_the_sides_cancel():
    case = pinned_slices("256", (0.25,), 1)
    x, clean = torch.from_numpy(case.noisy[0.25]), torch.from_numpy(case.clean)
    one = TorchScriptDenoiser(DEFAULT_MODEL)
    errors = [(turned(one, n)(x[:1]) - clean[:1]).square().mean() for n in (1, 8)]
    assert errors[1] < 0.99 * errors[0]
