"""Batches of augmented crops.

Enter: pairs of noisy slices and targets, and a random generator. Leave: `Batch`es. Each process of
a distributed training draws the places of the whole batch, and cuts out its own share.
"""

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch

from ..errors import TrainingError
from .pairs import Pairs
from .settings import TrainingConfig

_MARGIN = 0.06  # of the width, at the borders, where no crops are taken: nothing is there


@dataclass(frozen=True, eq=False)
class Batch:
    """Crops and what is known about them.

    Attributes
    ----------
    noisy : torch.Tensor, float32, shape (N, depth, y, x)
        In 1/pixel.
    target : torch.Tensor, float32, shape (N, 1, y, x)
        In 1/pixel; of the middle slice.
    noise : torch.Tensor, float32, shape (N,)
        Of the middle slice, in 1/pixel.
    contrast : torch.Tensor, float32, shape (N,)
        Attenuation of the sample's dense matter, in 1/pixel.
    """

    noisy: torch.Tensor
    target: torch.Tensor
    noise: torch.Tensor
    contrast: torch.Tensor

    def to(self, device: str | torch.device) -> Self:
        """The same on another device, the slices laid out as convolutions like them."""
        noisy, *rest = (t.to(device, non_blocking=True) for t in self.tensors())
        return type(self)(noisy.contiguous(memory_format=torch.channels_last), *rest)

    def tensors(self) -> tuple[torch.Tensor, ...]:
        """All of it, in order."""
        return self.noisy, self.target, self.noise, self.contrast

    def relative(self, image: torch.Tensor) -> torch.Tensor:
        """Slices of this batch in units of their sample's contrast: of order one."""
        return image / self.contrast.view(-1, 1, 1, 1)


@dataclass(frozen=True)
class _Place:
    group: int
    slice_: int
    realisation: int
    window: tuple[slice, slice]
    turns: int
    mirrored: bool


class Crops:
    """Draws batches from pairs.

    Parameters
    ----------
    pairs : sequence of Pairs
        One entry a size; a slice is drawn from all of them alike.
    config : TrainingConfig
    rank : int
        Which share of each batch is cut out.

    Raises
    ------
    TrainingError
        No slices, slices smaller than the crops, or no slices with neighbours where the network
        takes several. (Some without are welcome: it sees them repeated, as it will see scans of one
        row.)
    """

    def __init__(self, pairs: Sequence[Pairs], config: TrainingConfig, rank: int = 0) -> None:
        self._pairs, self._config, self._rank = pairs, config, rank
        self._slices = [(g, i) for g, group in enumerate(pairs) for i in range(len(group))]
        if not self._slices:
            raise TrainingError("there are no pairs to learn from")
        smallest = min(min(group.target.shape[1:]) for group in pairs)
        if smallest < config.crop:
            raise TrainingError(
                f"expected slices of at least {config.crop} pixels, the width of the crops; got "
                f"{smallest}: lower `crop`"
            )
        if config.depth > 1 and all(group.volume is None for group in pairs):
            raise TrainingError(
                f"a network of {config.depth} adjacent slices learns from volumes, but these pairs "
                "are of single slices; take scans of several rows, or depth=1"
            )

    def __len__(self) -> int:
        """Slices to draw from."""
        return len(self._slices)

    def draw(self, rng: np.random.Generator) -> Batch:
        """This process's share of the next batch."""
        places = [self._place(rng) for _ in range(self._config.batch)]
        mine = places[self._rank :: self._config.processes]
        columns = zip(*map(self._cut, mine), strict=True)
        return Batch(*(torch.stack(column) for column in columns))

    def batches(self, rng: np.random.Generator, ahead: bool) -> Generator[Batch, None, None]:
        """Batches without end; close it.

        Parameters
        ----------
        rng : numpy.random.Generator
            Its state is always the one after the last batch that was taken.
        ahead : bool
            Whether the next batch is cut out in a thread while the last one is learned from: worth
            it where a GPU learns, and in the way where the processor does. It changes no batch.
        """
        if not ahead:
            while True:
                yield self.draw(rng)
        first = deepcopy(rng)
        with ThreadPoolExecutor(1, thread_name_prefix="tomogan-crops") as pool:
            waiting = pool.submit(self._draw_pinned, first)
            while True:
                batch, state = waiting.result()
                waiting = pool.submit(self._draw_pinned, first)
                rng.bit_generator.state = state
                yield batch

    def _draw_pinned(self, rng: np.random.Generator) -> tuple[Batch, Any]:
        """A batch where a GPU can fetch it from, and the random state after it."""
        batch = self.draw(rng)
        if torch.cuda.is_available():
            batch = Batch(*(t.pin_memory() for t in batch.tensors()))
        return batch, rng.bit_generator.state

    def _place(self, rng: np.random.Generator) -> _Place:
        group, i = self._slices[rng.integers(len(self._slices))]
        pairs = self._pairs[group]
        realisation = int(rng.integers(pairs.noisy.shape[1]))
        y, x = (self._window(n, rng) for n in pairs.target.shape[1:])
        return _Place(group, i, realisation, (y, x), int(rng.integers(4)), bool(rng.integers(2)))

    def _window(self, n: int, rng: np.random.Generator) -> slice:
        crop = self._config.crop
        margin = min(int(_MARGIN * n), (n - crop) // 2)
        first = int(rng.integers(margin, n - crop - margin + 1))
        return slice(first, first + crop)

    def _cut(self, place: _Place) -> tuple[torch.Tensor, ...]:
        pairs, i, j = self._pairs[place.group], place.slice_, place.realisation
        noisy = [pairs.noisy[k, j][place.window] for k in pairs.neighbours(i, self._config.depth)]
        crops = []
        for stack in (torch.stack(noisy), pairs.target[i][place.window][None]):
            turned = torch.rot90(stack, place.turns, (1, 2))
            crops.append(turned.flip(1) if place.mirrored else turned)
        return (*crops, pairs.noise[i, j], pairs.contrast[i])
