"""How far a training is, and what follows from it: how long it goes on, how fast it learns.

Enters: a configuration and the steps and seconds so far. Leaves: the learning rate, and the number
of steps, which a budget of minutes decides late.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .settings import TrainingConfig

logger = logging.getLogger(__name__)

_WARM_UP_STEPS = 100
_COOL_DOWN = 0.4  # the share of the steps in which the learning rate falls
_LOWEST_RATE = 0.01  # of the learning rate, at the end


@dataclass
class Progress:
    """How far a training is: everything in a checkpoint that is not a tensor."""

    step: int = 0
    steps: int | None = None
    """None as long as the time budget has not decided yet."""
    seconds: float = 0.0
    stopped: str = ""
    """Why it ended before its last step, if it did."""
    random_state: Mapping[str, Any] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    """Step, mean losses since the entry before, and validation PSNR in dB by dose."""
    baseline: dict[str, float] = field(default_factory=dict)
    """Validation of the network that a gan stage started from."""
    kept_step: int = 0
    """When the network that is exported was what it is; 0 in a gan stage: before it began."""

    @property
    def finished(self) -> bool:
        return bool(self.stopped) or (self.steps is not None and self.step >= self.steps)

    @property
    def seconds_left(self) -> float | None:
        """None while the number of steps is not known."""
        if self.steps is None or not self.step:
            return None
        return self.seconds / self.step * (self.steps - self.step)


def first_progress(config: TrainingConfig, n_slices: int) -> Progress:
    """Progress of a training that has not begun, on as many slices."""
    steps = config.steps
    if config.epochs is not None:
        steps = math.ceil(config.epochs * n_slices / config.batch)
    return Progress(steps=steps)


def rate(progress: Progress) -> float:
    """Factor of the learning rate: constant, then a cosine, after a short ramp.

    Constant for a while, so that the number of steps may be decided late.
    """
    warm = min(1.0, (progress.step + 1) / _WARM_UP_STEPS)
    if progress.steps is None:
        return warm
    done = progress.step / progress.steps
    fall = max(0.0, (done - (1 - _COOL_DOWN)) / _COOL_DOWN)
    return warm * (_LOWEST_RATE + (1 - _LOWEST_RATE) * (1 + math.cos(math.pi * fall)) / 2)


def decide_steps(progress: Progress, config: TrainingConfig) -> int:
    """Fix the number of steps once the time left is what the cool-down needs; until then, guess."""
    assert config.minutes is not None
    spent = progress.seconds / (60 * config.minutes)
    if spent >= 1 - _COOL_DOWN:
        progress.steps = math.ceil(progress.step / (1 - _COOL_DOWN))
        logger.info("training: %d steps fit into %g minutes", progress.steps, config.minutes)
        return progress.steps
    return math.ceil(progress.step / max(spent, 1e-9))
