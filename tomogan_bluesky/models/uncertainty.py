"""A second output of a trained network: how far off its first one may be.

Enters: a `Generator` that is finished. Leaves: one that gives the very same denoised slices, and
beside them the half-width of an interval around each pixel, in 1/pixel. A small head makes it of
what the network's last layer sees, of the edges of the denoised slice and of what was taken away.
It learns by itself, without the network: see `training.uncertainty`.
"""

from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import nn
from torch.nn import functional as F

from .base import Generator

DENOISED, UNCERTAINTY = "denoised", "uncertainty"
"""Names of the two outputs on a card."""

_WIDTH = 32  # channels of the head's hidden layers
_NEAR = 2  # pixels: an edge makes its neighbours uncertain, too
_AROUND = 4  # pixels: the mean of what was taken away is over a window of twice this and one
_SEEN = 4  # images that the head sees besides the features
_EXTRA_REACH = max(1 + _NEAR, _AROUND)
_PASSING = "body.head."  # where the weights of the last layer are
_INSIDE = "body.head.head."


class _Passing(nn.Module):
    """The last layer of a body, with what enters it behind what leaves it."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.head(features), features], 1)


class ScaleHead(nn.Module):
    """A perceptron a pixel, whose result is positive.

    Parameters
    ----------
    channels : int
        Features that enter.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        n = channels + _SEEN
        # What enters differs by orders of magnitude: `calibrate_scale` measures it once.
        self.typical: torch.Tensor
        self.register_buffer("typical", torch.ones(1, n, 1, 1))
        self.layers = nn.Sequential(
            nn.Conv2d(n, _WIDTH, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(_WIDTH, _WIDTH, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(_WIDTH, 1, 1),
        )

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        return F.softplus(self.layers(seen / self.typical))


class UncertainGenerator(Generator):
    """A generator whose two outputs are `DENOISED` and `UNCERTAINTY`; its laws hold for both.

    Parameters
    ----------
    generator : Generator
        It is copied. Its body has a last layer ``head``.
    """

    def __init__(self, generator: Generator) -> None:
        body = deepcopy(generator.body)
        head = body.get_submodule("head")
        body.head = _Passing(head)
        super().__init__(
            body,
            generator.depth,
            generator.multiple,
            generator.residual,
            generator.reach + _EXTRA_REACH,
        )
        self.input_scale.copy_(generator.input_scale)
        self.largest_near = nn.MaxPool2d(2 * _NEAR + 1, 1, _NEAR)
        self.mean_around = nn.AvgPool2d(2 * _AROUND + 1, 1, _AROUND, count_include_pad=False)
        self.uncertainty = ScaleHead(_channels(head))

    def forward(self, x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Denoise, and say how far off the result may be: (N, 2, H, W); see `Generator`."""
        denoised, seen = self.look(x, noise)
        return torch.cat([denoised, self._unit(noise) * self.uncertainty(seen)], 1)

    def look(self, x: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Denoised slices in 1/pixel, and what the head is to see, in units of the noise.

        Parameters
        ----------
        x, noise
            See `Generator`.

        Returns
        -------
        denoised : torch.Tensor, shape (N, 1, H, W)
        seen : torch.Tensor, shape (N, channels, H, W)
        """
        out = self._body(x, noise)
        denoised = self._denoised(x, noise, out[:, :1])
        unit = self._unit(noise)
        middle = self.depth // 2
        removed = ((x[:, middle : middle + 1] - denoised) / unit).abs()
        gradient = _gradient(denoised / unit)
        seen = [
            out[:, 1:],
            gradient,
            self.largest_near(gradient),
            removed,
            self.mean_around(removed),
        ]
        return denoised, torch.cat(seen, 1)


def _gradient(image: torch.Tensor) -> torch.Tensor:
    """Magnitude of the gradient by central differences, borders replicated: (N, 1, H, W)."""
    padded = F.pad(image, [1, 1, 1, 1], mode="replicate")
    along = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    across = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    return torch.sqrt(along * along + across * across) / 2


def _channels(head: nn.Module) -> int:
    """Channels that enter a layer."""
    first = next(m for m in head.modules() if isinstance(m, nn.Conv2d))
    return first.in_channels


def without_uncertainty(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of the generator that an uncertain one was made of, from those of the latter."""
    return {
        key.replace(_INSIDE, _PASSING, 1): value
        for key, value in weights.items()
        if not key.startswith(f"{UNCERTAINTY}.")
    }
