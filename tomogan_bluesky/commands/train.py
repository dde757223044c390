"""`tomogan-bluesky train`: a model from simulated scans."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .train_stages import (
    RECORDED,
    Trained,
    add_options,
    checkpoint_of,
    first_start,
    make_config,
    run_stages,
    stages_of,
)

if TYPE_CHECKING:
    from ..models.artifact import ModelCard
    from ..training.pairs import SimulatedScans
    from ..training.processes import World
    from ..training.settings import TrainingConfig

_EXAMPLES = """\
examples:
  tomogan-bluesky train --simulated --minutes 45 --output my_model
      as the model that ships with the package was made; the file is my_model/model.ts
  tomogan-bluesky train --simulated --minutes 45 --output my_model --resume
      go on where an interrupted training was saved last
  tomogan-bluesky train --simulated --stage gan --steps 2000 --output my_model
      sharpen it: a discriminator and a feature loss, which may cost 0.3 dB and no more
  torchrun --nproc-per-node 4 -m tomogan_bluesky train --simulated --recipe review --stage both \\
      --vgg16 vgg16-397923af.pth --slices 10000 --device cuda --output review
      on four GPUs, as the review of TomoGAN has it
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
    parser.add_argument("--seed", type=int, default=0, help="of samples, noise and network (0)")
    parser.add_argument("--size", type=int, help="detector columns (default: 192, 256 and 512)")
    parser.add_argument("--angles", type=int, help="projections of --size (1.57 times the columns)")
    parser.add_argument("--slices", type=int, default=200, help="slices of --size (200)")
    parser.add_argument("--name", default="my-model", help="name on the model's card")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep simulated slices here")
    parser.add_argument("--threads", type=int, help="processor threads (default: torch's choice)")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, …")
    parser.add_argument("--resume", action="store_true", help="go on from DIR's checkpoint")
    parser.add_argument("--json", action="store_true", help="print the card as JSON at the end")
    add_options(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    import torch

    from ..training.processes import joined

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    with joined(args.device) as (world, device):
        return _run(args, world, device)


def _run(args: argparse.Namespace, world: "World", device: str) -> int:
    from ..models.artifact import export_model
    from ..models.generator import build_generator
    from ..training.evaluation import evaluate
    from ..training.pairs import load_or_simulate
    from ..training.trainer import read_checkpoint

    # What is wrong with the settings, the network or the checkpoint should be said before minutes
    # of simulation.
    stage = stages_of(args)[0]
    start, network = first_start(args)
    config = make_config(args, stage, world, network)
    build_generator(config.network, **config.options)
    if args.resume:
        read_checkpoint(checkpoint_of(args.output, stage))
    recipes, unseen = _recipes(args, config)
    if not world.first and args.cache is not None:
        world.wait()  # the first process simulates, the others read
    pairs = load_or_simulate(recipes, args.cache)
    validation = load_or_simulate([unseen], args.cache)[0]
    if world.first and args.cache is not None:
        world.wait()
    trained = run_stages(args, config, start, pairs, validation, world, device)
    if not world.first:
        return 0
    metrics = evaluate(trained.generator, validation)
    card = _card(args, trained, recipes, metrics)
    path = args.output / "model.ts"
    card = export_model(trained.generator, card, path)
    if trained.failure is not None:
        print(f"error: {trained.failure}", file=sys.stderr)
        print(f"the network of the pixel stage was exported: {path}", file=sys.stderr)
        return 1
    if args.json:
        print(card.model_dump_json())
    else:
        print(_summary(metrics))
        print(f"\n{path}: load it with model={str(path)!r}")
    return 0


def _card(
    args: argparse.Namespace,
    trained: Trained,
    recipes: "Sequence[SimulatedScans]",
    metrics: dict[str, float],
) -> "ModelCard":
    import torch

    from ..models.artifact import ModelCard, TrainedOn
    from ..models.generator import describe_generator

    config, progress = trained.stages[-1]
    return ModelCard(
        name=args.name,
        network=describe_generator(config.network, config.options),
        depth=config.depth,
        dose_range=recipes[0].dose_range,
        reconstruction=TrainedOn(method="gridrec", filter=recipes[0].filter),
        training_command=_command(args, trained, torch.get_num_threads()),
        training={
            "stages": [
                {
                    "config": config.model_dump(mode="json"),
                    "minutes": round(progress.seconds / 60, 1),
                    "kept_step": progress.kept_step,
                    "stopped": progress.stopped,
                    "history": progress.history,
                }
                for config, progress in trained.stages
            ],
            "scans": [recipe.model_dump(mode="json") for recipe in recipes],
            "target": "noise-free reconstruction of the same projections",
            "full_dose": "5.5e4 photons a pixel and projection at 256 columns, more in proportion",
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        },
        metrics=metrics,
    )


def _command(args: argparse.Namespace, trained: Trained, threads: int) -> str:
    """The command that makes the same model again: the steps that were done, not the minutes."""
    config, progress = trained.stages[0]
    words = ["tomogan-bluesky", "train"]
    if config.processes > 1:
        nodes = ["--nproc-per-node", str(config.processes)]
        words = ["torchrun", *nodes, "-m", "tomogan_bluesky", "train"]
    values = vars(args) | {"steps": progress.steps, "precision": config.precision}
    if args.stage == "both":
        values["gan_steps"] = trained.stages[1][1].steps
    words.append("--simulated")
    for option in (*RECORDED, "seed", "size", "angles", "slices"):
        if values[option] is not None and not (option == "slices" and args.size is None):
            words += [f"--{option.replace('_', '-')}", str(values[option])]
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


def _recipes(
    args: argparse.Namespace, config: "TrainingConfig"
) -> "tuple[tuple[SimulatedScans, ...], SimulatedScans]":
    from ..training.pairs import SimulatedScans, training_scans, validation_scans

    size = args.size
    if size is None:
        standard = training_scans(args.seed)
        if config.crop <= min(recipe.size for recipe in standard):
            return standard, validation_scans(args.seed)
        size = config.crop
    shape = {"size": size, "n_angles": args.angles or round(1.57 * size)}
    training = SimulatedScans(**shape, n_slices=args.slices, seed=1000 * args.seed)
    return (training,), validation_scans(args.seed).model_copy(update=shape)
