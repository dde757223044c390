"""Generators that do little, for tests of what is around them."""

from pathlib import Path

import torch

from tomogan_bluesky.models.artifact import export_model
from tomogan_bluesky.models.card import ModelCard, TrainedOn
from tomogan_bluesky.models.generator import build_generator, describe_generator
from tomogan_bluesky.models.uncertainty import UncertainGenerator
from tomogan_bluesky.trust.calibration import Calibration

CARD = ModelCard(
    name="untrained",
    network="unet4(base=4)",
    dose_range=(0.05, 1.0),
    reconstruction=TrainedOn(method="gridrec", filter="ramlak"),
    training_command="none",
)

CALIBRATION = Calibration(
    coverage=0.9, noise=(0.05,), factors=(1.5, 2.0), noise_factors=(1.7, 2.5), units=(20, 20)
)


def export_untrained(path: Path) -> Path:
    """A model file whose generator returns its input."""
    export_model(build_generator("unet4", base=4), CARD, path)
    return path


def export_deep(path: Path, network: str = "unet4", depth: int = 3) -> Path:
    """A model file of several adjacent slices, all of which count."""
    torch.manual_seed(3)
    small = {"unet4": 4, "unet3d": 2}
    generator = build_generator(network, base=small[network], depth=depth)
    torch.nn.init.normal_(generator.body.head.weight)
    text = describe_generator(network, {"base": small[network], "depth": depth})
    export_model(generator, CARD.model_copy(update={"depth": depth, "network": text}), path)
    return path


def export_uncertain(path: Path, depth: int = 1) -> Path:
    """A model file that says how far off it is, and is wrong about that."""
    torch.manual_seed(3)
    generator = UncertainGenerator(build_generator("unet4", base=4, depth=depth))
    network = describe_generator("unet4", {"base": 4, "depth": depth})
    update = {"outputs": ("denoised", "uncertainty"), "network": network, "depth": depth}
    card = CARD.model_copy(update={**update, "calibration": CALIBRATION})
    export_model(generator, card, path)
    return path


class NanDenoiser:
    """Fails as a generator does that has gone wrong."""

    card = CARD
    sha256 = "0" * 64

    def __call__(self, slices: torch.Tensor) -> torch.Tensor:
        from tomogan_bluesky.errors import ModelError

        raise ModelError("model 'untrained': expected finite values, but the slice is not")
