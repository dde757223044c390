"""The mixed-scale dense network: few weights, so that a single scan is enough to learn them.

Enters and leaves: see `models.base`.
"""

import torch
from torch import nn

from .base import Generator, zero_head

_LARGEST_DILATION = 10


class _MixedScaleDense(nn.Module):
    """Each layer is one channel, made of all channels before it at a dilation of its own."""

    def __init__(self, layers: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for i in range(layers):
            dilation = i % _LARGEST_DILATION + 1
            convolution = nn.Conv2d(depth + i, 1, 3, padding=dilation, dilation=dilation)
            # Leaky, because a layer of one channel that died would stay dead.
            self.layers.append(nn.Sequential(convolution, nn.LeakyReLU(0.1)))
        self.head = zero_head(nn.Conv2d(depth + layers, 1, 1))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            z = torch.cat([z, layer(z)], 1)
        return self.head(z)


def msd(layers: int = 30, depth: int = 1) -> Generator:
    """Mixed-scale dense network (Pelt and Sethian, PNAS 115, 254, 2018), of width 1.

    Parameters
    ----------
    layers : int
        Of dilations 1 to 10, in turn: 30 make 4 thousand parameters; the authors use 100.
    depth : int
        Adjacent slices that enter.
    """
    reach = sum(i % _LARGEST_DILATION + 1 for i in range(layers))
    return Generator(_MixedScaleDense(layers, depth), depth, multiple=1, residual=True, reach=reach)
