"""The state of a training between two steps: everything that a checkpoint holds.

Enters: a configuration, and a network to begin with or a checkpoint. Leaves: a `TrainingState`.
"""

import logging
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch

from ..models.base import channels_last
from ..models.generator import Generator, build_generator
from ..models.losses import FeatureLoss
from . import checkpoint
from .objective import GAN_BETAS, Critic, feature_loss
from .processes import World
from .progress import Progress, first_progress
from .settings import TrainingConfig

logger = logging.getLogger(__name__)

_BETAS = (0.9, 0.99)  # of Adam: errors of pixels change slowly


@dataclass
class TrainingState:
    """Networks, optimisers, random numbers and progress.

    Attributes
    ----------
    network : Generator
        What learns.
    average : Generator
        The exponential average of its weights.
    kept : Generator
        The average when it was last found good: what is exported.
    critic : Critic or None
        In a gan stage.
    features : FeatureLoss or None
    """

    config: TrainingConfig
    progress: Progress
    rng: np.random.Generator
    network: Generator
    average: Generator
    kept: Generator
    optimiser: torch.optim.Optimizer
    features: FeatureLoss | None
    critic: Critic | None

    @classmethod
    def begin(
        cls,
        config: TrainingConfig,
        n_slices: int,
        start: Generator | None,
        device: str,
        world: World,
        vgg16: Path | str | None,
    ) -> Self:
        """The state before the first step."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            network = build_generator(config.network, **config.options)
            if start is not None:
                network.load_state_dict(start.state_dict())
            channels_last(network.to(device))
            features = feature_loss(config, network, vgg16)
            critic = Critic(config, device, world) if config.stage == "gan" else None
        betas = _BETAS if critic is None else GAN_BETAS
        optimiser = torch.optim.Adam(
            network.parameters(), config.learning_rate, betas=betas, fused=True
        )
        return cls(
            config,
            first_progress(config, n_slices),
            np.random.default_rng([config.seed, 4]),
            network,
            deepcopy(network),
            deepcopy(network),
            optimiser,
            features if features is None else features.to(device),
            critic,
        )

    def _parts(self) -> tuple[checkpoint.Modules, checkpoint.Optimisers]:
        modules: dict[str, torch.nn.Module] = {
            "network": self.network,
            "average": self.average,
            "kept": self.kept,
        }
        optimisers = {"optimiser": self.optimiser}
        # Features of other kinds come from a file or from nothing.
        if self.features is not None and self.config.feature_backbone == "encoder":
            modules["features"] = self.features
        if self.critic is not None:
            modules["discriminator"] = self.critic.discriminator
            optimisers["critic"] = self.critic.optimiser
        return modules, optimisers

    def save(self, path: Path) -> None:
        """Write a checkpoint. Raises TrainingError where the disk doesn't take it."""
        self.progress.random_state = self.rng.bit_generator.state
        checkpoint.save(path, self.config, self.progress, *self._parts())

    def restore(self, path: Path) -> None:
        """Go back to a checkpoint. Raises as `checkpoint.restore`."""
        self.progress = checkpoint.restore(path, self.config, *self._parts())
        self.rng.bit_generator.state = self.progress.random_state

    @property
    def waits(self) -> bool:
        """Whether the discriminator learns alone in this step, and the generator stays as it is."""
        alone = self.config.critic_alone
        if self.progress.steps is not None:
            alone = min(alone, self.progress.steps // 5)
        return self.critic is not None and self.progress.step < alone

    def set_rate(self, factor: float) -> None:
        """Let all optimisers learn at the configuration's rates times this."""
        config = self.config
        _set(self.optimiser, config.learning_rate * factor)
        if self.critic is not None:
            _set(self.critic.optimiser, config.learning_rate * config.critic_rate * factor)

    @torch.no_grad()
    def update_average(self) -> None:
        """Let the average follow the network by a step."""
        step = self.progress.step
        decay = min(self.config.averaging, (step + 1) / (step + 10))  # forget the first soon
        average, now = (list(m.parameters()) for m in (self.average, self.network))
        torch._foreach_lerp_(average, now, 1 - decay)  # type: ignore[arg-type]

    def keep(self) -> None:
        """The average is good: it is what would be exported from here on."""
        self.kept.load_state_dict(self.average.state_dict())
        self.progress.kept_step = self.progress.step


def _set(optimiser: torch.optim.Optimizer, learning_rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = learning_rate
