"""`tomogan-bluesky calibrate`: a model learns how far off it may be."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError
from .train_data import (
    RECORDED,
    TrainingData,
    add_data_options,
    hdf5_data,
    make_folder,
    scan_data,
    simulated_data,
    simulated_recipes,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..models.card import ModelCard
    from ..training.calibrating import Unseen
    from ..training.settings import TrainingConfig

_EXAMPLES = """\
examples:
  tomogan-bluesky calibrate unet4-simulated-v3 --simulated --output calibrated
      as the model that ships with the package got its uncertainty: calibrated/model.ts
  tomogan-bluesky calibrate my_model/model.ts --catalog my_catalog --query plan_name=tomo_scan \\
      --output calibrated
      from archived scans: it learns from some samples, and is calibrated on the others
  tomogan-bluesky calibrate my_model/model.ts --simulated --size 128 --slices 40 --steps 100 \\
      --output try
      small and quick, to see that it works

The denoised slices stay what they were, to the bit. What is added is a second output: for each
pixel the half-width of an interval that holds nine of ten errors, at edges and in flat parts alike,
on samples that have not been learned from. Give scans that the model has not learned from, either.
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "calibrate",
        help="teach a model how far off it may be, pixel by pixel",
        description="Add an uncertainty to a finished model: a small network learns where its "
        "errors are, and is calibrated on samples that it has not seen.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="name or path")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="made if absent")
    parser.add_argument("--name", help="name on the new card (default: that of the model)")
    parser.add_argument("--steps", type=int, default=600, help="of learning (600)")
    parser.add_argument("--batch", type=int, default=8, help="crops a step (8)")
    parser.add_argument("--crop", type=int, default=96, help="width of a crop in pixels (96)")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="of Adam (3e-3)")
    parser.add_argument("--seed", type=int, default=0, help="of samples, noise and crops (0)")
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="keep slices here (scans: DIR/pairs)"
    )
    parser.add_argument("--threads", type=int, help="processor threads (default: torch's choice)")
    parser.add_argument("--device", default="cpu", help="to learn on: cpu (default), cuda, …")
    parser.add_argument("--pt2", action="store_true", help="write the model for torch.export, too")
    parser.add_argument("--json", action="store_true", help="print the card as JSON at the end")
    add_data_options(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    import torch

    from ..models.artifact import export_model, load_generator
    from ..models.uncertainty import DENOISED, UNCERTAINTY, UncertainGenerator
    from ..training.calibrating import calibrated, reliability_of
    from ..training.reliability import reliability_table
    from ..training.uncertainty import learn_uncertainty

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    network, card = load_generator(args.model)
    config = _config(args, card)
    make_folder(args.output)
    data, unseen = _data(args, config)
    if not unseen:
        raise ConfigurationError(
            "calibration needs a sample that is not learned from: expected scans of at least two "
            "samples, got one; widen --query"
        )
    _remark_reconstruction(card, data)
    torch.manual_seed(args.seed)
    generator = UncertainGenerator(network)
    losses = learn_uncertainty(generator, data.pairs, config, args.device)
    errors = str(data.card["target"])
    calibration, familiarity = calibrated(generator, unseen, errors, args.seed)
    name = args.name or card.name
    results = []
    if data.validation is not None:
        results = reliability_of(generator, calibration, data.validation, name)
    figures = {
        f"{name}_at_{result.dose:g}": result.mean(name)
        for result in results
        for name in ("coverage", "coverage_edges", "coverage_flat", "width")
    }
    learned = {"config": config.model_dump(mode="json"), "losses": losses, **data.card}
    path = args.output / "model.ts"
    card = card.model_copy(
        update={
            "name": name,
            "outputs": (DENOISED, UNCERTAINTY),
            "calibration": calibration,
            "familiarity": familiarity,
            "training_command": f"{card.training_command}\n{_command(args, card.name)}",
            "training": {**card.training, UNCERTAINTY: learned},
            "metrics": {**card.metrics, **figures},
        }
    )
    card = export_model(generator, card, path)
    if args.pt2:
        export_model(generator, card, path.with_suffix(".pt2"))
    if args.json:
        print(card.model_dump_json())
        return 0
    ranges = ", ".join(f"{factor:.2f}" for factor in calibration.factors)
    print(f"factors by noise, from the least to the most: {ranges}")
    if results:
        print(reliability_table(results))
    print(f"{path}: load it with model={str(path)!r}")
    return 0


def _config(args: argparse.Namespace, card: "ModelCard") -> "TrainingConfig":
    from pydantic import ValidationError

    from ..models.generator import parse_generator
    from ..training.settings import TrainingConfig

    name, options = parse_generator(card.network)
    given = {k: getattr(args, k) for k in ("steps", "batch", "crop", "learning_rate", "seed")}
    try:
        return TrainingConfig(network=name, options=options, **given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "calibrate"
        raise ConfigurationError(f"{where}: {first['msg']}") from error


def _data(
    args: argparse.Namespace, config: "TrainingConfig"
) -> "tuple[TrainingData, Sequence[Unseen]]":
    """What is learned from, and what is calibrated with."""
    from ..training.calibrating import Unseen, calibration_scans
    from ..training.pairs import load_or_simulate

    if args.simulated:
        data = simulated_data(args, config)
        recipes, validation = simulated_recipes(args, config)
        scans = calibration_scans(validation, recipes[0])
        return data, [Unseen(pairs) for pairs in load_or_simulate(scans, args.cache)]
    data = hdf5_data(args) if args.hdf5 is not None else scan_data(args)
    return data, data.unseen


def _remark_reconstruction(card: "ModelCard", data: TrainingData) -> None:
    if card.reconstruction != data.reconstruction:
        knows, sees = (
            f"{r.method}, filter {r.filter!r}" for r in (card.reconstruction, data.reconstruction)
        )
        print(
            f"model {card.name!r} was trained on slices of {knows}, but these are of {sees}: its "
            "uncertainty will be that on such slices",
            file=sys.stderr,
        )


def _command(args: argparse.Namespace, model: str) -> str:
    """What makes the same uncertainty again, of the model of that name, wherever it is."""
    kind = "simulated" if args.simulated else "hdf5" if args.hdf5 is not None else "scans"
    words = ["tomogan-bluesky", "calibrate", model]
    words += ["--simulated"] if args.simulated else []
    for option in ("steps", "batch", "crop", "learning_rate", *RECORDED[kind]):
        value = getattr(args, option)
        if value in (None, []) or (option == "slices" and args.size is None):
            continue
        if option == "rows":
            value = ":".join(map(str, value))
        values = value if isinstance(value, list) else [value]
        words += [f"--{option.replace('_', '-')}", *map(str, values)]
    return shlex.join([*words, "--output", "DIR"])
