"""What a step minimises: the weighted sum of a configuration's losses.

Enter: a batch and the slices that the network made of it. Leave: the terms of the loss, by name; in
a gan stage the discriminator is taught besides.
"""

import hashlib
import io
from pathlib import Path

import torch

from ..errors import ModelError, ModelNotFoundError
from ..models.discriminator import PatchDiscriminator
from ..models.features import EncoderFeatures, FixedFeatures, VGG16Features
from ..models.generator import Generator
from ..models.losses import (
    FeatureLoss,
    discriminator_loss,
    generator_loss,
    ms_ssim_loss,
    pixel_loss,
    ssim_loss,
)
from .crops import Batch
from .processes import World
from .settings import TrainingConfig

# From the darkest to the brightest of a whole slice, in units of its contrast: 1.25 to 1.6 by the
# kind of sample. One figure for all, since a flat crop has no range of its own worth speaking of.
_DATA_RANGE = 1.35
GAN_BETAS = (0.5, 0.999)  # of Adam: where two networks chase each other, the memory is shorter


def in_precision(config: TrainingConfig, device: str) -> torch.autocast:
    """Where networks are called: their convolutions run in the precision of the configuration."""
    return torch.autocast(
        torch.device(device).type, torch.bfloat16, enabled=config.precision == "bfloat16"
    )


def feature_loss(
    config: TrainingConfig, start: Generator, vgg16: Path | str | None
) -> FeatureLoss | None:
    """The feature loss of a configuration; None where it has no weight.

    Parameters
    ----------
    config : TrainingConfig
    start : Generator
        The network that the stage begins with, for the backbone "encoder".
    vgg16 : path, optional
        The weights, for the backbone "vgg16".

    Raises
    ------
    ModelNotFoundError, ModelError
        No such file, or not the one that the configuration names.
    """
    if not config.feature_weight:
        return None
    if config.feature_backbone == "encoder":
        return FeatureLoss(EncoderFeatures(start))
    if config.feature_backbone == "fixed":
        return FeatureLoss(FixedFeatures())
    if vgg16 is None:
        raise ModelNotFoundError(
            "the feature loss 'vgg16' needs the file of its weights, none was given; they are "
            "torchvision's vgg16-397923af.pth, and can't come with this package; or choose the "
            "backbone 'encoder' or 'fixed'"
        )
    content = _read(vgg16)
    if (found := hashlib.sha256(content).hexdigest()) != config.vgg16_sha256:
        raise ModelError(
            f"{vgg16}: expected the file with sha256 {config.vgg16_sha256}, got {found}"
        )
    try:
        weights = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except Exception as error:
        raise ModelError(f"{vgg16}: expected a file of weights for torch, got: {error}") from error
    return FeatureLoss(VGG16Features(weights))


def vgg16_sha256(path: Path | str) -> str:
    """What the configuration records of the weights. Raises ModelNotFoundError."""
    return hashlib.sha256(_read(path)).hexdigest()


def _read(path: Path | str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ModelNotFoundError(
            f"no weights of VGG-16 at {path} ({error}); the feature backbones 'encoder' and "
            "'fixed' need no file"
        ) from error


class Critic:
    """A discriminator and how it learns.

    Parameters
    ----------
    config : TrainingConfig
    device : str
    world : World
    """

    def __init__(self, config: TrainingConfig, device: str, world: World) -> None:
        self._config, self._device = config, device
        self.discriminator = PatchDiscriminator(config.depth, config.critic_base).to(device)
        self._shared = world.wrap(self.discriminator)
        self.optimiser = torch.optim.Adam(
            self.discriminator.parameters(), config.learning_rate, betas=GAN_BETAS, fused=True
        )

    def judge(self, batch: Batch, denoised: torch.Tensor) -> torch.Tensor:
        """The generator's loss; nothing is learned of it here."""
        self.discriminator.eval().requires_grad_(False)
        with in_precision(self._config, self._device):
            logits = self.discriminator(batch.relative(batch.noisy), batch.relative(denoised))
        return generator_loss(self._config.adversarial_loss, logits.float())

    def learn(self, batch: Batch, denoised: torch.Tensor) -> torch.Tensor:
        """One step on targets and denoised slices, which must be without history: its loss."""
        self.discriminator.train().requires_grad_(True)
        noisy = batch.relative(batch.noisy)
        candidates = torch.cat([batch.relative(batch.target), batch.relative(denoised)])
        # Both at once: what is shared between processes is called once a step.
        with in_precision(self._config, self._device):
            logits = self._shared(torch.cat([noisy, noisy]), candidates)
        loss = discriminator_loss(self._config.adversarial_loss, *logits.float().chunk(2))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return loss.detach()


class Objective:
    """The generator's loss.

    Parameters
    ----------
    config : TrainingConfig
    features : FeatureLoss or None
    critic : Critic or None
    device : str
    """

    def __init__(
        self,
        config: TrainingConfig,
        features: FeatureLoss | None,
        critic: Critic | None,
        device: str,
    ) -> None:
        self._config, self._device = config, device
        self._features, self._critic = features, critic

    def __call__(self, batch: Batch, denoised: torch.Tensor) -> dict[str, torch.Tensor]:
        """Weighted terms, whose sum is the loss.

        Errors are in units of the sample's contrast, and each slice's pixel loss is weighted by
        ``(contrast / noise)^1/2``: halfway between "relative to the noise", in which low doses
        would count little, and "relative to the sample", in which they would count alone.
        """
        config = self._config
        found, target = batch.relative(denoised), batch.relative(batch.target)
        weight = (batch.contrast / batch.noise).sqrt()
        terms = {"pixel": (weight * pixel_loss(config.pixel_loss, found, target)).mean()}
        if config.ssim_weight:
            terms["ssim"] = config.ssim_weight * ssim_loss(found, target, _DATA_RANGE).mean()
        if config.ms_ssim_weight:
            terms["ms_ssim"] = config.ms_ssim_weight * ms_ssim_loss(found, target).mean()
        if self._features is not None:
            with in_precision(config, self._device):
                distance = self._features(found, target)
            terms["feature"] = config.feature_weight * distance.mean()
        if self._critic is not None:
            judged = self._critic.judge(batch, denoised)
            terms["adversarial"] = config.adversarial_weight * judged
        return terms
