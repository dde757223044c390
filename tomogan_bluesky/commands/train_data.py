"""What `tomogan-bluesky train` learns from: simulated scans, those of a catalog, or a file.

Enter: the command's arguments. Leave: pairs, pairs to validate with, and what the card says of
both.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError, NoScansError
from .scan_options import add_catalog_options, add_scan_options, scan_reader

if TYPE_CHECKING:
    from ..models.card import TrainedOn
    from ..training.calibrating import Unseen
    from ..training.pairs import Pairs, SimulatedScans
    from ..training.scan_pairs import SamplePairs
    from ..training.settings import TrainingConfig

# What the command on a model's card repeats, by the kind of data.
RECORDED = {
    "simulated": ("seed", "size", "angles", "slices"),
    "hdf5": ("hdf5", "dose", "seed"),
    "scans": (
        *("catalog", "tiled", "query", "mode", "splits", "low_doses"),
        *("profile", "rows", "centre", "seed"),
    ),
}


@dataclass
class TrainingData:
    """Pairs, and where they are from.

    Attributes
    ----------
    pairs : sequence of Pairs
    validation : Pairs or None
        None: there is no sample besides those that are learned from.
    dose_range : tuple of float
    reconstruction : TrainedOn
    card : dict
        For the card's entry ``training``.
    detector : dict or None
        The noise profile of the detector, as plain data.
    least_noise : float or None
        See `harmless.relative_noise`.
    unseen : sequence of Unseen
        What was kept back: all of it, by sample. Of simulated scans nothing is, since there are as
        many new ones as one asks for.
    """

    pairs: "Sequence[Pairs]"
    validation: "Pairs | None"
    dose_range: tuple[float, float]
    reconstruction: "TrainedOn"
    card: dict[str, Any] = field(default_factory=dict)
    detector: dict[str, float] | None = None
    least_noise: float | None = None
    unseen: "Sequence[Unseen]" = ()


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Where the pairs come from."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--simulated", action="store_true", help="learn from simulated scans")
    add_catalog_options(source)
    source.add_argument(
        "--hdf5",
        type=Path,
        metavar="FILE",
        help="learn from a file of the original TomoGAN: train_ns, train_gt, test_ns, test_gt",
    )
    simulated = parser.add_argument_group("simulated scans")
    simulated.add_argument("--size", type=int, help="detector columns (default: 192, 256, 512)")
    simulated.add_argument(
        "--angles", type=int, help="projections of --size (1.57 times the columns)"
    )
    simulated.add_argument("--slices", type=int, default=200, help="slices of --size (200)")
    add_scan_options(parser)
    modes = parser.add_argument_group("how scans are learned from")
    modes.add_argument(
        "--mode",
        choices=("supervised", "noise2noise", "noise2inverse"),
        help="supervised: low dose to full dose, of paired_dose_scan; noise2noise: two scans of "
        "one sample; noise2inverse: each scan by itself, some projections against the others "
        "(default: supervised where there are pairs, else noise2inverse)",
    )
    modes.add_argument("--splits", type=int, default=2, help="of noise2inverse (2)")
    modes.add_argument(
        "--low-doses",
        nargs="+",
        type=float,
        metavar="SHARE",
        help="supervised without paired scans: divide the photons of each scan, as its detector's "
        "noise profile counts them, into such a share and the rest",
    )
    modes.add_argument(
        "--dose", type=float, default=0.25, help="of the noisy slices of --hdf5 (0.25)"
    )


def make_folder(folder: Path) -> None:
    """Make the folder of the results, before minutes of work are put into them.

    Raises
    ------
    ConfigurationError
        It can't be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink(missing_ok=True)  # other processes do the same
    except OSError as error:
        raise ConfigurationError(
            f"--output {folder}: expected a folder to write the model to, got: {error.strerror}; "
            "name one that can be made and written"
        ) from error


def simulated_data(args: argparse.Namespace, config: "TrainingConfig") -> TrainingData:
    """Pairs of simulated scans."""
    from ..models.card import TrainedOn
    from ..training.noise_profile import relative_noise
    from ..training.pairs import full_dose_photons, load_or_simulate

    recipes, unseen = simulated_recipes(args, config)
    return TrainingData(
        pairs=load_or_simulate(recipes, args.cache),
        validation=load_or_simulate([unseen], args.cache)[0],
        dose_range=recipes[0].dose_range,
        reconstruction=TrainedOn(method="gridrec", filter=recipes[0].filter),
        card={
            "scans": [recipe.model_dump(mode="json") for recipe in recipes],
            "target": "noise-free reconstruction of the same projections",
            "full_dose": "5.5e4 photons a pixel and projection at 256 columns, more in proportion",
        },
        least_noise=min(
            relative_noise(r.size, full_dose_photons(r.size) * r.dose_range[1], r.n_angles)
            for r in recipes
        ),
    )


def hdf5_data(args: argparse.Namespace) -> TrainingData:
    """Pairs of a file."""
    from ..config import Profile, load_profile
    from ..models.card import TrainedOn
    from ..training.calibrating import Unseen
    from ..training.hdf5_pairs import hdf5_pairs

    pairs, validation = hdf5_pairs(args.hdf5, _folder(args), args.dose)
    profile = load_profile(args.profile) if args.profile else Profile(version=1)
    config = profile.reconstruction
    return TrainingData(
        pairs=[pairs],
        validation=validation,
        dose_range=(args.dose, args.dose),
        reconstruction=TrainedOn(method=config.method, filter=config.filter),
        card={"file": str(args.hdf5), "slices": len(pairs), "target": "train_gt"},
        unseen=[] if validation is None else [Unseen(validation)],
    )


def scan_data(args: argparse.Namespace) -> TrainingData:
    """Pairs of the scans of a catalog.

    Raises
    ------
    NoScansError
        Nothing answers the query, or nothing that does can be used. Says why of each run.
    """
    from ..models.card import TrainedOn
    from ..publish.query import parse_query
    from ..training.calibrating import Unseen
    from ..training.scan_pairs import ScanPairs, some_slices, split_by_sample

    query = parse_query(args.query)
    with scan_reader(args, args.device) as reader:
        source = ScanPairs(reader, _folder(args))
        if args.low_doses is not None:
            if args.mode not in (None, "supervised"):
                raise ConfigurationError(f"--low-doses is of --mode supervised, not {args.mode}")
            mode, found = "supervised", source.low_dose(query, args.low_doses, args.seed)
        elif args.mode is not None:
            mode, found = args.mode, source.of_mode(args.mode, query, args.splits)
        else:
            mode, found = _best_mode(source, query, args.splits)
        config = reader.reconstruction
    for rejection in source.rejected:
        print(f"left out: run {rejection.uid}: {rejection.reason}", file=sys.stderr)
    learned, kept = split_by_sample(found)
    if not kept:
        print("one sample alone: nothing is kept back to validate with", file=sys.stderr)
    doses = [float(d) for f in learned for d in (f.pairs.dose.min(), f.pairs.dose.max())]
    return TrainingData(
        pairs=[f.pairs for f in learned],
        validation=some_slices(kept),
        dose_range=(min(doses), max(doses)),
        reconstruction=TrainedOn(method=config.method, filter=config.filter),
        card={
            "mode": mode,
            "runs": _uids(learned),
            "validation_runs": _uids(kept),
            "target": _TARGETS["low_doses" if args.low_doses else mode],
        },
        detector=_detector(learned),
        least_noise=min(
            (f.least_noise for f in learned if f.least_noise is not None), default=None
        ),
        unseen=[Unseen(f.pairs, f.sample) for f in kept],
    )


_TARGETS = {
    "supervised": "the full-dose scan of the same sample",
    "low_doses": "the rest of the photons of the same scan",
    "noise2noise": "another scan of the same sample",
    "noise2inverse": "other projections of the same scan",
}


def _best_mode(source: Any, query: Any, splits: int) -> "tuple[str, list[SamplePairs]]":
    from ..training.scan_pairs import ScanPairs

    assert isinstance(source, ScanPairs)
    try:
        return "supervised", source.supervised(query)
    except NoScansError as error:
        source.rejected.clear()
        try:
            found = source.single(query, splits)
        except NoScansError:
            raise error from None
        print("no paired doses: learning from each scan by itself (noise2inverse)", file=sys.stderr)
        return "noise2inverse", found


def _folder(args: argparse.Namespace) -> Path:
    folder: Path = args.cache or args.output / "pairs"
    return folder


def _uids(found: "Sequence[SamplePairs]") -> list[str]:
    return list(dict.fromkeys(uid for pairs in found for uid in pairs.uids))


def _detector(found: "Sequence[SamplePairs]") -> dict[str, float] | None:
    """The noise profile of the first scan that has one."""
    profiles = (pairs.detector for pairs in found if pairs.detector is not None)
    first = next(profiles, None)
    return None if first is None else first.model_dump()


def simulated_recipes(
    args: argparse.Namespace, config: "TrainingConfig"
) -> "tuple[tuple[SimulatedScans, ...], SimulatedScans]":
    """What is learned from, and what is validated with."""
    from ..recon.volumes import VOLUME_FAMILIES
    from ..training.pairs import training_scans, validation_scans

    training, unseen = training_scans(args.seed), validation_scans(args.seed)
    size = args.size
    if size is None and config.crop > min(recipe.size for recipe in training):
        size = config.crop
    # A network that sees several slices learns from samples whose slices belong together, and from
    # the others what a scan of one row looks like.
    samples = {"families": VOLUME_FAMILIES} if config.depth > 1 else {}
    if size is None:
        if samples:
            training += tuple(recipe.model_copy(update=samples) for recipe in training)
        return training, unseen.model_copy(update=samples)
    scan = {"size": size, "n_angles": args.angles or round(1.57 * size)}
    only = training[0].model_copy(update={**samples, **scan, "n_slices": args.slices})
    return (only,), unseen.model_copy(update={**samples, **scan})
