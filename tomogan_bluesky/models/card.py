"""The card of a model: what is known about it; `artifact` writes it into the file of the model.

Enters: the JSON text inside a model file. Leaves: a `ModelCard`, and the network that it describes.
"""

import json
from datetime import UTC, datetime
from typing import Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .._version import __version__
from ..config import FilterName
from ..errors import ConfigurationError, ModelError
from ..trust.calibration import Calibration
from ..trust.familiarity import Familiarity
from .generator import Generator, build_generator, parse_generator
from .uncertainty import DENOISED, UNCERTAINTY, UncertainGenerator

FORMAT_VERSION = 1


class TrainedOn(BaseModel):
    """How the slices that a network learned from were reconstructed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    filter: FilterName


class ModelCard(BaseModel):
    """What is known about a model; it travels inside its file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    name: str
    network: str
    """Preset and options, as `build_generator` takes them: ``unet4(base=16)``."""
    outputs: tuple[str, ...] = (DENOISED,)
    """What the channels of the output are."""
    calibration: Calibration | None = None
    """How the output ``uncertainty`` becomes a half-width."""
    familiarity: Familiarity | None = None
    """What the slices that it was calibrated with have in common."""
    units: Literal["1/pixel"] = "1/pixel"
    depth: int = Field(default=1, ge=1)
    """Adjacent slices that enter."""
    normalisation: str = "x / noise, inside the network"
    dose_range: tuple[float, float]
    """Doses that were trained on, as fractions of the full dose of `training`."""
    reconstruction: TrainedOn
    detector: dict[str, float] | None = None
    """Noise profile of the detector whose scans it learned from, where it is known."""
    least_noise: float | None = None
    """The least relative noise that it has learned from (see `harmless`); None: not known."""
    training_command: str
    """What made it: a line for each command, after those of the model that it began with."""
    training: dict[str, Any] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)
    created: datetime = Field(default_factory=lambda: datetime.now(UTC))
    package_version: str = __version__
    weights_sha256: str = ""
    """Of the parameters and buffers; filled in by `export_model`, checked by `load_model`."""

    @model_validator(mode="after")
    def _uncertainty_is_calibrated(self) -> Self:
        known = ((DENOISED,), (DENOISED, UNCERTAINTY))
        if self.outputs not in known or (self.calibration is None) == (UNCERTAINTY in self.outputs):
            raise ValueError(
                f"expected the outputs {DENOISED!r} alone, or {DENOISED!r} and {UNCERTAINTY!r} "
                f"with a calibration; got {self.outputs}, calibration {self.calibration}"
            )
        return self


def read_card(text: str | bytes) -> ModelCard:
    """The card that a model file holds as JSON.

    Raises
    ------
    ModelError
        No card, one of another format version, or one that is not valid.
    """
    try:
        fields = json.loads(text)
        version = fields["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            "expected a model card inside the file, found none; write model files with export_model"
        ) from error
    if version != FORMAT_VERSION:
        raise ModelError(
            f"expected format version {FORMAT_VERSION}, got {version}; export the model again with "
            "this version of the package, or install the one that wrote it "
            f"({fields.get('package_version', 'unknown')})"
        )
    try:
        return ModelCard.model_validate(fields)
    except ValidationError as error:
        raise ModelError(f"the model card is not valid: {error}") from error


def network_of(card: ModelCard) -> Generator:
    """The network that a card describes, without weights: for its reach and what it needs.

    Raises
    ------
    ModelError
        This version does not know such a network.
    """
    try:
        name, options = parse_generator(card.network)
        with torch.device("meta"):
            generator = build_generator(name, **options)
            return UncertainGenerator(generator) if UNCERTAINTY in card.outputs else generator
    except ConfigurationError as error:
        raise ModelError(f"model {card.name!r}: {error}") from error
