"""What a training does, and recipes for it.

Enters: choices. Leaves: `TrainingConfig`; with the same pairs and threads it gives the same
bits.
"""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..models.features import BackboneName
from ..models.generator import PRESETS, depth_of
from ..models.losses import AdversarialName, PixelLossName

Stage = Literal["pixel", "gan"]


class TrainingConfig(BaseModel):
    """One stage of a training.

    Stage "pixel" minimises errors alone. Stage "gan" goes on from its network: a discriminator and
    a feature loss of small weights are added, which sharpen and cost decibels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: Stage = "pixel"
    network: str = "unet4"
    options: dict[str, int] = Field(default_factory=dict)
    """Options of the network's preset."""

    # The budget: exactly one of them is given.
    steps: int | None = Field(default=None, ge=1)
    epochs: float | None = Field(default=None, gt=0)
    """Steps in which as many crops are drawn as there are slices, times this."""
    minutes: float | None = Field(default=None, gt=0)
    """Wall time; the steps that fit into it are found on the way and recorded."""

    batch: int = Field(default=8, ge=1)
    """Crops a step, of all processes together."""
    processes: int = Field(default=1, ge=1)
    """Processes among which each batch is divided."""
    crop: int = Field(default=96, ge=16)
    """Width of the crops that the network sees, in pixels."""
    learning_rate: float = Field(default=1e-3, gt=0)
    averaging: float = Field(default=0.999, ge=0, lt=1)
    """Decay, by step, of the exponential average of the weights, which is what is exported."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the convolutions; weights, losses and averages are float32 always."""
    seed: int = 0
    checkpoint_every: int = Field(default=500, ge=1)
    """Steps between checkpoints, and between validations."""
    patience: int | None = Field(default=None, ge=1)
    """Validations without a better one after which a pixel stage stops, the best being kept; None:
    it goes on to the end, the last being kept."""

    # The losses, of images in units of their sample's contrast.
    pixel_loss: PixelLossName = "l1"
    ssim_weight: float = Field(default=0.0, ge=0)
    """Of the structural similarity of one scale, which models are judged by."""
    ms_ssim_weight: float = Field(default=0.0, ge=0)
    adversarial_loss: AdversarialName = "bce"
    adversarial_weight: float = Field(default=0.0, ge=0)
    feature_backbone: BackboneName = "encoder"
    feature_weight: float = Field(default=0.0, ge=0)
    vgg16_sha256: str | None = None
    """Of the file of weights that the backbone "vgg16" was made of."""

    critic_base: int = Field(default=64, ge=1)
    """Channels of the discriminator's first layer."""
    critic_rate: float = Field(default=1.0, gt=0)
    """Learning rate of the discriminator over that of the generator."""
    critic_alone: int = Field(default=0, ge=0)
    """Steps at the beginning of a gan stage, a fifth of all at most, in which the discriminator
    alone learns: before it knows anything, what it says leads a good generator astray."""

    # What a gan stage may cost, in dB of validation PSNR at any dose, against the pixel stage.
    largest_cost_db: float = Field(default=0.3, ge=0)
    """A network that costs more is not kept."""
    collapse_cost_db: float = Field(default=3.0, gt=0)
    """A network that costs more has collapsed, and the stage stops."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        budgets = {k: getattr(self, k) for k in ("steps", "epochs", "minutes")}
        if sum(v is not None for v in budgets.values()) != 1:
            given = ", ".join(f"{k}={v}" for k, v in budgets.items())
            raise ValueError(f"give one of steps, epochs and minutes; got {given}")
        if self.network not in PRESETS:
            raise ValueError(f"expected a network of {', '.join(PRESETS)}; got {self.network!r}")
        if self.batch % self.processes:
            raise ValueError(
                f"expected a batch that {self.processes} processes can share evenly, got "
                f"{self.batch}"
            )
        if self.stage == "gan" and not self.adversarial_weight:
            raise ValueError("a gan stage needs an adversarial_weight above 0")
        if self.stage == "pixel" and self.adversarial_weight:
            raise ValueError("adversarial_weight is of the gan stage: set stage='gan'")
        if self.feature_backbone == "vgg16" and self.feature_weight and not self.vgg16_sha256:
            raise ValueError(
                "the feature loss 'vgg16' needs a file of its weights, and records its sha256"
            )
        return self

    @property
    def depth(self) -> int:
        """Adjacent slices that enter the network."""
        return depth_of(self.network, self.options)


FINE_TUNING_RATE = 2e-4
"""Learning rate of a pixel stage that begins with a finished network, which knows its work."""

# What the review of TomoGAN says of its training: 512 x 512 slices, batches of 16 on four GPUs,
# Adam at 2e-4, 200 epochs, flips and rotations (which all of our trainings have), and the sum of
# L1, binary cross-entropy and VGG-16 features. It does not give the weights of that sum.
_REVIEW: dict[str, Any] = {
    "network": "unet4",
    "options": {"base": 24},
    "epochs": 200,
    "batch": 16,
    "processes": 4,
    "crop": 512,
    "learning_rate": 2e-4,
}
# Of the review's, which does not say: small enough to cost about a tenth of a decibel.
_REVIEW_WEIGHTS = {"adversarial_weight": 1e-3, "feature_weight": 1e-2, "feature_backbone": "vgg16"}
# A gan stage starts from a finished network, which changes slowly, and from a discriminator that
# knows nothing, which learns fast (two rates: Heusel et al., NeurIPS 2017).
_GAN: dict[str, Any] = {
    "learning_rate": 1e-4,
    "critic_rate": 10.0,
    "critic_alone": 100,
    "adversarial_weight": 5e-3,
    "feature_weight": 3e-2,
}

RECIPES: dict[str, dict[Stage, dict[str, Any]]] = {
    "standard": {"pixel": {}, "gan": _GAN},
    "review": {"pixel": _REVIEW, "gan": _REVIEW | _REVIEW_WEIGHTS},
}
