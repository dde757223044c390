import pytest
import torch
from generators import CARD

from tomogan_bluesky.config import ReconstructionConfig
from tomogan_bluesky.denoise.denoiser import (
    TorchScriptDenoiser,
    check_reconstruction,
)
from tomogan_bluesky.errors import ConfigurationError, ModelError, ModelNotFoundError
from tomogan_bluesky.models.artifact import export_model
from tomogan_bluesky.models.files import model_sha256
from tomogan_bluesky.models.generator import build_generator
from tomogan_bluesky.trust.noise import estimate_noise


@pytest.fixture
def model(tmp_path):
    """Path of a small model whose output differs from its input."""
    torch.manual_seed(3)
    generator = build_generator("unet4", base=4)
    torch.nn.init.normal_(generator.body.head.weight)
    export_model(generator, CARD, tmp_path / "test.ts")
    return tmp_path / "test.ts"


def slices(n, size=48):
    generator = torch.Generator().manual_seed(4)
    return 0.01 + 1e-3 * torch.randn(n, size, size, generator=generator)


def test_bits_of_a_slice_do_not_depend_on_the_slab(model):
    denoiser, x = TorchScriptDenoiser(model), slices(5)
    whole = denoiser(x)
    assert whole.shape == x.shape
    assert not torch.equal(whole, x)
    assert torch.equal(torch.cat([denoiser(x[:1]), denoiser(x[1:4]), denoiser(x[4:])]), whole)
    assert torch.equal(denoiser(x.flip(0)).flip(0), whole)
    assert torch.equal(TorchScriptDenoiser(model)(x), whole)


def test_scale_law_end_to_end(model):
    """Slices in other units give the same result in those units: the noise is estimated."""
    denoiser, x = TorchScriptDenoiser(model), slices(2)
    assert torch.allclose(denoiser(1e3 * x), 1e3 * denoiser(x), rtol=1e-4, atol=1e-5)


def test_input_is_left_alone_and_no_graph_is_kept(model):
    x = slices(2).requires_grad_()
    before = x.detach().clone()
    assert not TorchScriptDenoiser(model)(x).requires_grad
    assert torch.equal(x, before)


def test_noise_may_be_given(model):
    x = slices(1)
    estimated = TorchScriptDenoiser(model)(x)
    given = TorchScriptDenoiser(model, noise=estimate_noise(x).item())(x)
    assert torch.equal(given, estimated)
    assert not torch.equal(TorchScriptDenoiser(model, noise=5e-3)(x), estimated)
    assert torch.equal(TorchScriptDenoiser(model, noise=0.0)(x), x)
    for noise in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigurationError, match="expected 0 or more"):
            TorchScriptDenoiser(model, noise=noise)


def test_says_what_it_is(model):
    denoiser = TorchScriptDenoiser(str(model), device="auto")
    assert denoiser.card.name == CARD.name
    assert denoiser.sha256 == model_sha256(model)


def test_no_slices_give_no_slices(model):
    assert TorchScriptDenoiser(model)(slices(0)).shape == (0, 48, 48)


def test_result_that_is_not_finite(model):
    x = slices(3)
    x[1, 20, 20] = float("nan")
    with pytest.raises(ModelError, match=r"slice 1 of 3 is not; its reconstruction is not finite"):
        TorchScriptDenoiser(model)(x)


def test_large_slices_are_tiled(model):
    x = slices(1, size=402)
    whole, tiled = TorchScriptDenoiser(model)(x), TorchScriptDenoiser(model, tile=384)(x)
    assert not torch.equal(tiled, whole)  # tiles sum in another order
    assert torch.allclose(tiled, whole, rtol=0, atol=1e-5 * whole.abs().max().item())
    with pytest.raises(ConfigurationError, match="tile: expected a multiple of 16 of at least 352"):
        TorchScriptDenoiser(model, tile=336)


def test_no_model():
    with pytest.raises(ModelNotFoundError):
        TorchScriptDenoiser("nobody")


def test_reconstruction_of_the_training():
    assert check_reconstruction(CARD, ReconstructionConfig()) is None
    assert check_reconstruction(CARD, ReconstructionConfig(filter="hann")) is None  # refiltered
    for other in ({"filter": "none"}, {"method": "fbp"}):
        text = check_reconstruction(CARD, ReconstructionConfig(**other))
        assert "'ramlak'" in text
        assert next(iter(other.values())) in text
    text = check_reconstruction(CARD, ReconstructionConfig(method="tv"))
    assert "these come from tv:" in text


def test_a_method_without_a_filter_is_not_judged_by_its_filter():
    way = CARD.reconstruction.model_copy(update={"method": "sirt", "filter": "hann"})
    card = CARD.model_copy(update={"reconstruction": way})
    assert check_reconstruction(card, ReconstructionConfig(method="sirt")) is None
    assert "trained on slices from sirt, but" in check_reconstruction(card, ReconstructionConfig())
