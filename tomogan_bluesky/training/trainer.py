"""The training loop.

Enters: a configuration and pairs of noisy slices and targets. Leaves: a checkpoint that can be
resumed to the bit, with the averaged network that `export_model` takes.
"""

import logging
import math
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ..errors import TrainingError
from ..models.generator import Generator
from .board import curves
from .checkpoint import CHECKPOINT, averaged_generator, read_checkpoint
from .collapse import CollapseWatch
from .crops import Batch, Crops
from .evaluation import evaluate
from .judgement import judge
from .metrics import psnr
from .objective import Objective, in_precision
from .pairs import Pairs
from .processes import World
from .progress import Progress, decide_steps, rate
from .settings import TrainingConfig
from .state import TrainingState

__all__ = [
    "CHECKPOINT",
    "Progress",
    "TrainingConfig",
    "averaged_generator",
    "read_checkpoint",
    "train",
]

logger = logging.getLogger(__name__)

ALONE = World()


def train(
    config: TrainingConfig,
    pairs: Sequence[Pairs],
    out_dir: Path | str,
    resume: Path | str | None = None,
    *,
    start: Generator | None = None,
    validation: Pairs | None = None,
    device: str = "cpu",
    world: World = ALONE,
    vgg16: Path | str | None = None,
    board: Path | None = None,
) -> Generator:
    """Train a network on pairs, one stage.

    Adam; the learning rate is constant and then falls as a cosine, so that the number of steps may
    be decided late. In a gan stage each step teaches the generator, then the discriminator, and a
    network that costs more than `largest_cost_db` of what the stage began with is not kept.

    Parameters
    ----------
    config : TrainingConfig
    pairs : sequence of Pairs
        One entry a size; a slice is drawn from all of them alike.
    out_dir : path
        Gets ``checkpoint.safetensors``, replaced every `checkpoint_every` steps and at the end.
    resume : path, optional
        A checkpoint to continue. It must be of the same configuration.
    start : Generator, optional
        The network to begin with; None: random weights. A gan stage needs one.
    validation : Pairs, optional
        Scored at each checkpoint, never learned from. A gan stage and `patience` need it.
    device : str
    world : World
        The processes that train together.
    vgg16 : path, optional
        The weights of VGG-16, for the feature loss of that name.
    board : path, optional
        A folder for curves that TensorBoard shows.

    Returns
    -------
    Generator
        With the averaged weights that were kept, in evaluation mode, on the CPU.

    Raises
    ------
    TrainingError
        The loss is not finite; no slices, or slices smaller than the crops; a checkpoint of another
        configuration, or one that can't be written; nothing to begin a gan stage with.
    CollapseError
        A gan stage has gone wrong; the checkpoint keeps what was good.
    ModelNotFoundError
        No checkpoint at `resume`; no weights of VGG-16.
    BackendUnavailableError
        TensorBoard is asked for and not installed.
    """
    _check(config, start or resume, validation, world)
    crops = Crops(pairs, config, world.rank)
    state = TrainingState.begin(config, len(crops), start, device, world, vgg16)
    checkpoint = Path(out_dir) / CHECKPOINT

    def validate() -> dict[str, float]:
        scores = None
        if world.first and validation is not None:
            scores = evaluate(state.average, validation, {"psnr_db": psnr}, device)
        return world.from_first(scores) or {}

    if resume is not None:
        state.restore(Path(resume))
    elif config.stage == "gan":
        state.progress.baseline = validate()
    progress, critic = state.progress, state.critic
    if world.first:
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        if critic is not None and resume is None:
            state.save(checkpoint)  # what the stage begins with is safe whatever happens

    network = world.wrap(state.network)
    objective = Objective(config, state.features, critic, device)
    watch = CollapseWatch(config.collapse_cost_db)
    log = _Log()
    start_s = time.monotonic() - progress.seconds
    bar = tqdm(
        total=progress.steps,
        initial=progress.step,
        desc=f"training, {config.stage} stage",
        unit="step",
        disable=None if world.first else True,
    )
    batches = crops.batches(state.rng, ahead=torch.device(device).type == "cuda")
    with bar, curves(board if world.first else None) as draw, closing(batches):
        while not progress.finished:
            batch = next(batches).to(device)
            state.set_rate(rate(progress))
            waits = state.waits
            with torch.set_grad_enabled(not waits):
                with in_precision(config, device):
                    denoised = network(batch.noisy, batch.noise)
                terms = objective(batch, denoised)
                loss = torch.stack(list(terms.values())).sum()
            if not waits:
                state.optimiser.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(state.network.parameters(), 1.0)
            measured = {"loss": loss, **terms}
            if critic is not None:
                measured["discriminator"] = critic.learn(batch, denoised.detach())
                measured["spread"] = _spread(batch, denoised)
            measured["seconds"] = loss.new_tensor(time.monotonic() - start_s)
            values = log.add(measured, world)
            progress.seconds = values["seconds"]
            if critic is not None:
                watch.after_step(progress.step, values["discriminator"], values["spread"])
            if not math.isfinite(values["loss"]):
                kept = f"; the last good state is in {checkpoint}" if checkpoint.exists() else ""
                raise TrainingError(
                    f"step {progress.step}: expected a finite loss, got {values['loss']}; look "
                    "at the pairs, or start anew with a lower learning_rate (now "
                    f"{config.learning_rate:g}){kept}"
                )
            if not waits:
                state.optimiser.step()
                state.update_average()

            progress.step += 1
            bar.update()
            if progress.steps is None:
                bar.total = decide_steps(progress, config)
            if progress.step % config.checkpoint_every == 0 or progress.step == progress.steps:
                scores = validate()
                entry = {"step": float(progress.step), **log.means(), **scores}
                bar.set_postfix({k: f"{v:.4g}" for k, v in entry.items() if "denoised" in k})
                draw(entry)
                judge(state, entry, watch)
                if world.first:
                    logger.info("training: %s; %s left", entry, _left(progress))
                    state.save(checkpoint)
    return state.kept.cpu().eval()


def _check(config: TrainingConfig, start: object, validation: Pairs | None, world: World) -> None:
    """Say what is missing before anything is made."""
    if config.processes != world.size:
        raise TrainingError(
            f"expected {config.processes} processes, got {world.size}: start them with torchrun "
            f"--nproc-per-node {config.processes} -m tomogan_bluesky train …, or set processes"
        )
    if config.stage == "gan" and (start is None or validation is None):
        raise TrainingError(
            "a gan stage begins with the network of a pixel stage and is measured against it: give "
            "`start`, or a checkpoint to resume, and `validation`"
        )
    if config.patience is not None and validation is None:
        raise TrainingError("patience waits for better validations: give `validation`")


def _spread(batch: Batch, denoised: torch.Tensor) -> torch.Tensor:
    """Standard deviation of denoised slices over that of their targets: 0 for constant ones."""
    found, wanted = (t.detach().flatten(1).std(1) for t in (denoised, batch.target))
    return (found.mean() / wanted.mean()).nan_to_num(0.0, posinf=1.0)


def _left(progress: Progress) -> str:
    seconds = progress.seconds_left
    return "unknown time" if seconds is None else str(timedelta(seconds=round(seconds)))


class _Log:
    """Means of what the steps measured since the last entry of the history."""

    def __init__(self) -> None:
        self._rows: list[dict[str, float]] = []

    def add(self, measured: dict[str, torch.Tensor], world: World) -> dict[str, float]:
        """Take the values of a step: returns their means over all processes."""
        means = world.mean(torch.stack([v.detach() for v in measured.values()]))
        self._rows.append(dict(zip(measured, means.tolist(), strict=True)))
        return self._rows[-1]

    def means(self) -> dict[str, float]:
        """Means over the steps, which are then forgotten; time is not averaged."""
        rows, self._rows = self._rows, []
        return {k: float(np.mean([row[k] for row in rows])) for k in rows[0] if k != "seconds"}
