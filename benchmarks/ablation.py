"""What each term of the loss is worth, and what adjacent slices are worth.

    python benchmarks/ablation.py [--quick] [--json] [--only losses|depth] [--vgg16 FILE]
                                  [--steps N] [--gan-steps N] [--device cuda] [--seed N]

Losses: a network is trained with each pixel loss from random weights. The one of L1 is then trained
on, for as many steps each, with L1 alone, with a feature loss, with either adversarial loss, and
with each feature loss beside the first. A discriminator begins with four times the channels of the
generator. "change" is the mean difference to "L1, continued" on the same slices, or to "L1"
for the pixel losses, and its standard error. What a GAN stage costs is printed, not held to a
limit; "discriminator" is the mean loss of its discriminator over the second half, log 2 = 0.693
(hinge: 1) being chance.

Depth: networks of one, three and five adjacent slices, and one in three dimensions, learn from the
same simulated volumes. "jumps" is the variance of the difference of neighbours against the truth,
over the square of its range: lower is better.

Simulated scans at a quarter, a tenth and a twentieth of the dose, of samples that were not trained
on. The full version is for a GPU; on two cores it takes a day.
"""

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tomogan_bluesky.models.generator import Generator, describe_generator
from tomogan_bluesky.recon.volumes import VOLUME_FAMILIES
from tomogan_bluesky.training.checkpoint import CHECKPOINT, read_checkpoint
from tomogan_bluesky.training.continuity import jumps
from tomogan_bluesky.training.metrics import edge_f1, edge_fidelity, frc_frequency, psnr, ssim
from tomogan_bluesky.training.objective import vgg16_sha256
from tomogan_bluesky.training.pairs import Pairs, SimulatedScans, simulate_pairs
from tomogan_bluesky.training.settings import RECIPES, TrainingConfig
from tomogan_bluesky.training.trainer import train

SCORES = {
    "psnr": (psnr, "dB"),
    "ssim": (ssim, ""),
    "edge_fidelity": (edge_fidelity, ""),
    "edge_f1": (edge_f1, ""),
    "frc": (frc_frequency, "cycles/pixel"),
}
DOSES = (0.25, 0.1, 0.05)
Measured = dict[tuple[float, str], np.ndarray]
"""Each score of each slice, by dose and name."""


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    case: str
    method: str
    dose: float | None
    metric: str
    value: float
    unit: str = ""
    change: float | None = None
    error: float | None = None


@dataclass(frozen=True)
class Setting:
    """How much is trained, on what."""

    size: int
    slices: int
    unseen: int
    steps: int
    gan_steps: int
    base: int
    batch: int
    crop: int
    seed: int
    device: str
    vgg16: Path | None

    def pairs(self, families: tuple[str, ...] | None, unseen: bool) -> Pairs:
        """Scans to learn from, or to be scored on."""
        chosen: dict[str, Any] = {} if families is None else {"families": families}
        recipe = SimulatedScans(
            size=self.size,
            n_angles=round(1.57 * self.size),
            n_slices=self.unseen if unseen else self.slices,
            realisations=len(DOSES),
            doses=DOSES if unseen else None,
            seed=1000 * self.seed + 999 * unseen,
            **chosen,
        )
        return simulate_pairs(recipe, progress=False)

    def config(self, stage: str = "pixel", **changes: Any) -> TrainingConfig:
        """A training of this size; `changes` to the standard recipe of the stage."""
        steps = self.gan_steps if stage == "gan" else self.steps
        settings = {
            "stage": stage,
            "options": {"base": self.base},
            "steps": steps,
            "batch": self.batch,
            "crop": self.crop,
            "seed": self.seed,
            "checkpoint_every": max(1, steps // 2),
            **RECIPES["standard"][stage],  # type: ignore[index]
        }
        if stage == "gan":
            settings |= {"largest_cost_db": 99.0, "collapse_cost_db": 99.0}
            settings |= {"critic_base": 4 * self.base}
        return TrainingConfig(**(settings | changes))


def fit(
    setting: Setting,
    config: TrainingConfig,
    pairs: Pairs,
    unseen: Pairs,
    start: Generator | None = None,
) -> tuple[Generator, dict[str, float]]:
    """Train once, leaving no file behind: the network, and the last entry of its history."""
    with tempfile.TemporaryDirectory() as folder:
        network = train(
            config,
            [pairs],
            folder,
            start=start,
            validation=unseen,
            device=setting.device,
            vgg16=setting.vgg16,
        )
        return network, read_checkpoint(Path(folder) / CHECKPOINT)[1].history[-1]


def measured(unseen: Pairs, network: Generator | None = None) -> Measured:
    """Scores of a network, or of the slices as they are."""
    found = {}
    for j, dose in enumerate(DOSES):
        images = unseen.noisy[:, j] if network is None else denoised(network, unseen, j)
        both = list(zip(images.numpy(), unseen.target.numpy(), strict=True))
        for name, (score, _) in SCORES.items():
            found[dose, name] = np.array([score(x, y) for x, y in both])
    return found


def rows(case: str, method: str, found: Measured, base: Measured | None = None) -> Iterator[Row]:
    """Mean scores, and their differences to those of another method."""
    for (dose, name), values in found.items():
        change = error = None
        if base is not None:
            differences = values - base[dose, name]
            change = float(differences.mean())
            error = float(differences.std(ddof=1) / math.sqrt(len(values)))
        unit = SCORES[name][1]
        yield Row(case, method, dose, name, float(values.mean()), unit, change, error)


def losses(setting: Setting) -> Iterator[Row]:
    """What each term of the loss is worth."""
    case = f"losses, {setting.size} columns"
    pairs, unseen = setting.pairs(None, False), setting.pairs(None, True)
    yield from rows(case, "noisy", measured(unseen))
    start, _ = fit(setting, setting.config(), pairs, unseen)
    from_random = measured(unseen, start)
    yield from rows(case, "L1", from_random)
    for method, changes in (
        ("Charbonnier", {"pixel_loss": "charbonnier"}),
        ("L1 + SSIM", {"ssim_weight": 1.0}),
        ("L1 + MS-SSIM", {"ms_ssim_weight": 0.1}),
    ):
        network, _ = fit(setting, setting.config(**changes), pairs, unseen)
        yield from rows(case, method, measured(unseen, network), from_random)

    recipe = RECIPES["standard"]["gan"]
    again = {"steps": setting.gan_steps, "learning_rate": recipe["learning_rate"]}
    continued = measured(unseen, fit(setting, setting.config(**again), pairs, unseen, start)[0])
    yield from rows(case, "L1, continued", continued)
    terms: list[tuple[str, str, dict[str, Any]]] = [
        ("+ features (encoder)", "pixel", {**again, "feature_weight": recipe["feature_weight"]}),
        ("+ BCE", "gan", {"feature_weight": 0.0}),
        ("+ BCE + features (encoder)", "gan", {"feature_backbone": "encoder"}),
        ("+ hinge", "gan", {"feature_weight": 0.0, "adversarial_loss": "hinge"}),
        ("+ BCE + features (fixed)", "gan", {"feature_backbone": "fixed"}),
    ]
    if setting.vgg16 is None:
        print("+ BCE + features (vgg16): left out, for want of --vgg16 FILE", file=sys.stderr)
    else:
        sha256 = vgg16_sha256(setting.vgg16)
        vgg16 = {"feature_backbone": "vgg16", "vgg16_sha256": sha256}
        terms.append(("+ BCE + features (vgg16)", "gan", vgg16))
    for method, stage, changes in terms:
        config = setting.config(stage, **changes)
        network, entry = fit(setting, config, pairs, unseen, start)
        yield from rows(case, method, measured(unseen, network), continued)
        if stage == "gan":
            yield Row(case, method, None, "discriminator", entry["discriminator"])


def depth(setting: Setting) -> Iterator[Row]:
    """What adjacent slices are worth."""
    case = f"depth, {setting.size} columns"
    pairs, unseen = (setting.pairs(VOLUME_FAMILIES, kind) for kind in (False, True))
    yield from rows(case, "noisy", measured(unseen))
    for j, dose in enumerate(DOSES):
        yield Row(case, "noisy", dose, "jumps", volume_jumps(unseen, unseen.noisy[:, j]))
    for name, options in (
        ("unet4", {"base": setting.base, "depth": 1}),
        ("unet4", {"base": setting.base, "depth": 3}),
        ("unet4", {"base": setting.base, "depth": 5}),
        ("unet3d", {"base": max(2, setting.base // 2), "depth": 5}),
    ):
        config = setting.config(network=name, options=options)
        network, _ = fit(setting, config, pairs, unseen)
        method = describe_generator(name, options)
        yield from rows(case, method, measured(unseen, network))
        for j, dose in enumerate(DOSES):
            found = volume_jumps(unseen, denoised(network, unseen, j))
            yield Row(case, method, dose, "jumps", found)


@torch.no_grad()
def denoised(network: Generator, pairs: Pairs, j: int) -> torch.Tensor:
    """Realisation j of all slices, (slice, y, x)."""
    windows = (pairs.noisy[pairs.neighbours(i, network.depth), j] for i in range(len(pairs)))
    levels = pairs.noise[:, j : j + 1]
    return torch.stack([network(w[None], n)[0, 0] for w, n in zip(windows, levels, strict=True)])


def volume_jumps(pairs: Pairs, slices: torch.Tensor) -> float:
    """Mean jumps of the volumes of some slices."""
    assert pairs.volume is not None
    chosen = [pairs.volume == k for k in pairs.volume.unique()]
    return float(np.mean([jumps(slices[c].numpy(), pairs.target[c].numpy()) for c in chosen]))


FULL = Setting(256, 400, 40, 8000, 4000, 16, 16, 96, 0, "cpu", None)
QUICK = Setting(48, 8, 4, 4, 2, 4, 2, 32, 0, "cpu", None)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that it works")
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--only", choices=("losses", "depth"), help="one of the two tables")
    parser.add_argument("--vgg16", type=Path, help="torchvision's weights of VGG-16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, help="of each row's pixel stage")
    parser.add_argument("--gan-steps", type=int, help="of what each row adds after it")
    parser.add_argument("--size", type=int, help="columns of a slice")
    parser.add_argument("--slices", type=int, help="to learn from")
    parser.add_argument("--unseen", type=int, help="slices to score")
    parser.add_argument("--base", type=int, help="channels of the generator's first level")
    parser.add_argument("--batch", type=int, help="crops a step")
    parser.add_argument("--crop", type=int, help="pixels of a crop's side")
    parser.add_argument("--seed", type=int)
    arguments = vars(parser.parse_args())
    changes = {k: arguments[k] for k in vars(FULL) if arguments.get(k) is not None}
    setting = replace(QUICK if arguments["quick"] else FULL, **changes)
    shown = ""
    for name, table in (("losses", losses), ("depth", depth)):
        if arguments["only"] not in (None, name):
            continue
        for row in table(setting):
            if arguments["json"]:
                print(json.dumps({"benchmark": "ablation", **asdict(row)}), flush=True)
                continue
            if row.case != shown:
                print(f"\n{row.case}")
                shown = row.case
            dose = "" if row.dose is None else f"{row.dose:g}"
            change = "" if row.change is None else f"{row.change:+.4f} +- {row.error:.4f}"
            value = f"{row.value:>10.5g} {row.unit:<13}{change}"
            print(f"{row.method:<30}{dose:<6}{row.metric:<14}{value}".rstrip(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
