import math

import pytest
import torch

from tomogan_bluesky.training.evaluation import evaluate
from tomogan_bluesky.training.metrics import psnr
from tomogan_bluesky.training.pairs import SimulatedScans, simulate_pairs


@pytest.fixture(scope="module")
def pairs():
    return simulate_pairs(
        SimulatedScans(size=48, n_angles=60, n_slices=4, realisations=2, doses=(1.0, 0.1), seed=2)
    )


def test_perfect_and_idle_networks(pairs):
    targets = {n.item(): t for row, t in zip(pairs.noise, pairs.target, strict=True) for n in row}

    def perfect(x, noise):
        return targets[noise.item()][None, None]

    scores = evaluate(perfect, pairs)
    assert scores["psnr_db_denoised_at_1"] == scores["psnr_db_denoised_at_0.1"] == math.inf
    assert scores["ssim_denoised_at_0.1"] == pytest.approx(1)
    assert scores["psnr_db_noisy_at_1"] > scores["psnr_db_noisy_at_0.1"] + 5
    idle = evaluate(lambda x, noise: x, pairs)
    for name in ("psnr_db", "ssim", "edge_fidelity", "edge_f1"):
        assert idle[f"{name}_denoised_at_1"] == idle[f"{name}_noisy_at_1"]
    assert len(idle) == 4 * 2 * 2


def test_mean_over_slices(pairs):
    scores = evaluate(lambda x, noise: x, pairs, {"psnr_db": psnr})
    expected = [
        psnr(n[1].numpy(), t.numpy()) for n, t in zip(pairs.noisy, pairs.target, strict=True)
    ]
    assert scores["psnr_db_noisy_at_0.1"] == pytest.approx(sum(expected) / 4)


def test_network_gets_one_slice_with_its_noise(pairs):
    seen = []

    def network(x, noise):
        assert x.shape == (1, 1, 48, 48)
        seen.append(noise)
        return x

    evaluate(network, pairs, {})
    assert torch.equal(torch.cat(seen), pairs.noise.flatten())
