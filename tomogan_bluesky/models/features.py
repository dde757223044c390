"""Features of images, for `losses.FeatureLoss`: three backbones, each of which must be asked for.

Enter: images (N, 1, H, W), their dense matter being 1. Leave: lists of feature maps. `vgg16` takes
the weights that its user supplies, `encoder` a network of ours, and `fixed` needs nothing.
"""

import math
from collections.abc import Mapping
from copy import deepcopy
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from ..errors import ModelError
from .base import Generator
from .unets import UNet

BackboneName = Literal["encoder", "fixed", "vgg16"]

# VGG-16 (Simonyan and Zisserman, ICLR 2015): channels of its 13 convolutions, by block.
_VGG16_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
# What its training images were normalised with (RGB); grey images are shown to it in all three.
_VGG16_MEAN, _VGG16_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VGG16Features(nn.Module):
    """The 13 convolutions of VGG-16.

    Parameters
    ----------
    weights : mapping of str to torch.Tensor
        With the keys of torchvision's ``vgg16``: ``features.0.weight``, …; those of the classifier
        may be among them.

    Raises
    ------
    ModelError
        A key is missing, or a tensor is of another shape.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self.mean: torch.Tensor
        self.deviation: torch.Tensor
        self.register_buffer("mean", torch.tensor(_VGG16_MEAN).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor(_VGG16_DEVIATION).view(1, 3, 1, 1))
        self.blocks = nn.ModuleList()
        channels, index = 3, 0  # torchvision counts convolutions, ReLUs and poolings in one row
        for block in _VGG16_BLOCKS:
            layers: list[nn.Module] = []
            for out in block:
                convolution = nn.Conv2d(channels, out, 3, padding=1)
                for name, parameter in convolution.named_parameters():
                    _fill(parameter, weights, f"features.{index}.{name}")
                layers += [convolution, nn.ReLU()]
                channels, index = out, index + 2
            self.blocks.append(nn.Sequential(*layers))
            index += 1

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Feature maps at the end of each block, before its pooling."""
        z = (image - self.mean) / self.deviation
        found = []
        for i, block in enumerate(self.blocks):
            z = block(F.max_pool2d(z, 2) if i else z)
            found.append(z)
        return found


@torch.no_grad()
def _fill(parameter: torch.Tensor, weights: Mapping[str, torch.Tensor], key: str) -> None:
    shape = tuple(weights[key].shape) if key in weights else "none"
    if shape != tuple(parameter.shape):
        raise ModelError(
            f"VGG-16: expected {key} of shape {tuple(parameter.shape)}, got {shape}; give the "
            "weights of torchvision's vgg16 (without batch normalisation)"
        )
    parameter.copy_(weights[key])


class EncoderFeatures(nn.Module):
    """What the contracting half of one of our U-Nets makes of an image, at each of its scales.

    Parameters
    ----------
    generator : Generator
        A trained U-Net; it is copied. It saw images in units of their noise: these are shown to it
        as if a tenth of their dense matter were noise, which is about a quarter of the full dose.

    Raises
    ------
    ModelError
        A network without an encoder.
    """

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        body = generator.body
        if not isinstance(body, UNet):
            raise ModelError(
                "feature loss: expected a U-Net, whose encoder gives the features, got a network "
                "without one; use the backbone 'fixed'"
            )
        self.depth = generator.depth
        self.scale = 10 * float(generator.input_scale)
        self.stem, self.down = deepcopy(body.stem), deepcopy(body.down)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Feature maps of each stage."""
        z = self.stem(self.scale * image.expand(-1, self.depth, -1, -1))
        found = []
        for i, stage in enumerate(self.down):
            z = stage(F.max_pool2d(z, 2) if i else z)
            found.append(z)
        return found


class FixedFeatures(nn.Module):
    """Gradients and oriented Gabor responses at three scales: no weights, nothing learned.

    Each Gabor filter is a wave of 4 pixels under a Gaussian of sigma 2, in two phases and four
    orientations, made to ignore constants (Daugman, JOSA A 2, 1160, 1985).
    """

    def __init__(self) -> None:
        super().__init__()
        self.bank: torch.Tensor
        self.register_buffer("bank", _fixed_bank())

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Feature maps at full, half and quarter resolution."""
        found = []
        for scale in range(3):
            if scale:
                image = F.avg_pool2d(image, 2)
            found.append(F.conv2d(F.pad(image, [4, 4, 4, 4], mode="replicate"), self.bank))
        return found


def _fixed_bank() -> torch.Tensor:
    """Filters (filter, 1, 9, 9), each of zero sum and unit absolute sum."""
    axis = torch.arange(-4, 5, dtype=torch.float32)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    narrow = torch.exp(-(x**2 + y**2) / 2)
    filters = [x * narrow, y * narrow]  # derivatives of a Gaussian of sigma 1
    envelope = torch.exp(-(x**2 + y**2) / 8)
    for k in range(4):
        along = x * math.cos(k * math.pi / 4) + y * math.sin(k * math.pi / 4)
        for phase in (0.0, math.pi / 2):
            wave = torch.cos(2 * math.pi / 4 * along + phase) * envelope
            filters.append(wave - envelope * (wave.sum() / envelope.sum()))
    return torch.stack([f / f.abs().sum() for f in filters])[:, None]
