"""The critic of the GAN stage: does this patch look like a clean slice?

Enters: noisy slices and candidates for what they should be, in one unit, of order one. Leaves: one
logit for each patch of 70 x 70 pixels, high where the candidate passes for a target. It serves in
training only, and is never exported.
"""

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import register_parametrization

_LEAK = 0.2  # slope below zero
# Of the noisy slices, beside a candidate: at their full height it is their noise, the same beside a
# target and a denoised slice, that the first layers would see and little else.
_QUIET = 0.1


class _ZeroSum(nn.Module):
    """Kernels without their mean over the window."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight - weight.mean((2, 3), keepdim=True)


class PatchDiscriminator(nn.Module):
    """PatchGAN, conditional (Isola et al., CVPR 2017): 4 x 4 convolutions, no pooling.

    No layer looks at more than its patch: there is no normalisation over the image, which would
    widen the receptive field to all of it. Spectral normalisation keeps the critic from growing
    steep instead (Miyato et al., ICLR 2018), which is what makes generators collapse. The kernels
    of the first layer sum to zero, so that it sees differences between pixels only: what tells a
    denoised slice from a target is a few hundredths of the attenuation that both have in common,
    which would drown it. So would the noise of the noisy slices: they enter at a tenth of their
    height. Its biases begin at zero: they are common to all patches, too.

    Parameters
    ----------
    depth : int
        Adjacent noisy slices that the generator sees, and so does the critic.
    base : int
        Channels of the first layer; 64 makes 2.8 million parameters.
    """

    def __init__(self, depth: int = 1, base: int = 64) -> None:
        super().__init__()
        channels = (depth + 1, base, 2 * base, 4 * base, 8 * base, 1)
        strides = (2, 2, 2, 1, 1)
        layers: list[nn.Module] = []
        for i, stride in enumerate(strides):
            convolution = nn.Conv2d(channels[i], channels[i + 1], 4, stride, padding=1)
            nn.init.kaiming_normal_(convolution.weight, _LEAK)
            assert convolution.bias is not None
            nn.init.zeros_(convolution.bias)
            if i == 0:
                register_parametrization(convolution, "weight", _ZeroSum())
            layers += [spectral_norm(convolution), nn.LeakyReLU(_LEAK)]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, noisy: torch.Tensor, candidate: torch.Tensor) -> torch.Tensor:
        """Judge candidates.

        Parameters
        ----------
        noisy : torch.Tensor, float32, shape (N, depth, H, W)
        candidate : torch.Tensor, float32, shape (N, 1, H, W)
            H and W at least 24.

        Returns
        -------
        torch.Tensor, float32, shape (N, 1, H / 8 - 2, W / 8 - 2)
            Logits, one a patch.
        """
        return self.layers(torch.cat([_QUIET * noisy, candidate], 1))


def receptive_field(layers: nn.Module) -> int:
    """Width in pixels of what one output of a chain of convolutions sees.

    Each layer of width k widens it by k - 1 of its input's pixels, which are as many of the image
    as the strides before have made of them.
    """
    width, step = 1, 1
    for layer in layers.modules():
        if isinstance(layer, nn.Conv2d):
            width += (layer.kernel_size[0] - 1) * layer.dilation[0] * step
            step *= layer.stride[0]
    return width
