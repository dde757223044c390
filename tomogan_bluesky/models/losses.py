"""What a training minimises.

Enter: images (N, 1, H, W), denoised and wanted, in one unit, of order one; or the logits of a
discriminator. Leaves: one number an image, or one number. The features that `FeatureLoss` compares
are in `models.features`.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

PixelLossName = Literal["l1", "charbonnier"]
AdversarialName = Literal["bce", "hinge"]

# Wang, Simoncelli and Bovik, Asilomar 2003: the weights of the scales, the finest first; the
# Gaussian window of 11 pixels and sigma 1.5, and K = (0.01, 0.03), are of the same authors.
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_WINDOW, _SIGMA, _K = 11, 1.5, (0.01, 0.03)
# Of the plain index, the windows of Wang et al., IEEE Trans. Image Process. 13, 600, 2004, as
# `training.metrics.ssim` has them.
_FLAT_WINDOW = 7
# Errors far below this, relative to the sample's contrast, are squared: they are noise.
_CHARBONNIER = 1e-3


def pixel_loss(name: PixelLossName, denoised: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean error of each image, shape (N,): absolute, or Charbonnier's smooth version of it.

    Charbonnier et al., ICIP 1994: ``sqrt(e² + ε²) - ε``, which is 0 for equal images.
    """
    error = denoised - target
    if name == "charbonnier":
        size = (error.square() + _CHARBONNIER**2).sqrt() - _CHARBONNIER
    else:
        size = error.abs()
    return size.mean((1, 2, 3))


def ms_ssim_loss(denoised: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """1 minus the multi-scale structural similarity of each image, shape (N,).

    Wang, Simoncelli and Bovik, Asilomar 2003. Images too small for five scales get as many as fit,
    with the same ratios of their weights. The dynamic range is that of each target.

    Parameters
    ----------
    denoised, target : torch.Tensor, float32, shape (N, 1, H, W)
        H and W at least 11.
    """
    smallest = min(target.shape[2:])
    n_scales = 1
    while n_scales < len(_SCALE_WEIGHTS) and smallest >> n_scales >= _WINDOW:
        n_scales += 1
    weights = target.new_tensor(_SCALE_WEIGHTS[:n_scales])
    weights = weights / weights.sum()
    flat = target.flatten(1)
    peak = (flat.amax(1) - flat.amin(1)).clamp_min(1e-6).view(-1, 1, 1, 1)
    average = partial(F.conv2d, weight=_gaussian_window(target))
    similarity = torch.ones(len(target), device=target.device)
    x, y = denoised, target
    for scale in range(n_scales):
        luminance, structure = (m.mean((1, 2, 3)) for m in _similarities(x, y, peak, average))
        # Negative correlations have no power of a fraction: they count as none at all.
        similarity = similarity * structure.clamp_min(1e-6) ** weights[scale]
        if scale == n_scales - 1:
            similarity = similarity * luminance.clamp_min(1e-6) ** weights[scale]
        else:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return 1 - similarity


def ssim_loss(denoised: torch.Tensor, target: torch.Tensor, data_range: float) -> torch.Tensor:
    """1 minus the structural similarity of each image, shape (N,): what `metrics.ssim` measures.

    Parameters
    ----------
    denoised, target : torch.Tensor, float32, shape (N, 1, H, W)
        H and W at least 7.
    data_range : float
        See `local_ssim`.
    """
    return 1 - local_ssim(denoised, target, data_range).mean((1, 2, 3))


def local_ssim(denoised: torch.Tensor, target: torch.Tensor, data_range: float) -> torch.Tensor:
    """Structural similarity around each pixel, shape (N, 1, H - 6, W - 6).

    Wang et al., IEEE Trans. Image Process. 13, 600, 2004, with flat windows of 7 x 7 that are
    inside the image, and sample covariances.

    Parameters
    ----------
    denoised, target : torch.Tensor, float32, shape (N, 1, H, W)
        H and W at least 7.
    data_range : float
        Of whole samples, in the unit of the images. That of a crop would make much of the nothing
        that a flat one shows.
    """
    sample = _FLAT_WINDOW**2 / (_FLAT_WINDOW**2 - 1)
    average = partial(F.avg_pool2d, kernel_size=_FLAT_WINDOW, stride=1)
    luminance, structure = _similarities(denoised, target, data_range, average, sample)
    return luminance * structure


def _gaussian_window(like: torch.Tensor) -> torch.Tensor:
    axis = torch.arange(_WINDOW, device=like.device, dtype=like.dtype) - _WINDOW // 2
    profile = torch.exp(-(axis**2) / (2 * _SIGMA**2))
    profile = profile / profile.sum()
    return (profile[:, None] * profile)[None, None]


def _similarities(
    x: torch.Tensor,
    y: torch.Tensor,
    data_range: torch.Tensor | float,
    average: Callable[[torch.Tensor], torch.Tensor],
    sample: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Luminance and contrast-structure around each pixel whose window is inside the image.

    `average` is over the window, and `sample` makes its covariances those of a sample.
    """
    mean_x, mean_y, square_x, square_y, product = (average(a) for a in (x, y, x * x, y * y, x * y))
    small_1, small_2 = ((k * data_range) ** 2 for k in _K)
    variances = sample * (square_x - mean_x**2 + square_y - mean_y**2)
    covariance = sample * (product - mean_x * mean_y)
    structure = (2 * covariance + small_2) / (variances + small_2)
    luminance = (2 * mean_x * mean_y + small_1) / (mean_x**2 + mean_y**2 + small_1)
    return luminance, structure


def generator_loss(name: AdversarialName, fake: torch.Tensor) -> torch.Tensor:
    """What the generator is told: the mean over patches of how far it fails to pass.

    Parameters
    ----------
    name : "bce" or "hinge"
        Binary cross-entropy in its non-saturating form (Goodfellow et al., NeurIPS 2014), or the
        hinge's linear one (Lim and Ye, 2017).
    fake : torch.Tensor
        The discriminator's logits of denoised images.
    """
    if name == "bce":
        return F.softplus(-fake).mean()
    return -fake.mean()


def discriminator_loss(
    name: AdversarialName, real: torch.Tensor, fake: torch.Tensor
) -> torch.Tensor:
    """What the discriminator is told: the mean of its errors on targets and on denoised images.

    For "bce" it is log 2 where it can't tell them apart, for "hinge" it is 1; 0 where it always
    can.
    """
    if name == "bce":
        return (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2
    return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2


class FeatureLoss(nn.Module):
    """Mean absolute difference of features ("perceptual loss": Johnson et al., ECCV 2016).

    Parameters
    ----------
    features : nn.Module
        Maps images (N, 1, H, W) to a list of feature maps. It is frozen here.

    Notes
    -----
    Each map counts relative to the mean magnitude of the target's features, so that no layer
    outweighs the others for its scale alone. Features may come in half precision.
    """

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features.eval().requires_grad_(False)

    def forward(self, denoised: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Distance of each image, shape (N,)."""
        with torch.no_grad():
            wanted = self.features(target)
        distances = []
        for there, aim in zip(self.features(denoised), wanted, strict=True):
            error, size = (m.float().abs().mean((1, 2, 3)) for m in (there - aim, aim))
            distances.append(error / size.clamp_min(1e-6))
        return torch.stack(distances).mean(0)
