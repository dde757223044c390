"""A training of a second, for tests, also in processes of its own:

python discs.py OUT_DIR STAGE CONFIG     CONFIG being the changes to it as JSON
"""

import json
import sys
from pathlib import Path

import torch

from tomogan_bluesky.models.generator import build_generator
from tomogan_bluesky.training.pairs import Pairs
from tomogan_bluesky.training.processes import joined
from tomogan_bluesky.training.settings import TrainingConfig
from tomogan_bluesky.training.trainer import train


def discs(size: int = 32, n: int = 6, seed: int = 0, volumes: bool = False) -> Pairs:
    """Discs in white noise, at two doses; or the slices of a ball in each volume of three."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(*2 * [torch.linspace(-1, 1, size)], indexing="ij")
    radius = 0.2 + 0.6 * torch.rand(n, generator=generator)
    target = 0.02 * (y**2 + x**2 < radius[:, None, None] ** 2)
    noise = 4e-3 * torch.randn(n, 2, size, size, generator=generator)
    dose = torch.tensor([[1.0, 0.25]] * n)
    return Pairs.of(
        target[:, None] + noise, target, dose, torch.arange(n) // 3 if volumes else None
    )


def config(**changes) -> TrainingConfig:
    settings = {"options": {"base": 4}, "batch": 2, "crop": 16, "seed": 3, "checkpoint_every": 4}
    return TrainingConfig(**(settings | changes))


def gan_config(**changes) -> TrainingConfig:
    gan = {"stage": "gan", "crop": 32, "learning_rate": 2e-4, "checkpoint_every": 2}
    gan["critic_base"] = 4  # what is tested does not depend on its size
    return config(**({**gan, "adversarial_weight": 1e-3, "feature_weight": 1e-2} | changes))


def main() -> None:
    torch.set_num_threads(1)
    out_dir, stage, changes = sys.argv[1:]
    settings = (config if stage == "pixel" else gan_config)(**json.loads(changes))
    pairs = discs(size=48)
    torch.manual_seed(0)
    start = build_generator("unet4", base=4) if stage == "gan" else None
    with joined() as (world, device):
        train(
            settings,
            [pairs],
            Path(out_dir),
            start=start,
            validation=discs(n=2, seed=1),
            device=device,
            world=world,
        )


if __name__ == "__main__":
    main()
