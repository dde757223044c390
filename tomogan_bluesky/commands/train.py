"""`tomogan-bluesky train`: a model from simulated scans."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..models.artifact import ModelCard
    from ..training.pairs import SimulatedScans
    from ..training.trainer import Progress, TrainingConfig

_EXAMPLES = """\
examples:
  tomogan-bluesky train --simulated --minutes 45 --output my_model
      as the model that ships with the package was made; the file is my_model/model.ts
  tomogan-bluesky train --simulated --minutes 45 --output my_model --resume
      go on where an interrupted training was saved last
  tomogan-bluesky train --simulated --steps 200 --size 128 --angles 180 --slices 20 --output try
      small and quick, to see that it works

With the same arguments (--steps rather than --minutes), versions and number of threads, a training
gives the same model. Where other programs use the processor too, set OMP_WAIT_POLICY=PASSIVE.
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "train",
        help="train a model on simulated scans",
        description="Simulate scans, train a network on them, score it on samples that it has not "
        "seen, and export it with its card.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--simulated", action="store_true", required=True, help="learn from simulated scans"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="made if absent")
    parser.add_argument("--preset", default="unet4", help="unet4 (default) or tomogan3")
    parser.add_argument("--base", type=int, help="channels of unet4 at full resolution (16)")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=float, help="wall time of the training (45)")
    budget.add_argument("--steps", type=int, help="its number of steps instead")
    parser.add_argument("--seed", type=int, default=0, help="of samples, noise and network (0)")
    parser.add_argument("--size", type=int, help="detector columns (default: 192, 256 and 512)")
    parser.add_argument("--angles", type=int, help="projections of --size (1.57 times the columns)")
    parser.add_argument("--slices", type=int, default=200, help="slices of --size (200)")
    parser.add_argument("--batch", type=int, default=8, help="crops a step (8)")
    parser.add_argument("--crop", type=int, default=96, help="width of a crop in pixels (96)")
    parser.add_argument("--name", default="my-model", help="name on the model's card")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep simulated slices here")
    parser.add_argument("--threads", type=int, help="processor threads (default: torch's choice)")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, …")
    parser.add_argument("--resume", action="store_true", help="go on from DIR's checkpoint")
    parser.add_argument("--json", action="store_true", help="print the card as JSON at the end")
    return parser


def run(args: argparse.Namespace) -> int:
    import torch

    from ..models.artifact import export_model
    from ..models.generator import build_generator
    from ..training.evaluation import evaluate
    from ..training.pairs import load_or_simulate
    from ..training.trainer import CHECKPOINT, averaged_generator, read_checkpoint, train

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    config = _config(args)
    checkpoint = args.output / CHECKPOINT
    # What is wrong with the network or the checkpoint should be said before minutes of simulation.
    build_generator(config.network, **config.options)
    if args.resume:
        read_checkpoint(checkpoint)
    recipes, unseen = _recipes(args)
    pairs = load_or_simulate(recipes, args.cache)
    validation = load_or_simulate([unseen], args.cache)[0]
    train(
        config,
        pairs,
        args.output,
        checkpoint if args.resume else None,
        validation=validation,
        device=args.device,
    )
    generator, config, progress = averaged_generator(checkpoint)
    metrics = evaluate(generator, validation)
    card = _card(args, config, progress, recipes, metrics)
    path = args.output / "model.ts"
    card = export_model(generator, card, path)
    if args.json:
        print(card.model_dump_json())
    else:
        print(_summary(metrics))
        print(f"\n{path}: load it with model={str(path)!r}")
    return 0


def _card(
    args: argparse.Namespace,
    config: "TrainingConfig",
    progress: "Progress",
    recipes: "Sequence[SimulatedScans]",
    metrics: dict[str, float],
) -> "ModelCard":
    import torch

    from ..models.artifact import ModelCard, TrainedOn

    options = ", ".join(f"{k}={v}" for k, v in config.options.items())
    return ModelCard(
        name=args.name,
        network=f"{config.network}({options})",
        dose_range=recipes[0].dose_range,
        reconstruction=TrainedOn(method="gridrec", filter=recipes[0].filter),
        training_command=_command(args, progress.steps, torch.get_num_threads()),
        training={
            "config": config.model_dump(mode="json"),
            "scans": [recipe.model_dump(mode="json") for recipe in recipes],
            "target": "noise-free reconstruction of the same projections",
            "full_dose": "5.5e4 photons a pixel and projection at 256 columns, more in proportion",
            "minutes": round(progress.seconds / 60, 1),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "history": progress.history,
        },
        metrics=metrics,
    )


def _command(args: argparse.Namespace, steps: int | None, threads: int) -> str:
    """The command that makes the same model again: the steps that were done, not the minutes."""
    words = ["tomogan-bluesky", "train", "--simulated", "--steps", str(steps)]
    for option in ("preset", "base", "seed", "size", "angles", "slices", "batch", "crop"):
        value = getattr(args, option)
        if value is not None and not (option == "slices" and args.size is None):
            words += [f"--{option}", str(value)]
    words += ["--threads", str(threads), "--name", args.name, "--output", "DIR"]
    return shlex.join(words)


def _summary(metrics: dict[str, float]) -> str:
    """Scores as lines of text."""
    doses = [k.removeprefix("psnr_db_noisy_at_") for k in metrics if k.startswith("psnr_db_noisy")]
    names = ("psnr_db", "ssim", "edge_fidelity", "edge_f1")
    lines = [f"{'unseen slices':24s}" + "".join(f"{name:>15s}" for name in names)]
    for dose in doses:
        for kind in ("noisy", "denoised"):
            values = (metrics[f"{name}_{kind}_at_{dose}"] for name in names)
            lines.append(f"dose {dose:6s} {kind:12s}" + "".join(f"{v:15.3f}" for v in values))
    return "\n".join(lines)


def _config(args: argparse.Namespace) -> "TrainingConfig":
    from pydantic import ValidationError

    from ..errors import ConfigurationError
    from ..training.trainer import TrainingConfig

    minutes = 45.0 if args.minutes is None and args.steps is None else args.minutes
    try:
        return TrainingConfig(
            network=args.preset,
            options={} if args.base is None else {"base": args.base},
            steps=args.steps,
            minutes=minutes,
            batch=args.batch,
            crop=args.crop,
            seed=args.seed,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigurationError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _recipes(args: argparse.Namespace) -> "tuple[tuple[SimulatedScans, ...], SimulatedScans]":
    from ..training.pairs import SimulatedScans, training_scans, validation_scans

    if args.size is None:
        return training_scans(args.seed), validation_scans(args.seed)
    angles = args.angles or round(1.57 * args.size)
    shape = {"size": args.size, "n_angles": angles}
    training = SimulatedScans(**shape, n_slices=args.slices, seed=1000 * args.seed)
    return (training,), validation_scans(args.seed).model_copy(update=shape)
