"""`tomogan-bluesky train`: a model from simulated scans, those of a catalog, or a file."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .train_data import (
    RECORDED as RECORDED_DATA,
)
from .train_data import (
    TrainingData,
    add_data_options,
    hdf5_data,
    make_folder,
    scan_data,
    simulated_data,
)
from .train_stages import (
    RECORDED,
    Trained,
    add_options,
    check_unused,
    checkpoint_of,
    first_start,
    make_config,
    run_stages,
    stages_of,
)

if TYPE_CHECKING:
    from ..models.card import ModelCard
    from ..training.processes import World
    from ..training.settings import TrainingConfig

_EXAMPLES = """\
examples:
  tomogan-bluesky train --simulated --minutes 45 --output my_model
      a model of single slices, my_model/model.ts; the commands that made the model that ships
      with the package are in its card, as training_command
  tomogan-bluesky train --simulated --minutes 45 --output my_model --resume
      go on where an interrupted training was saved last
  tomogan-bluesky train --simulated --stage gan --steps 2000 --output my_model
      sharpen it: a discriminator and a feature loss, which may cost 0.3 dB and no more
  torchrun --nproc-per-node 4 -m tomogan_bluesky train --simulated --recipe review --stage both \\
      --vgg16 vgg16-397923af.pth --slices 10000 --device cuda --output review
      on four GPUs, as the review of TomoGAN has it
  tomogan-bluesky train --catalog my_catalog --query sample=walnut --output walnut
      from archived scans: low against full dose where there are both, else each scan by itself
  tomogan-bluesky train --catalog my_catalog --query scan_id=12 --mode noise2inverse \\
      --finetune unet4-simulated-v3 --minutes 5 --output scan12
      the shipped model, adapted to one scan
  tomogan-bluesky train --tiled https://tiled.example.org --query plan_name=tomo_scan \\
      since=2026-01-01 --low-doses 0.25 0.1 --profile tomogan.yml --output beamline
      full-dose scans, their photons divided as the noise profile of their detector counts them
  tomogan-bluesky train --simulated --steps 200 --size 128 --angles 180 --slices 20 --output try
      small and quick, to see that it works

With the same arguments (--steps rather than --minutes), versions and number of threads, a training
gives the same model. Where other programs use the processor too, set OMP_WAIT_POLICY=PASSIVE.
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "train",
        help="train a model on simulated or archived scans",
        description="Simulate scans or read them from a catalog, train a network on them, score it "
        "on samples that it has not seen, and export it with its card.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="made if absent")
    parser.add_argument("--seed", type=int, default=0, help="of samples, noise and network (0)")
    parser.add_argument("--name", default="my-model", help="name on the model's card")
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="keep slices here (scans: DIR/pairs)"
    )
    parser.add_argument("--threads", type=int, help="processor threads (default: torch's choice)")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, …")
    parser.add_argument("--resume", action="store_true", help="go on from DIR's checkpoint")
    parser.add_argument("--pt2", action="store_true", help="write the model for torch.export, too")
    parser.add_argument("--json", action="store_true", help="print the card as JSON at the end")
    add_data_options(parser)
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
    from ..training.trainer import read_checkpoint

    # What is wrong with the settings, the network or the checkpoint should be said before minutes
    # of simulation.
    check_unused(args)
    stage = stages_of(args)[0]
    start, network = first_start(args)
    config = make_config(args, stage, world, network)
    build_generator(config.network, **config.options)
    if args.resume:
        read_checkpoint(checkpoint_of(args.output, stage))
    make_folder(args.output)
    kept = args.cache is not None or not args.simulated
    if not world.first and kept:
        world.wait()  # the first process simulates or reconstructs, the others read
    data = _data(args, config)
    if world.first and kept:
        world.wait()
    if args.finetune is not None and world.first:
        _remark_reconstruction(args.finetune, data)
    trained = run_stages(args, config, start, data.pairs, data.validation, world, device)
    if not world.first:
        return 0
    metrics = {} if data.validation is None else evaluate(trained.generator, data.validation)
    card = _card(args, trained, data, metrics)
    path = args.output / "model.ts"
    card = export_model(trained.generator, card, path)
    if args.pt2:
        export_model(trained.generator, card, path.with_suffix(".pt2"))
    if trained.failure is not None:
        print(f"error: {trained.failure}", file=sys.stderr)
        print(f"the network of the pixel stage was exported: {path}", file=sys.stderr)
        return 1
    if args.json:
        print(card.model_dump_json())
    else:
        if metrics:
            print(_summary(metrics) + "\n")
        print(f"{path}: load it with model={str(path)!r}")
    return 0


def _data(args: argparse.Namespace, config: "TrainingConfig") -> TrainingData:
    if args.simulated:
        return simulated_data(args, config)
    return hdf5_data(args) if args.hdf5 is not None else scan_data(args)


def _remark_reconstruction(model: str, data: TrainingData) -> None:
    """Say whether the model to begin with knows slices of another reconstruction."""
    from ..models.artifact import load_generator

    _, card = load_generator(model)
    if card.reconstruction != data.reconstruction:
        knows, sees = (
            f"{r.method}, filter {r.filter!r}" for r in (card.reconstruction, data.reconstruction)
        )
        print(
            f"model {card.name!r} was trained on slices of {knows}, but these are of {sees}: it "
            "has to learn their noise anew; set the reconstruction in --profile, or begin without "
            "--finetune",
            file=sys.stderr,
        )


def _card(
    args: argparse.Namespace,
    trained: Trained,
    data: TrainingData,
    metrics: dict[str, float],
) -> "ModelCard":
    import torch

    from ..models.artifact import load_generator
    from ..models.card import ModelCard
    from ..models.generator import describe_generator

    config, progress = trained.stages[-1]
    before = [] if args.finetune is None else [load_generator(args.finetune)[1].training_command]
    return ModelCard(
        name=args.name,
        network=describe_generator(config.network, config.options),
        depth=config.depth,
        dose_range=data.dose_range,
        reconstruction=data.reconstruction,
        detector=data.detector,
        least_noise=data.least_noise,
        training_command="\n".join([*before, _command(args, trained, torch.get_num_threads())]),
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
            **data.card,
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
    data = "simulated" if args.simulated else "hdf5" if args.hdf5 is not None else "scans"
    if args.simulated:
        words.append("--simulated")
    for option in (*RECORDED, *RECORDED_DATA[data]):
        value = values[option]
        if value in (None, []) or (option == "slices" and args.size is None):
            continue
        words += [f"--{option.replace('_', '-')}", *_words(option, value)]
    words += ["--threads", str(threads), "--name", args.name, "--output", "DIR"]
    return shlex.join(words)


def _words(option: str, value: Any) -> list[str]:
    """The value of an option as it is typed."""
    if option == "rows":
        return [":".join(map(str, value))]
    return [str(v) for v in value] if isinstance(value, list) else [str(value)]


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
