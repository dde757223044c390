"""When a gan stage has gone wrong.

Enters: what each step and each validation measured. Leaves: nothing, or `CollapseError`.
"""

import math
from collections import deque

from ..errors import CollapseError

WINDOW = 100  # steps: a single bad batch is no collapse
# A discriminator at chance has 0.69 (bce) or 1 (hinge). This low, it is sure of everything, and
# tells the generator nothing any more.
_LOWEST_DISCRIMINATOR_LOSS = 0.01
_LOWEST_SPREAD = 0.05  # of the target's: nothing of the sample is left


class CollapseWatch:
    """Looks at a gan stage while it runs.

    Parameters
    ----------
    largest_cost_db : float
        What the validation PSNR may lose at any dose.
    """

    def __init__(self, largest_cost_db: float) -> None:
        self._largest_cost_db = largest_cost_db
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._spreads: deque[float] = deque(maxlen=WINDOW)

    def after_step(self, step: int, discriminator_loss: float, spread: float) -> None:
        """Take what a step measured; `spread` is the standard deviation of the denoised images,
        over that of their targets.

        Raises
        ------
        CollapseError
        """
        if not (math.isfinite(discriminator_loss) and math.isfinite(spread)):
            raise self._error(step, "the discriminator's loss or the slices are not finite")
        self._losses.append(discriminator_loss)
        self._spreads.append(spread)
        if len(self._losses) < WINDOW:
            return
        if (mean := sum(self._losses) / WINDOW) < _LOWEST_DISCRIMINATOR_LOSS:
            raise self._error(
                step, f"the discriminator's loss fell to {mean:.2g}: it tells all slices apart"
            )
        if (mean := sum(self._spreads) / WINDOW) < _LOWEST_SPREAD:
            raise self._error(
                step, f"denoised slices are nearly constant: {mean:.2g} of their target's contrast"
            )

    def after_validation(self, step: int, cost_db: float) -> None:
        """Take what a validation lost against the pixel stage. Raises as `after_step`."""
        if not cost_db <= self._largest_cost_db:  # NaN is a collapse too
            raise self._error(step, f"the validation PSNR fell by {cost_db:.2g} dB")

    def _error(self, step: int, what: str) -> CollapseError:
        return CollapseError(
            f"step {step}: the gan stage has collapsed: {what}; the network that was kept before "
            "is in the checkpoint; lower adversarial_weight or learning_rate"
        )
