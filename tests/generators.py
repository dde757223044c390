"""Generators that do little, for tests of what is around them."""

from pathlib import Path

import torch

from tomogan_bluesky.models.artifact import ModelCard, TrainedOn, export_model
from tomogan_bluesky.models.generator import build_generator

CARD = ModelCard(
    name="untrained",
    network="unet4(base=4)",
    dose_range=(0.05, 1.0),
    reconstruction=TrainedOn(method="gridrec", filter="ramlak"),
    training_command="none",
)


def export_untrained(path: Path, depth: int = 1) -> Path:
    """A model file whose generator returns its input."""
    export_model(
        build_generator("unet4", base=4, depth=depth),
        CARD.model_copy(update={"depth": depth}),
        path,
    )
    return path


class NanDenoiser:
    """Fails as a generator does that has gone wrong."""

    card = CARD
    sha256 = "0" * 64

    def __call__(self, slices: torch.Tensor) -> torch.Tensor:
        from tomogan_bluesky.errors import ModelError

        raise ModelError("model 'untrained': expected finite values, but the slice is not")
