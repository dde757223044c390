"""The stages of a training, as `tomogan-bluesky train` runs them.

Enter: the command's arguments, and pairs. Leave: configurations, checkpoints in the output folder,
and the network to export.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from ..models.generator import Generator
    from ..training.pairs import Pairs
    from ..training.processes import World
    from ..training.settings import Stage, TrainingConfig
    from ..training.trainer import Progress

_GAN_SHARE = 0.2  # steps of the gan stage, as a share of those of the pixel stage


def add_options(parser: argparse.ArgumentParser) -> None:
    """What concerns the network, the losses and the loop."""
    network = parser.add_argument_group("network")
    network.add_argument(
        "--network", "--preset", default=None, help="unet4 (default), tomogan3, unet3d or msd"
    )
    network.add_argument("--base", type=int, help="channels of unet4 at full resolution (16)")
    network.add_argument(
        "--depth", type=int, help="adjacent slices that enter (1, or as many as --finetune has)"
    )
    network.add_argument(
        "--finetune",
        metavar="MODEL",
        help="begin with this model, by name or path; with --depth, a model of single slices "
        "learns to look at their neighbours",
    )
    stages = parser.add_argument_group("stages")
    stages.add_argument(
        "--stage",
        choices=("pixel", "gan", "both"),
        default="pixel",
        help="pixel: errors alone (default); gan: discriminator and feature loss, on from the "
        "pixel stage in DIR or from --finetune; both: one after the other",
    )
    stages.add_argument(
        "--recipe",
        default="standard",
        choices=("standard", "review"),
        help="review: what the review of TomoGAN says: 512 columns, batches of 16, Adam at 2e-4, "
        "200 epochs, four processes, VGG-16; the defaults below are those of standard",
    )
    budget = stages.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=float, help="wall time of the training (45)")
    budget.add_argument("--steps", type=int, help="its number of steps instead")
    budget.add_argument("--epochs", type=float, help="or how often each slice is seen")
    stages.add_argument(
        "--gan-steps", type=int, help="steps of the second of both stages (a fifth of the first)"
    )
    stages.add_argument("--batch", type=int, help="crops a step (8)")
    stages.add_argument("--crop", type=int, help="width of a crop in pixels (96)")
    stages.add_argument(
        "--learning-rate", type=float, help="of Adam (1e-3; with --finetune 2e-4; gan stage: 1e-4)"
    )
    stages.add_argument("--pixel-loss", choices=("l1", "charbonnier"), help="l1 (default)")
    stages.add_argument("--ssim-weight", type=float, help="of SSIM, of one scale, in the loss (0)")
    stages.add_argument("--ms-ssim-weight", type=float, help="of MS-SSIM in the loss (0)")
    stages.add_argument("--adversarial-loss", choices=("bce", "hinge"), help="bce (default)")
    stages.add_argument("--adversarial-weight", type=float, help="(5e-3)")
    stages.add_argument(
        "--critic-alone",
        type=int,
        metavar="STEPS",
        help="a gan stage begins with such many, a fifth at most, of the discriminator alone (100)",
    )
    stages.add_argument(
        "--critic-rate",
        type=float,
        metavar="R",
        help="learning rate of the discriminator over that of the generator (10)",
    )
    stages.add_argument(
        "--feature-backbone",
        choices=("encoder", "fixed", "vgg16"),
        help="encoder: of the pixel stage's network (default); fixed: a bank of filters; vgg16: "
        "needs --vgg16",
    )
    stages.add_argument("--feature-weight", type=float, help="(3e-2)")
    stages.add_argument(
        "--vgg16", type=Path, metavar="FILE", help="torchvision's weights of VGG-16"
    )
    stages.add_argument("--tensorboard", action="store_true", help="curves in DIR/board")
    stages.add_argument("--patience", type=int, help="stop after so many validations without gain")
    stages.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        help="of convolutions (bfloat16 on GPUs that have it, else float32)",
    )
    stages.add_argument("--processes", type=int, help="expected from torchrun (all it starts)")


_OF_CONFIG = (
    *("batch", "crop", "learning_rate", "pixel_loss", "ssim_weight", "ms_ssim_weight"),
    *("adversarial_loss", "adversarial_weight", "feature_backbone", "feature_weight"),
    *("critic_alone", "critic_rate"),
    *("patience", "precision", "processes"),
)
# What the command on a model's card repeats.
RECORDED = (
    *("network", "base", "depth", "finetune", "stage", "recipe", "steps", "gan_steps"),
    *(name for name in _OF_CONFIG if name != "processes"),
    "vgg16",
)
_OF_GAN = {
    *("adversarial_loss", "adversarial_weight", "feature_backbone", "feature_weight"),
    *("critic_alone", "critic_rate"),
}
_OF_PIXEL = {"patience"}


def stages_of(args: argparse.Namespace) -> "tuple[Stage, ...]":
    """The stages that are asked for, in order."""
    return ("pixel", "gan") if args.stage == "both" else (args.stage,)


def make_config(
    args: argparse.Namespace,
    stage: "Stage",
    world: "World",
    start: str | None = None,
    steps: int | None = None,
) -> "TrainingConfig":
    """The configuration of a stage: arguments over the recipe over defaults.

    Parameters
    ----------
    args : argparse.Namespace
    stage : "pixel" or "gan"
    world : World
    start : str, optional
        The network that it begins with, as a model's card describes it.
    steps : int, optional
        Of the pixel stage before it.

    Raises
    ------
    ConfigurationError
        Settings that contradict each other.
    """
    from pydantic import ValidationError

    from ..models.generator import parse_generator
    from ..training.objective import vgg16_sha256
    from ..training.settings import FINE_TUNING_RATE, RECIPES, TrainingConfig

    settings: dict[str, Any] = {"processes": world.size, "precision": _precision(args.device)}
    settings |= RECIPES[args.recipe][stage]
    not_of_this = _OF_PIXEL if stage == "gan" else _OF_GAN
    settings |= {
        name: value
        for name in _OF_CONFIG
        if name not in not_of_this and (value := getattr(args, name)) is not None
    }
    options = {k: v for k in ("base", "depth") if (v := getattr(args, k)) is not None}
    if start is not None:
        settings.setdefault("learning_rate", FINE_TUNING_RATE)
        settings["network"], settings["options"] = parse_generator(start)
        given = {"network": args.network, **options}
        there = {"network": settings["network"], **settings["options"]}
        if differing := [k for k, v in given.items() if v not in (None, there.get(k))]:
            raise ConfigurationError(
                f"--{differing[0]}: expected that of the network to begin with, {start}, got "
                f"{given[differing[0]]}; leave it out"
            )
    else:
        if args.network is not None:
            settings |= {"network": args.network, "options": {}}
        settings["options"] = settings.get("options", {}) | options
    budget = {k: v for k in ("steps", "minutes", "epochs") if (v := getattr(args, k)) is not None}
    if args.stage == "both" and stage == "gan":
        if args.gan_steps is not None:
            budget = {"steps": args.gan_steps}
        elif "epochs" not in settings:
            budget = {"steps": max(1, round(_GAN_SHARE * (steps or 0)))}
        else:
            budget = {}
    if budget:
        settings = {k: v for k, v in settings.items() if k != "epochs"} | budget
    elif "epochs" not in settings:
        settings["minutes"] = 45.0
    if args.vgg16 is not None:
        settings["vgg16_sha256"] = vgg16_sha256(args.vgg16)
    try:
        return TrainingConfig(stage=stage, seed=args.seed, **settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "training"
        raise ConfigurationError(f"{where}: {first['msg']}") from error


def _precision(device: str) -> str:
    import torch

    on_gpu = torch.device(device).type == "cuda"
    return "bfloat16" if on_gpu and torch.cuda.is_bf16_supported() else "float32"


@dataclass
class Trained:
    """What came out: the network, and of each stage its configuration and progress."""

    generator: "Generator"
    stages: "list[tuple[TrainingConfig, Progress]]"
    failure: Exception | None = None
    """The collapse that ended the gan stage, after which the pixel stage's network is exported."""


def checkpoint_of(output: Path, stage: "Stage") -> Path:
    """Where the checkpoint of a stage is."""
    from ..training.checkpoint import CHECKPOINT

    return (output / "gan" if stage == "gan" else output) / CHECKPOINT


def check_unused(args: argparse.Namespace) -> None:
    """See that no training is lost.

    Raises
    ------
    ConfigurationError
        The folder holds one of these stages already, which is not to be resumed.
    """
    there = [path for s in stages_of(args) if (path := checkpoint_of(args.output, s)).exists()]
    if there and not args.resume:
        raise ConfigurationError(
            f"--output {args.output}: expected a folder without a training, got one with "
            f"{there[0]}; go on with that by --resume, name another folder, or remove that file"
        )


def first_start(args: argparse.Namespace) -> "tuple[Generator | None, str | None]":
    """The network that the first stage begins with, and its description; None: random weights.

    Raises
    ------
    ModelNotFoundError, ModelError, TrainingError, ConfigurationError
        There is no such model or checkpoint, or it can't be made as deep as is asked.
    """
    from ..models.artifact import load_generator
    from ..models.deepening import deepened
    from ..models.generator import depth_of, describe_generator, parse_generator
    from ..training.checkpoint import averaged_generator

    if args.finetune is not None:
        generator, card = load_generator(args.finetune)
        name, options = parse_generator(card.network)
        if args.depth in (None, depth_of(name, options)):
            return generator, card.network
        return deepened(generator, name, options, args.depth)
    if args.stage != "gan":
        return None, None
    generator, config, _ = averaged_generator(checkpoint_of(args.output, "pixel"))
    return generator, describe_generator(config.network, config.options)


def run_stages(
    args: argparse.Namespace,
    first: "TrainingConfig",
    start: "Generator | None",
    pairs: "Sequence[Pairs]",
    validation: "Pairs | None",
    world: "World",
    device: str,
) -> Trained:
    """Train stage after stage; a gan stage that collapses leaves the network that it began with.

    With ``args.resume``, stages go on from their checkpoints where there are any.
    """
    from ..errors import CollapseError
    from ..models.generator import describe_generator
    from ..training.checkpoint import averaged_generator
    from ..training.trainer import train

    done: list[tuple[TrainingConfig, Progress]] = []
    failure: Exception | None = None
    config = first
    for stage in stages_of(args):
        if done:
            before, progress = done[-1]
            network = describe_generator(before.network, before.options)
            config = make_config(args, stage, world, network, progress.steps)
        checkpoint = checkpoint_of(args.output, stage)
        try:
            train(
                config,
                pairs,
                checkpoint.parent,
                checkpoint if args.resume and checkpoint.exists() else None,
                start=start,
                validation=validation,
                device=device,
                world=world,
                vgg16=args.vgg16,
                board=args.output / "board" / stage if args.tensorboard else None,
            )
        except CollapseError as error:
            failure = error
        world.wait()
        start, config, progress = averaged_generator(checkpoint)
        done.append((config, progress))
    assert start is not None
    return Trained(start, done, failure)
