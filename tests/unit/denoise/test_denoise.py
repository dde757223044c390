import pytest
import torch
from generators import CARD

from tomogan_bluesky.config import ReconstructionConfig
from tomogan_bluesky.denoise.denoiser import (
    TorchScriptDenoiser,
    check_reconstruction,
    estimate_noise,
)
from tomogan_bluesky.errors import ConfigurationError, ModelError, ModelNotFoundError
from tomogan_bluesky.models.artifact import export_model
from tomogan_bluesky.models.files import model_sha256
from tomogan_bluesky.models.generator import build_generator


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
