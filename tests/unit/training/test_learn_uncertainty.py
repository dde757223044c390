"""A head learns where a frozen network errs; figures of intervals are what their names say."""

import numpy as np
import pytest
import torch

from tomogan_bluesky.models.generator import build_generator
from tomogan_bluesky.models.uncertainty import UncertainGenerator
from tomogan_bluesky.training.metrics import field_of_view
from tomogan_bluesky.training.pairs import Pairs
from tomogan_bluesky.training.reliability import ause, reliability, reliability_table
from tomogan_bluesky.training.settings import TrainingConfig
from tomogan_bluesky.training.uncertainty import learn_uncertainty, quantile_loss

CONFIG = TrainingConfig(
    network="unet4", options={"base": 4}, steps=150, batch=4, crop=32, learning_rate=1e-2
)


def test_the_loss_is_least_at_the_quantile():
    error = torch.rand(10001, generator=torch.Generator().manual_seed(0))
    scales = torch.linspace(0.5, 1.0, 51)
    losses = torch.stack([quantile_loss(error, s.expand_as(error)) for s in scales])
    assert scales[losses.argmin()] == pytest.approx(0.9, abs=0.02)


def uneven_noise():
    """Pairs of flat slices whose noise is four times as large on the right as on the left."""
    random = torch.Generator().manual_seed(1)
    target = torch.full((6, 64, 64), 0.01)
    sigma = torch.where(torch.arange(64) < 32, 5e-4, 2e-3)
    noisy = target[:, None] + sigma * torch.randn(6, 1, 64, 64, generator=random)
    return Pairs.of(noisy, target, torch.ones(6, 1))


def test_the_head_learns_where_errors_are_and_nothing_else_changes():
    torch.manual_seed(0)
    pairs, plain = uneven_noise(), build_generator("unet4", base=4).eval()  # gives its input
    generator = UncertainGenerator(plain)
    before = {k: v.clone() for k, v in generator.state_dict().items()}
    losses = learn_uncertainty(generator, [pairs], CONFIG)
    assert losses[-1] < losses[0]
    changed = {k for k, v in generator.state_dict().items() if not torch.equal(v, before[k])}
    assert {key.split(".")[0] for key in changed} == {"uncertainty"}
    with torch.no_grad():
        denoised, scale = generator(pairs.noisy[:, 0, None], pairs.noise[:, 0]).unbind(1)
    held = ((denoised - pairs.target).abs() <= scale)[:, 8:-8]
    for part in (slice(8, 26), slice(38, 56)):
        assert 0.8 < float(held[..., part].float().mean()) < 0.97
    assert float(scale[..., 40:].mean()) > 2.5 * float(scale[..., :24].mean())


def test_a_perfect_order_has_no_area_and_a_random_one_has_some():
    rng = np.random.default_rng(0)
    error = np.abs(rng.normal(size=5000))
    assert ause(error, 3 * error) == 0
    assert ause(error, rng.random(5000)) > 0.3


def test_coverage_is_told_by_kind_of_pixel():
    rng = np.random.default_rng(0)
    reference = np.where(np.hypot(*np.mgrid[-32:32, -32:32]) < 15, 1.0, 0.0)[None]
    reference += rng.normal(0, 1e-4, reference.shape)
    edge = np.hypot(*np.mgrid[-32:32, -32:32])[None]
    error = np.where(np.abs(edge - 15) < 1.6, 0.5, 0.05)
    figures = reliability(
        "set", 0.25, "model", reference + error, np.full(error.shape, 0.1), reference
    )
    assert figures.mean("coverage_flat") > 0.95
    assert figures.mean("coverage_edges") < 0.4
    inside = field_of_view(64)
    assert figures.mean("coverage") == pytest.approx((error[0][inside] < 0.1).mean())
    assert figures.mean("width") == pytest.approx(0.1, rel=0.01)
    assert "model" in reliability_table([figures])
