"""A U-Net that convolves over adjacent slices too.

Enters and leaves: see `models.base`.
"""

import torch
from torch import nn
from torch.nn import functional as F

from .base import Generator, zero_head
from .unets import unet_reach


def _stage(channels_in: int, channels_out: int) -> nn.Sequential:
    """Two 3 x 3 x 3 convolutions at one resolution."""
    return nn.Sequential(
        nn.Conv3d(channels_in, channels_out, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv3d(channels_out, channels_out, 3, padding=1),
        nn.ReLU(inplace=True),
    )


class _UNet3d(nn.Module):
    """Three levels. Slices are few: pooling is within them, never between them."""

    def __init__(self, base: int, depth: int) -> None:
        super().__init__()
        self.middle = depth // 2
        down = (base, 2 * base, 4 * base)
        self.down = nn.ModuleList(map(_stage, (1, *down[:-1]), down))
        self.bottom = _stage(down[2], down[2])
        joined, up = (2 * down[2], 2 * down[1], 2 * down[0]), (down[1], down[0], down[0])
        self.up = nn.ModuleList(map(_stage, joined, up))
        self.head = zero_head(nn.Conv2d(base, 1, 1))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        z = z.unsqueeze(1).contiguous()
        skipped: list[torch.Tensor] = []
        for stage in self.down:
            z = stage(z)
            skipped.append(z)
            z = F.max_pool3d(z, (1, 2, 2))
        z = self.bottom(z)
        for stage in self.up:
            z = F.interpolate(z, scale_factor=(1.0, 2.0, 2.0), mode="trilinear")
            z = stage(torch.cat([skipped.pop(), z], 1))
        return self.head(z[:, :, self.middle])


def unet3d(base: int = 8, depth: int = 5) -> Generator:
    """Three blocks down and up, in three dimensions (after Çiçek et al., MICCAI 2016).

    Parameters
    ----------
    base : int
        Channels at full resolution: 8 makes 158 thousand parameters.
    depth : int
        Adjacent slices that enter.
    """
    body = _UNet3d(base, depth)
    return Generator(body, depth, multiple=8, residual=True, reach=unet_reach(3, 2))
