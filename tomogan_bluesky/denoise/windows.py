"""Windows of adjacent slices: what a 2.5D network sees of a volume that comes slab by slab.

Enter: slabs (slice, y, x) of one volume, in order. Leave: the same slabs denoised, in order, as
soon as the slices after them that their last windows need are there. A slice's window is the same
however the volume is cut into slabs, and so are its bits.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeGuard, TypeVar

import torch

from ..models.card import ModelCard
from ..models.uncertainty import DENOISED, UNCERTAINTY

Wrapped = TypeVar("Wrapped", bound="Denoiser")


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


class UncertainDenoiser(Denoiser, Protocol):
    """One whose card has an output ``uncertainty``: it can say how far off each pixel may be."""

    def with_uncertainty(
        self, slices: torch.Tensor, context: tuple[int, int] = (0, 0)
    ) -> tuple[torch.Tensor, torch.Tensor]: ...


def has_uncertainty(denoiser: Denoiser) -> TypeGuard[UncertainDenoiser]:
    """Whether a denoiser says how far off it may be."""
    return UNCERTAINTY in denoiser.card.outputs


def moving(
    denoiser: Denoiser, wrap: Callable[[Denoiser], Wrapped]
) -> Callable[[str], Wrapped] | None:
    """What gives a wrapped denoiser on another device; None where the denoiser can't be moved."""
    on = getattr(denoiser, "on", None)
    return None if on is None else lambda device: wrap(on(device))


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
    uncertainty : bool
        Whether to ask for that, too, of a denoiser that has it.

    Attributes
    ----------
    quantities : tuple of str
        What is made of each slab.
    """

    def __init__(self, denoiser: Denoiser, uncertainty: bool = True) -> None:
        self._denoiser = denoiser
        both = uncertainty and has_uncertainty(denoiser)
        self.quantities = (DENOISED, UNCERTAINTY) if both else (DENOISED,)
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

    def take(self) -> dict[str, torch.Tensor]:
        """Denoise the slab that has waited longest; it is gone from here even where that fails.

        Returns
        -------
        dict of str to torch.Tensor, float32, shape (slice, y, x)
            The `quantities`, in 1/pixel.

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
        context = () if self._half == 0 else ((first - begin, end - last),)
        if UNCERTAINTY in self.quantities and has_uncertainty(self._denoiser):
            made = self._denoiser.with_uncertainty(slices, *context)
            return dict(zip(self.quantities, made, strict=True))
        return {DENOISED: self._denoiser(slices, *context)}
