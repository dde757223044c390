"""Windows of adjacent slices: what a 2.5D network sees of a volume that comes slab by slab.

Enter: slabs (slice, y, x) of one volume, in order. Leave: the same slabs denoised, in order, as
soon as the slices after them that their last windows need are there. A slice's window is the same
however the volume is cut into slabs, and so are its bits.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

import torch

from ..models.artifact import ModelCard


def window_indices(i: int, n_slices: int, depth: int) -> list[int]:
    """The `depth` slices around slice i of a volume, mirrored about the volume's end slices.

    A volume of one slice is repeated.
    """
    if n_slices == 1:
        return [0] * depth
    period = 2 * (n_slices - 1)
    folded = ((i + k - depth // 2) % period for k in range(depth))
    return [min(k, period - k) for k in folded]


class Denoiser(Protocol):
    """What denoises a slab: slices (slice, y, x) in 1/pixel to slices of the same shape and units.

    `context` says how many slices at the beginning and at the end are there as neighbours alone:
    they are not denoised, and not returned. At an end without context the volume ends. It is given
    to denoisers whose card has a depth of more than one. Otherwise a slice's result does not depend
    on the slices beside it in the slab.
    """

    card: ModelCard
    sha256: str

    def __call__(self, slices: torch.Tensor, context: tuple[int, int] = (0, 0)) -> torch.Tensor: ...


@dataclass(eq=False)
class _Stretch:
    """Adjacent slices without a gap; those that no window needs any more are forgotten."""

    slices: list[torch.Tensor | None] = field(default_factory=list)
    ended: bool = False


class WindowedDenoiser:
    """Denoises slabs by windows that reach across their borders.

    Slabs enter with `add` and leave with `take`, in the same order. Slices wait here until their
    neighbours have come: ``depth // 2`` of them, none where the depth is 1.

    Parameters
    ----------
    denoiser : Denoiser
    """

    def __init__(self, denoiser: Denoiser) -> None:
        self._denoiser = denoiser
        self._half = denoiser.card.depth // 2
        self._stretch = _Stretch()
        self._waiting: deque[tuple[_Stretch, int, int]] = deque()

    def add(self, slices: torch.Tensor) -> None:
        """Take the next slab, shape (slice, y, x), 1/pixel."""
        if self._stretch.ended:
            self._stretch = _Stretch()
        first = len(self._stretch.slices)
        self._stretch.slices += slices
        self._waiting.append((self._stretch, first, first + len(slices)))

    def end(self) -> None:
        """No slice follows the last one: the volume ends here, or there is a gap in it."""
        self._stretch.ended = True

    @property
    def ready(self) -> bool:
        """Whether the slab that has waited longest can be denoised."""
        if not self._waiting:
            return False
        stretch, _, last = self._waiting[0]
        return stretch.ended or len(stretch.slices) >= last + self._half

    def take(self) -> torch.Tensor:
        """Denoise the slab that has waited longest; it is gone from here even where that fails.

        Raises
        ------
        ModelError
            The result is not finite.
        """
        stretch, first, last = self._waiting.popleft()
        begin, end = max(0, first - self._half), min(len(stretch.slices), last + self._half)
        slices = torch.stack([s for s in stretch.slices[begin:end] if s is not None])
        for i in range(begin, max(begin, last - self._half)):
            stretch.slices[i] = None
        if self._half == 0:
            return self._denoiser(slices)
        return self._denoiser(slices, (first - begin, end - last))
