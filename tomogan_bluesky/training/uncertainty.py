"""Teaching a finished network how far off it may be.

Enter: an `UncertainGenerator` whose denoised slices are to stay as they are, and pairs. Leaves: the
same with a head that gives, for each pixel, what the error stays below in nine of ten cases.

The loss is that of quantile regression (Koenker and Bassett, Econometrica 46, 33, 1978) between the
logarithms of error and scale. A quantile of logarithms is the logarithm of the quantile; and since
only ratios count, the slope of the loss is the share of errors that are not covered, less the one
that should be: alike at edges, where errors are large, and in flat parts, where they are small.
"""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from tqdm import tqdm

from ..errors import TrainingError
from ..models.uncertainty import UncertainGenerator
from .crops import Batch, Crops
from .pairs import Pairs
from .settings import TrainingConfig

logger = logging.getLogger(__name__)

COVERAGE = 0.9
"""Share of the errors that the intervals are to hold."""

_LEAST = 1e-6  # of the noise: the logarithm of no error at all
_TYPICAL_BATCHES = 8
# Of a crop, at its borders: there, the network sees less than in a whole slice, and is worse.
_MARGIN = 1 / 8


def learn_uncertainty(
    generator: UncertainGenerator,
    pairs: Sequence[Pairs],
    config: TrainingConfig,
    device: str = "cpu",
) -> list[float]:
    """Teach the head; everything else stays as it is, to the bit.

    Parameters
    ----------
    generator : UncertainGenerator
    pairs : sequence of Pairs
        What the errors are of is the distance to their targets: where these are noisy, their noise
        counts, too.
    config : TrainingConfig
        Steps, batches, crops, rate and seed are used.
    device : str

    Returns
    -------
    list of float
        Mean loss of each twentieth of the steps.

    Raises
    ------
    TrainingError
        The loss is not finite; no slices, or slices smaller than the crops.
    """
    assert config.steps is not None
    crops, rng = Crops(pairs, config), np.random.default_rng(config.seed)
    generator.to(device).eval().requires_grad_(False)
    head = generator.uncertainty.requires_grad_(True)
    typical = [_seen(generator, crops.draw(rng).to(device))[0] for _ in range(_TYPICAL_BATCHES)]
    means = torch.stack([seen.abs().mean((0, 2, 3), keepdim=True) for seen in typical])
    head.typical.copy_(means.mean(0).clamp_min(_LEAST))
    optimiser = torch.optim.Adam(head.parameters(), config.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.steps)
    losses = []
    with tqdm(total=config.steps, desc="learning uncertainty", unit="step", disable=None) as bar:
        for step in range(config.steps):
            seen, error = _seen(generator, crops.draw(rng).to(device))
            loss = quantile_loss(error, head(seen))
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"step {step}: the loss is not finite; lower the learning rate, now "
                    f"{config.learning_rate:g}"
                )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(float(loss.detach()))
            bar.update()
    generator.cpu().eval()
    return [float(np.mean(part)) for part in np.array_split(losses, min(20, len(losses)))]


def quantile_loss(
    error: torch.Tensor, scale: torch.Tensor, coverage: float = COVERAGE
) -> torch.Tensor:
    """Smallest, on average, where `scale` is what `error` stays below in that share of cases.

    Parameters
    ----------
    error, scale : torch.Tensor
        Not negative; of one shape, and in one unit.
    coverage : float
    """
    beyond = error.clamp_min(_LEAST).log() - scale.clamp_min(_LEAST).log()
    return torch.where(beyond > 0, coverage * beyond, (coverage - 1) * beyond).mean()


@torch.no_grad()
def _seen(generator: UncertainGenerator, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """What the head sees of a batch, and the errors that it is to foretell, in units of the noise;
    without what is near the borders."""
    denoised, seen = generator.look(batch.noisy, batch.noise)
    error = (batch.target - denoised).abs() / batch.noise.view(-1, 1, 1, 1)
    margin = int(_MARGIN * error.shape[-1])
    inner = (..., slice(margin, -margin), slice(margin, -margin))
    return seen[inner], error[inner]
