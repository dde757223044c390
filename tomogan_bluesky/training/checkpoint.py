"""Checkpoints: the state of a training, to the bit, in one safetensors file.

Enter and leave: modules, optimisers, a configuration and progress. Tensors are named by what they
belong to (``network.body…``, ``optimiser.0.exp_avg``); the rest is JSON in the file's header. A
file is replaced only once its successor is on the disk.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from ..errors import BackendUnavailableError, ModelNotFoundError, TrainingError
from ..models.generator import Generator, build_generator
from .progress import Progress
from .settings import TrainingConfig

try:
    from safetensors import safe_open
    from safetensors.torch import save as to_bytes
except ImportError as error:
    raise BackendUnavailableError(
        "training needs safetensors for its checkpoints: pip install 'tomogan_bluesky[train]'"
    ) from error

CHECKPOINT = "checkpoint.safetensors"
Modules = Mapping[str, nn.Module]
Optimisers = Mapping[str, torch.optim.Optimizer]


def save(
    path: Path,
    config: TrainingConfig,
    progress: Progress,
    modules: Modules,
    optimisers: Optimisers,
) -> None:
    """Write a checkpoint, whole or not at all.

    Raises
    ------
    TrainingError
        The disk is full or fails; the checkpoint before is as it was.
    """
    tensors = {f"{n}.{k}": v for n, m in modules.items() for k, v in m.state_dict().items()}
    for name, optimiser in optimisers.items():
        for i, values in optimiser.state_dict()["state"].items():
            tensors |= {f"{name}.{i}.{k}": v for k, v in values.items()}
    content = to_bytes(
        {k: v.detach().cpu().contiguous() for k, v in tensors.items()},
        {"config": config.model_dump_json(), "progress": json.dumps(asdict(progress))},
    )
    partial = path.with_suffix(".partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        before = f"the one before is whole, in {path}" if path.exists() else "there is none before"
        raise TrainingError(
            f"step {progress.step}: the checkpoint could not be written ({error}); {before}: make "
            "room and resume"
        ) from error


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


def restore(
    path: Path, config: TrainingConfig, modules: Modules, optimisers: Optimisers
) -> Progress:
    """Put a checkpoint's state into modules and optimisers. Each optimiser `o` walks the parameters
    of one module, in its order.

    Raises
    ------
    ModelNotFoundError, TrainingError
        As `read_checkpoint`, and a checkpoint of another configuration, or of another version's
        networks.
    """
    saved, progress, tensors = read_checkpoint(path)
    if saved != config:
        names = [k for k, v in config if v != getattr(saved, k)]
        raise TrainingError(
            f"{path}: expected the configuration it was saved with, but {', '.join(names)} differ; "
            "resume with the same settings, or start anew"
        )
    for name, module in modules.items():
        try:
            module.load_state_dict(_part(tensors, name))
        except RuntimeError as error:
            raise TrainingError(
                f"{path}: expected the {name} of this version, got another one's; start anew"
            ) from error
    for name, optimiser in optimisers.items():
        _restore_optimiser(optimiser, _part(tensors, name))
    return progress


def _part(tensors: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}


def _restore_optimiser(
    optimiser: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]
) -> None:
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".")
        like = parameters[int(index)]
        if value.shape == like.shape:
            # Fused Adam walks through memory: its moments must lie there as the parameters do.
            value = torch.empty_like(like).copy_(value)
        state.setdefault(int(index), {})[name] = value
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})


def averaged_generator(path: Path | str) -> tuple[Generator, TrainingConfig, Progress]:
    """The network of a checkpoint that is to be exported, and how it came to be.

    It is in evaluation mode, and that of averaged weights which the training kept: the last, the
    best, or, after a gan stage that cost too much, the one it began with.
    """
    config, progress, tensors = read_checkpoint(path)
    generator = build_generator(config.network, **config.options)
    generator.load_state_dict(_part(tensors, "kept"))
    return generator.eval(), config, progress
