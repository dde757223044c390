"""Two-dimensional U-Nets: ours, and the original's.

Enters and leaves: see `models.base`.
"""

import torch
from torch import nn
from torch.nn import functional as F

from .base import Generator, zero_head


def _stage(channels_in: int, channels_out: int) -> nn.Sequential:
    """Two 3 x 3 convolutions at one resolution."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels_out, channels_out, 3, padding=1),
        nn.ReLU(inplace=True),
    )


class UNet(nn.Module):
    """Encoder and decoder with skip connections, bilinear up-sampling, no normalisation layers.

    `down` and `up` are the channels of their stages in the order in which they are passed.
    """

    def __init__(
        self,
        stem: nn.Module,
        channels_in: int,
        down: tuple[int, ...],
        bottom: nn.Module,
        up: tuple[int, ...],
        head: nn.Module,
    ) -> None:
        super().__init__()
        self.stem = stem
        before = (channels_in, *down[:-1])
        self.down = nn.ModuleList(map(_stage, before, down))
        self.bottom = bottom
        below = (down[-1], *up[:-1])  # the bottom keeps the channels of the last stage
        joined = [a + b for a, b in zip(reversed(down), below, strict=True)]
        self.up = nn.ModuleList(map(_stage, joined, up))
        self.head = head

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        z = self.stem(z)
        skipped: list[torch.Tensor] = []
        for stage in self.down:
            z = stage(z)
            skipped.append(z)
            z = F.max_pool2d(z, 2)
        z = self.bottom(z)
        for stage in self.up:
            z = F.interpolate(z, scale_factor=2.0, mode="bilinear", align_corners=False)
            z = stage(torch.cat([skipped.pop(), z], 1))
        return self.head(z)


def unet_reach(levels: int, bottom: int) -> int:
    """How far a U-Net of two convolutions a stage and as many at the bottom sees, in pixels.

    At level k a pixel is 2^k of the image's: a 3 x 3 convolution sees one further, and so does
    pooling; bilinear up-sampling to level k sees one further of level k + 1.
    """
    stages = sum((2 + 1 + 2 + 2) * 2**k for k in range(levels))  # down, pooled, up-sampled, up
    return stages + bottom * 2**levels


def unet4(base: int = 16, depth: int = 1) -> Generator:
    """Four blocks down and up (Liu et al., JOSA A 37, 422, 2020, as a residual network).

    The last layer starts at zero, so that an untrained network returns its input.

    Parameters
    ----------
    base : int
        Channels at full resolution: 16 makes 1.2 million parameters, 24 makes 2.8.
    depth : int
        Adjacent slices that enter.
    """
    down = (base, 2 * base, 4 * base, 8 * base)
    body = UNet(
        stem=nn.Identity(),
        channels_in=depth,
        down=down,
        bottom=_stage(down[-1], down[-1]),
        up=tuple(reversed(down)),
        head=zero_head(nn.Conv2d(base, 1, 1)),
    )
    return Generator(body, depth, multiple=16, residual=True, reach=unet_reach(4, 2))


def tomogan3(depth: int = 1) -> Generator:
    """The topology of the original TensorFlow program: three blocks, 694,897 parameters.

    Parameters
    ----------
    depth : int
        Adjacent slices that enter.
    """
    body = UNet(
        stem=nn.Sequential(nn.Conv2d(depth, 8, 1), nn.ReLU(inplace=True)),
        channels_in=8,
        down=(32, 64, 128),
        bottom=nn.Sequential(nn.Conv2d(128, 128, 3, padding=1), nn.ReLU(inplace=True)),
        up=(64, 32, 32),
        head=nn.Sequential(nn.Conv2d(32, 16, 1), nn.ReLU(inplace=True), nn.Conv2d(16, 1, 1)),
    )
    return Generator(body, depth, multiple=8, residual=False, reach=unet_reach(3, 1))
