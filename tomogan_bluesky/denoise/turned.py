"""The same slices, turned and mirrored, denoised and averaged.

Enter: a denoiser and slices (slice, y, x). Leaves: the mean of what it makes of each slice as seen
from up to eight sides, each turned back. A sample has no preferred direction, but a network's
errors do: some of them cancel. It takes as many times as long.
"""

from collections.abc import Callable, Sequence

import torch

from .windows import Denoiser, has_uncertainty, moving

# Quarter turns, and whether mirrored after them; the first N are those of N sides.
_SIDES = (
    *((0, False), (2, False), (1, False), (3, False)),
    *((0, True), (2, True), (1, True), (3, True)),
)
_PLANE = (1, 2)  # y and x


class TurnedDenoiser:
    """The mean over several sides of what another denoiser makes.

    Parameters
    ----------
    denoiser : Denoiser
    n_sides : int
        1, 2 (upside down), 4 (quarter turns), or 8 (these mirrored, too).
    """

    def __init__(self, denoiser: Denoiser, n_sides: int) -> None:
        self._denoiser, self._n_sides = denoiser, n_sides
        self.card = denoiser.card
        self.sha256 = denoiser.sha256

    @property
    def on(self) -> "Callable[[str], TurnedDenoiser] | None":
        """Gives the same on another device; None where the other denoiser can't."""
        return moving(self._denoiser, lambda moved: TurnedDenoiser(moved, self._n_sides))

    def __call__(self, slices: torch.Tensor, context: tuple[int, int] = (0, 0)) -> torch.Tensor:
        """See `Denoiser`."""
        around = () if context == (0, 0) else (context,)
        (mean,) = self._mean(slices, lambda turned: (self._denoiser(turned, *around),))
        return mean

    def with_uncertainty(
        self, slices: torch.Tensor, context: tuple[int, int] = (0, 0)
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `UncertainDenoiser`; of a denoiser that is one.

        The half-widths are averaged, too, although some of the errors cancel: they hold more errors
        than the card promises, not fewer.
        """
        other = self._denoiser
        assert has_uncertainty(other)
        denoised, uncertainty = self._mean(
            slices, lambda turned: other.with_uncertainty(turned, context)
        )
        return denoised, uncertainty

    def _mean(
        self, slices: torch.Tensor, make: Callable[[torch.Tensor], Sequence[torch.Tensor]]
    ) -> list[torch.Tensor]:
        """Means of what is made of all sides."""
        sums: list[torch.Tensor] = []
        for quarters, mirrored in _SIDES[: self._n_sides]:
            turned = torch.rot90(slices, quarters, _PLANE)
            turned = turned.flip(_PLANE[1]) if mirrored else turned
            for i, image in enumerate(make(turned.contiguous())):
                back = image.flip(_PLANE[1]) if mirrored else image
                back = torch.rot90(back, -quarters, _PLANE)
                if i == len(sums):
                    sums.append(back.clone())
                else:
                    sums[i] += back
        return [total / self._n_sides for total in sums]


def turned(denoiser: Denoiser, n_sides: int) -> Denoiser:
    """The same denoiser, or its mean over several sides."""
    return denoiser if n_sides == 1 else TurnedDenoiser(denoiser, n_sides)
