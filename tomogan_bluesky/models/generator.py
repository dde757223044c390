"""The networks that denoise slices.

Enters: slices in 1/pixel and the standard deviation of their noise. Leaves: denoised slices in
1/pixel. All networks share one signature, ``forward(x: (N, depth, H, W), noise: (N,)) -> (N, C, H,
W)``, and three laws:

- *Any size*: the image is extended by its border values to a multiple of what the pooling needs.
- *Scale*: ``f(a x, a noise) = a f(x, noise)``. Attenuation in 1/pixel differs by orders of
  magnitude between samples and pixel sizes, so no absolute value may mean anything to a network.
  Inside, everything is in units of the noise: ``x / noise``.
- *Locality*: an output pixel depends on its neighbourhood and on `noise` alone, never on statistics
  of the whole image, so that tiles can equal the whole.
"""

import inspect
import re
from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.nn import functional as F

from ..errors import ConfigurationError


class Generator(nn.Module):
    """A network in units of the noise, around a body that knows only numbers of order one.

    Parameters
    ----------
    body : nn.Module
        Maps (N, depth, H, W) to (N, C, H, W), H and W being multiples of `multiple`.
    depth : int
        Adjacent slices that enter; the middle one is denoised.
    multiple : int
        What the body needs H and W to be multiples of.
    residual : bool
        The body's output is added to the middle slice, in units of the noise; otherwise it is the
        result itself.
    """

    def __init__(self, body: nn.Module, depth: int, multiple: int, residual: bool) -> None:
        super().__init__()
        self.body = body
        self.depth = depth
        self.multiple = multiple
        self.residual = residual
        self.input_scale: torch.Tensor
        self.smallest_noise = 1e-12  # in 1/pixel: for images without any noise
        # x / noise is about 10 in matter at a quarter of the dose: the body sees about 3. With
        # 0.1 it learned more slowly (0.4 dB behind after 600 steps), with 1 not faster.
        self.register_buffer("input_scale", torch.tensor(0.3))

    def forward(self, x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Denoise.

        Parameters
        ----------
        x : torch.Tensor, float32, shape (N, depth, H, W)
            In 1/pixel.
        noise : torch.Tensor, float32, shape (N,)
            Estimated standard deviation of the noise of `x` in 1/pixel.

        Returns
        -------
        torch.Tensor, float32, shape (N, C, H, W)
            In 1/pixel.
        """
        unit = noise.clamp_min(self.smallest_noise).view(-1, 1, 1, 1)
        z = x / unit
        height, width = x.shape[2], x.shape[3]
        bottom, right = -height % self.multiple, -width % self.multiple
        z = F.pad(z, [0, right, 0, bottom], mode="replicate")
        out = self.body(z * self.input_scale)[:, :, :height, :width]
        if self.residual:
            middle = self.depth // 2
            return x[:, middle : middle + 1] + noise.view(-1, 1, 1, 1) * out
        return unit / self.input_scale * out


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
    head = nn.Conv2d(base, 1, 1)
    nn.init.zeros_(head.weight)
    assert head.bias is not None
    nn.init.zeros_(head.bias)
    body = UNet(
        stem=nn.Identity(),
        channels_in=depth,
        down=down,
        bottom=_stage(down[-1], down[-1]),
        up=tuple(reversed(down)),
        head=head,
    )
    return Generator(body, depth, multiple=16, residual=True)


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
    return Generator(body, depth, multiple=8, residual=False)


PRESETS: dict[str, Callable[..., Generator]] = {"unet4": unet4, "tomogan3": tomogan3}


def build_generator(name: str, **options: int) -> Generator:
    """Build a preset by name, with random weights from torch's generator.

    Raises
    ------
    ConfigurationError
        An unknown preset, or an option that it does not have.
    """
    if name not in PRESETS:
        raise ConfigurationError(f"network: expected one of {', '.join(PRESETS)}; got {name!r}")
    known = inspect.signature(PRESETS[name]).parameters
    if unknown := sorted(set(options) - set(known)):
        raise ConfigurationError(
            f"network {name!r} has no option {unknown[0]!r}; it has {', '.join(known)}"
        )
    if wrong := [f"{k}={v}" for k, v in options.items() if v < 1]:
        raise ConfigurationError(f"network {name!r}: expected options of 1 or more, got {wrong[0]}")
    return PRESETS[name](**options)


def describe_generator(name: str, options: Mapping[str, int]) -> str:
    """A preset and its options as the card of a model has them: ``unet4(base=16)``."""
    return f"{name}({', '.join(f'{k}={v}' for k, v in options.items())})"


def parse_generator(text: str) -> tuple[str, dict[str, int]]:
    """Preset and options of a description. Raises ConfigurationError where it is none."""
    found = re.fullmatch(r"(\w+)\(((?:\w+=\d+(?:, )?)*)\)", text)
    if found is None:
        raise ConfigurationError(
            f"network: expected a preset and its options, such as unet4(base=16); got {text!r}"
        )
    return found[1], {k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", found[2])}
