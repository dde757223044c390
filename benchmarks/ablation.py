"""What each term of the loss is worth, and what adjacent slices are worth.

    python benchmarks/ablation.py [--quick] [--json] [--only losses|depth] [--vgg16 FILE]
                                  [--steps N] [--gan-steps N] [--device cuda] [--seed N]

Losses: a network is trained with each pixel loss from random weights. The one of L1 is then trained
on, for as many steps each, with L1 alone, with either adversarial loss, and with each feature loss
beside the first; so every row but the pixel losses is to be read beside "L1, continued". What a GAN
stage costs is printed, not held to a limit.

Depth: networks of one, three and five adjacent slices, and one in three dimensions, learn from the
same simulated volumes. "jumps" is the variance of the difference of neighbours against the truth,
over the square of its range: lower is better.

Simulated scans at a quarter of the dose, of samples that were not trained on. The full version is
for a GPU; on two cores it takes a day.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tomogan_bluesky.models.generator import Generator, describe_generator
from tomogan_bluesky.recon.volumes import VOLUME_FAMILIES
from tomogan_bluesky.training.continuity import jumps
from tomogan_bluesky.training.evaluation import evaluate
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
DOSE = 0.25
Row = tuple[str, str, str, float, str]
"""Case, method, metric, value, unit."""


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
        recipe = SimulatedScans(
            size=self.size,
            n_angles=round(1.57 * self.size),
            n_slices=self.unseen if unseen else self.slices,
            realisations=1 if unseen else 3,
            doses=(DOSE,) if unseen else None,
            seed=1000 * self.seed + 999 * unseen,
            **({} if families is None else {"families": families}),
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
        return TrainingConfig(**(settings | changes))


def fit(
    setting: Setting,
    config: TrainingConfig,
    pairs: Pairs,
    unseen: Pairs,
    start: Generator | None = None,
) -> Generator:
    """Train once, leaving no file behind."""
    with tempfile.TemporaryDirectory() as folder:
        return train(
            config,
            [pairs],
            folder,
            start=start,
            validation=unseen,
            device=setting.device,
            vgg16=setting.vgg16,
        )


def scored(case: str, method: str, generator: Generator, unseen: Pairs) -> Iterator[Row]:
    """Rows of a network."""
    found = evaluate(generator, unseen, {name: score for name, (score, _) in SCORES.items()})
    for name, (_, unit) in SCORES.items():
        yield case, method, name, found[f"{name}_denoised_at_{DOSE:g}"], unit


def noisy_rows(case: str, unseen: Pairs) -> Iterator[Row]:
    """Rows of the slices as they are."""
    images = zip(unseen.noisy[:, 0].numpy(), unseen.target.numpy(), strict=True)
    pairs = list(images)
    for name, (score, unit) in SCORES.items():
        yield case, "noisy", name, float(np.mean([score(x, y) for x, y in pairs])), unit


def losses(setting: Setting) -> Iterator[Row]:
    """What each term of the loss is worth."""
    case = f"losses, {setting.size} columns, dose {DOSE:g}"
    pairs, unseen = setting.pairs(None, False), setting.pairs(None, True)
    yield from noisy_rows(case, unseen)
    networks = {}
    for method, changes in (
        ("L1", {}),
        ("Charbonnier", {"pixel_loss": "charbonnier"}),
        ("L1 + SSIM", {"ssim_weight": 1.0}),
        ("L1 + MS-SSIM", {"ms_ssim_weight": 0.1}),
    ):
        networks[method] = fit(setting, setting.config(**changes), pairs, unseen)
        yield from scored(case, method, networks[method], unseen)
    start = networks["L1"]
    again = setting.config(steps=setting.gan_steps, learning_rate=2e-4)
    yield from scored(case, "L1, continued", fit(setting, again, pairs, unseen, start), unseen)
    terms: list[tuple[str, dict[str, Any]]] = [
        ("+ BCE", {"feature_weight": 0.0}),
        ("+ hinge", {"feature_weight": 0.0, "adversarial_loss": "hinge"}),
        ("+ BCE + features (fixed)", {"feature_backbone": "fixed"}),
        ("+ BCE + features (encoder)", {"feature_backbone": "encoder"}),
    ]
    if setting.vgg16 is None:
        print("+ BCE + features (vgg16): left out, for want of --vgg16 FILE", file=sys.stderr)
    else:
        sha256 = vgg16_sha256(setting.vgg16)
        vgg16 = {"feature_backbone": "vgg16", "vgg16_sha256": sha256}
        terms.append(("+ BCE + features (vgg16)", vgg16))
    for method, changes in terms:
        network = fit(setting, setting.config("gan", **changes), pairs, unseen, start)
        yield from scored(case, method, network, unseen)


def depth(setting: Setting) -> Iterator[Row]:
    """What adjacent slices are worth."""
    case = f"depth, {setting.size} columns, dose {DOSE:g}"
    pairs, unseen = (setting.pairs(VOLUME_FAMILIES, kind) for kind in (False, True))
    yield from noisy_rows(case, unseen)
    yield case, "noisy", "jumps", volume_jumps(unseen, unseen.noisy[:, 0]), ""
    for name, options in (
        ("unet4", {"base": setting.base, "depth": 1}),
        ("unet4", {"base": setting.base, "depth": 3}),
        ("unet4", {"base": setting.base, "depth": 5}),
        ("unet3d", {"base": max(2, setting.base // 2), "depth": 5}),
    ):
        config = setting.config(network=name, options=options)
        network = fit(setting, config, pairs, unseen)
        method = describe_generator(name, options)
        yield from scored(case, method, network, unseen)
        yield case, method, "jumps", volume_jumps(unseen, denoised(network, unseen)), ""


@torch.no_grad()
def denoised(network: Generator, pairs: Pairs) -> torch.Tensor:
    """The first realisation of all slices, (slice, y, x)."""
    windows = (pairs.noisy[pairs.neighbours(i, network.depth), 0] for i in range(len(pairs)))
    levels = pairs.noise[:, :1]
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
    for name in ("steps", "gan-steps", "size", "slices", "unseen", "base", "batch", "crop", "seed"):
        parser.add_argument(f"--{name}", type=int)
    arguments = vars(parser.parse_args())
    changes = {k: arguments[k] for k in vars(FULL) if arguments.get(k) is not None}
    setting = replace(QUICK if arguments["quick"] else FULL, **changes)
    shown = ""
    for name, table in (("losses", losses), ("depth", depth)):
        if arguments["only"] not in (None, name):
            continue
        for case, method, metric, value, unit in table(setting):
            if arguments["json"]:
                row = {"benchmark": "ablation", "case": case, "method": method, "metric": metric}
                print(json.dumps({**row, "value": value, "unit": unit}), flush=True)
                continue
            if case != shown:
                print(f"\n{case}")
                shown = case
            print(f"{method:<30}{metric:<16}{value:>12.5g} {unit}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
