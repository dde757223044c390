"""Learning from a single scan: two reconstructions from different projections have different noise.

Enter: the projections of one scan. Leave: pairs of slices, each from other projections than its
target (Hendriksen, Pelt and Batenburg, IEEE Trans. Comput. Imaging 6, 1320, 2020). What a network
can predict of the target is the sample, since the noise of the one says nothing about the other.
"""

from collections.abc import Callable, Iterator

import torch

from ..errors import ConfigurationError
from .open_scan import OpenScan
from .pairs import Pairs

SPLITS = 2
"""Even and odd projections."""


def angular_splits(n_angles: int, n_splits: int = SPLITS) -> list[slice]:
    """Which projections are of which split: every `n_splits`-th.

    Raises
    ------
    ConfigurationError
        Fewer than two splits, or splits of fewer than two projections.
    """
    if n_splits < 2 or n_angles < 2 * n_splits:
        raise ConfigurationError(
            f"expected 2 splits or more, of 2 projections or more each; got {n_splits} splits of "
            f"{n_angles} projections"
        )
    return [slice(k, None, n_splits) for k in range(n_splits)]


def split_pairs(splits: torch.Tensor, dose: float = 1.0) -> list[Pairs]:
    """Pairs from reconstructions of the splits.

    Each slice is there once for each split: the mean of the others is what the network sees, the
    split is its target.

    Parameters
    ----------
    splits : torch.Tensor, float32, shape (split, slice, y, x)
        In 1/pixel.
    dose : float
        Of the whole scan.

    Returns
    -------
    list of Pairs
        One entry a split.

    Raises
    ------
    ConfigurationError
        Slices that are not finite.
    """
    seen = torch.full((splits.shape[1], 1), dose * (len(splits) - 1) / len(splits))
    inputs = others(splits)
    return [Pairs.of(x[:, None], y, seen) for x, y in zip(inputs, splits, strict=True)]


def others(splits: torch.Tensor) -> torch.Tensor:
    """What the network sees beside each split: the mean of the other ones, of the same shape."""
    return (splits.sum(0) - splits) / (len(splits) - 1)


def averaged_splits(
    network: Callable[[torch.Tensor], torch.Tensor], splits: torch.Tensor
) -> torch.Tensor:
    """Mean of what a network makes of the inputs that it was trained on.

    Parameters
    ----------
    network : callable
        Denoises slices, shape (slice, y, x).
    splits : torch.Tensor, shape (split, slice, y, x)

    Returns
    -------
    torch.Tensor, float32, shape (slice, y, x)
    """
    return torch.stack([network(images) for images in others(splits)]).mean(0)


def scan_splits(scan: OpenScan, n_splits: int = SPLITS) -> Iterator[tuple[int, torch.Tensor]]:
    """First slice and reconstructions, shape (split, slice, y, x), of each part of a scan."""
    reconstructors = [scan.reconstructor(a) for a in angular_splits(scan.n_angles, n_splits)]
    for part in scan.parts():
        attenuation = scan.attenuation(part)
        yield part.first, torch.stack([make(attenuation) for make in reconstructors])
