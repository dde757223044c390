"""The training loop.

Enters: a configuration and pairs of noisy slices and targets. Leaves: a checkpoint that can be
resumed to the bit, with the averaged network that `export_model` takes.
"""

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from tqdm import tqdm

from ..errors import BackendUnavailableError, ModelNotFoundError, TrainingError
from ..models.generator import Generator, build_generator
from .evaluation import evaluate
from .metrics import psnr
from .pairs import Pairs

try:
    from safetensors import safe_open
    from safetensors.torch import save_file
except ImportError as error:
    raise BackendUnavailableError(
        "training needs safetensors for its checkpoints: pip install 'tomogan_bluesky[train]'"
    ) from error

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.safetensors"
_WARM_UP_STEPS = 100
_COOL_DOWN = 0.4  # the share of the steps in which the learning rate falls
_LOWEST_RATE = 0.01  # of the learning rate, at the end
_MARGIN = 0.06  # of the width, at the borders, where no crops are taken: nothing is there


class TrainingConfig(BaseModel):
    """What a training does. With the same pairs and threads, the same one gives the same bits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: str = "unet4"
    options: dict[str, int] = Field(default_factory=dict)
    """Options of the network's preset."""
    steps: int | None = Field(default=None, ge=1)
    minutes: float | None = Field(default=None, gt=0)
    """Wall time; the steps that fit into it are found on the way and recorded. Exactly one of
    `steps` and `minutes` is given."""
    batch: int = Field(default=8, ge=1)
    crop: int = Field(default=96, ge=16)
    """Width of the crops that the network sees, in pixels."""
    learning_rate: float = Field(default=1e-3, gt=0)
    averaging: float = Field(default=0.999, ge=0, lt=1)
    """Decay, by step, of the exponential average of the weights, which is what is exported."""
    seed: int = 0
    checkpoint_every: int = Field(default=500, ge=1)
    """Steps between checkpoints, and between validations."""

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if (self.steps is None) == (self.minutes is None):
            raise ValueError(
                f"give either steps or minutes; got steps={self.steps}, minutes={self.minutes}"
            )
        return self


@dataclass
class Progress:
    """How far a training is: everything in a checkpoint that is not a tensor."""

    step: int = 0
    steps: int | None = None
    """None as long as the time budget has not decided yet."""
    seconds: float = 0.0
    random_state: Mapping[str, Any] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    """Step, mean loss since the entry before, and validation PSNR in dB by dose."""


def train(
    config: TrainingConfig,
    pairs: Sequence[Pairs],
    out_dir: Path | str,
    resume: Path | str | None = None,
    *,
    validation: Pairs | None = None,
    device: str = "cpu",
) -> Generator:
    """Train a network on pairs.

    The loss is the mean absolute error, each slice weighted by ``(noise * contrast)^-1/2``: halfway
    between "relative to the noise", in which low doses would count little, and "relative to the
    sample", in which they would count alone. It does not depend on the units. Adam; the learning
    rate is constant and then falls as a cosine, so that the number of steps may be decided late.

    Parameters
    ----------
    config : TrainingConfig
    pairs : sequence of Pairs
        One entry a size; a slice is drawn from all of them alike.
    out_dir : path
        Gets ``checkpoint.safetensors``, replaced every `checkpoint_every` steps and at the end.
    resume : path, optional
        A checkpoint to continue. It must be of the same configuration.
    validation : Pairs, optional
        Scored at each checkpoint, never learned from.
    device : str

    Returns
    -------
    Generator
        With the averaged weights, in evaluation mode, on the CPU.

    Raises
    ------
    TrainingError
        The loss is not finite; no slices, or slices smaller than the crops; a checkpoint of another
        configuration.
    ModelNotFoundError
        No checkpoint at `resume`.
    """
    crops = _Crops(pairs, config)
    rng = np.random.default_rng([config.seed, 4])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = build_generator(config.network, **config.options)
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = deepcopy(network)
    optimiser = torch.optim.Adam(
        network.parameters(), config.learning_rate, betas=(0.9, 0.99), fused=True
    )
    progress = Progress(steps=config.steps, random_state=rng.bit_generator.state)
    if resume is not None:
        progress = _restore(Path(resume), config, network, average, optimiser)
        rng.bit_generator.state = progress.random_state
    checkpoint = Path(out_dir) / CHECKPOINT
    checkpoint.parent.mkdir(parents=True, exist_ok=True)

    def save() -> None:
        progress.random_state = rng.bit_generator.state
        _save(checkpoint, config, network, average, optimiser, progress)

    losses: list[float] = []
    start = time.monotonic() - progress.seconds
    with tqdm(
        total=progress.steps, initial=progress.step, desc="training", unit="step", disable=None
    ) as bar:
        while progress.steps is None or progress.step < progress.steps:
            x, target, noise, weight = (t.to(device) for t in crops.draw(rng))
            x = x.contiguous(memory_format=torch.channels_last)
            for group in optimiser.param_groups:
                group["lr"] = config.learning_rate * _rate(progress)
            error = (network(x, noise) - target).abs().mean((1, 2, 3))
            loss = (weight * error).mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise TrainingError(
                    f"step {progress.step}: expected a finite loss, got {losses[-1]}; look "
                    "at the pairs, or start anew with a lower learning_rate (now "
                    f"{config.learning_rate:g}); the last good state is in {checkpoint}"
                )
            optimiser.step()
            _average(average, network, config.averaging, progress.step)

            progress.step += 1
            progress.seconds = time.monotonic() - start
            bar.update()
            if progress.steps is None:
                bar.total = _decide_steps(progress, config)
            if progress.step % config.checkpoint_every == 0 or progress.step == progress.steps:
                entry = {"step": float(progress.step), "loss": float(np.mean(losses))}
                losses.clear()
                if validation is not None:
                    entry |= evaluate(average, validation, {"psnr_db": psnr}, device)
                progress.history.append(entry)
                bar.set_postfix({k: f"{v:.4g}" for k, v in entry.items() if "denoised" in k})
                logger.info("training: %s", entry)
                save()
    return average.cpu().eval()


class _Crops:
    """Draws batches of augmented crops."""

    def __init__(self, pairs: Sequence[Pairs], config: TrainingConfig) -> None:
        self._batch, self._crop = config.batch, config.crop
        self._slices = [(group, i) for group in pairs for i in range(len(group))]
        if not self._slices:
            raise TrainingError("there are no pairs to learn from")
        smallest = min(min(group.target.shape[1:]) for group in pairs)
        if smallest < self._crop:
            raise TrainingError(
                f"expected slices of at least {self._crop} pixels, the width of the crops; got "
                f"{smallest}: lower `crop`"
            )

    def draw(
        self, rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Noisy and target crops (N, 1, y, x), their noise (N,), the weights of the loss (N,)."""
        drawn = [self._one(rng) for _ in range(self._batch)]
        noisy, target, noise, contrast = (torch.stack(t) for t in zip(*drawn, strict=True))
        return noisy[:, None], target[:, None], noise, (noise * contrast).rsqrt()

    def _one(self, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        pairs, i = self._slices[rng.integers(len(self._slices))]
        j = int(rng.integers(pairs.noisy.shape[1]))
        window = tuple(self._window(n, rng) for n in pairs.target.shape[1:])
        turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
        crops = []
        for image in (pairs.noisy[i, j], pairs.target[i]):
            crop = torch.rot90(image[window], turns)
            crops.append(crop.flip(0) if mirrored else crop)
        return (*crops, pairs.noise[i, j], pairs.contrast[i])

    def _window(self, n: int, rng: np.random.Generator) -> slice:
        margin = min(int(_MARGIN * n), (n - self._crop) // 2)
        first = int(rng.integers(margin, n - self._crop - margin + 1))
        return slice(first, first + self._crop)


def _rate(progress: Progress) -> float:
    """Factor of the learning rate."""
    warm = min(1.0, (progress.step + 1) / _WARM_UP_STEPS)
    if progress.steps is None:
        return warm
    done = progress.step / progress.steps
    fall = max(0.0, (done - (1 - _COOL_DOWN)) / _COOL_DOWN)
    return warm * (_LOWEST_RATE + (1 - _LOWEST_RATE) * (1 + math.cos(math.pi * fall)) / 2)


def _decide_steps(progress: Progress, config: TrainingConfig) -> int:
    """Fix the number of steps once the time left is what the cool-down needs; until then, guess."""
    assert config.minutes is not None
    spent = progress.seconds / (60 * config.minutes)
    if spent >= 1 - _COOL_DOWN:
        progress.steps = math.ceil(progress.step / (1 - _COOL_DOWN))
        logger.info("training: %d steps fit into %g minutes", progress.steps, config.minutes)
        return progress.steps
    return math.ceil(progress.step / max(spent, 1e-9))


@torch.no_grad()
def _average(average: Generator, network: Generator, decay: float, step: int) -> None:
    decay = min(decay, (step + 1) / (step + 10))  # forget the first, random, weights soon
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)


def _tensors(
    network: Generator, average: Generator, optimiser: torch.optim.Optimizer
) -> dict[str, torch.Tensor]:
    found = {f"network.{k}": v for k, v in network.state_dict().items()}
    found |= {f"average.{k}": v for k, v in average.state_dict().items()}
    for i, values in optimiser.state_dict()["state"].items():
        found |= {f"optimiser.{i}.{k}": v for k, v in values.items()}
    return {k: v.cpu().contiguous() for k, v in found.items()}


def _save(
    path: Path,
    config: TrainingConfig,
    network: Generator,
    average: Generator,
    optimiser: torch.optim.Optimizer,
    progress: Progress,
) -> None:
    partial = path.with_suffix(".partial")
    metadata = {"config": config.model_dump_json(), "progress": json.dumps(asdict(progress))}
    save_file(_tensors(network, average, optimiser), partial, metadata)
    partial.replace(path)


def read_checkpoint(path: Path | str) -> tuple[TrainingConfig, Progress, dict[str, torch.Tensor]]:
    """Configuration, progress and tensors of a checkpoint.

    Raises
    ------
    ModelNotFoundError, TrainingError
        No such file; a file that is not a checkpoint of ours.
    """
    if not Path(path).is_file():
        raise ModelNotFoundError(f"no checkpoint at {path}")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        config = TrainingConfig.model_validate_json(metadata["config"])
        return config, Progress(**json.loads(metadata["progress"])), tensors
    except Exception as error:
        raise TrainingError(f"{path} is not a checkpoint of this version: {error}") from error


def _part(tensors: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}


def _restore(
    path: Path,
    config: TrainingConfig,
    network: Generator,
    average: Generator,
    optimiser: torch.optim.Optimizer,
) -> Progress:
    saved, progress, tensors = read_checkpoint(path)
    if saved != config:
        names = [k for k, v in config if v != getattr(saved, k)]
        raise TrainingError(
            f"{path}: expected the configuration it was saved with, but {', '.join(names)} differ; "
            "resume with the same settings, or start anew"
        )
    network.load_state_dict(_part(tensors, "network"))
    average.load_state_dict(_part(tensors, "average"))
    parameters = list(network.parameters())
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in _part(tensors, "optimiser").items():
        index, name = key.split(".")
        like = parameters[int(index)]
        if value.shape == like.shape:
            # Fused Adam walks through memory: its moments must lie there as the parameters do.
            value = torch.empty_like(like).copy_(value)
        state.setdefault(int(index), {})[name] = value
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
    return progress


def averaged_generator(path: Path | str) -> tuple[Generator, TrainingConfig, Progress]:
    """The averaged network of a checkpoint, in evaluation mode, and how it came to be."""
    config, progress, tensors = read_checkpoint(path)
    generator = build_generator(config.network, **config.options)
    generator.load_state_dict(_part(tensors, "average"))
    return generator.eval(), config, progress
