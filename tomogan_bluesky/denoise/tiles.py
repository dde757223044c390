"""Large images, tile by tile: what the whole would give, in less memory.

Enters: a network, its reach, and an image. Leaves: the network's output for it. Tiles overlap by
more than the network sees, and only what no border of a tile has touched is used.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from ..errors import ConfigurationError

_BLEND = 32  # pixels over which one tile's weight falls and the next one's rises


@dataclass(frozen=True)
class Tiling:
    """How an image is cut for a network.

    Parameters
    ----------
    width : int
        Of a tile, in pixels; images that are not larger are not cut.
    reach : int
        How far the network sees.
    multiple : int
        What its pooling needs: tiles begin at multiples of it, as the pooling of the whole does.

    Raises
    ------
    ConfigurationError
        Tiles that are too narrow for what they overlap.
    """

    width: int
    reach: int
    multiple: int

    def __post_init__(self) -> None:
        smallest = self.overlap + self.blend  # what falls must have risen before
        if self.width < smallest or self.width % self.multiple:
            raise ConfigurationError(
                f"tile: expected a multiple of {self.multiple} of at least {smallest} pixels, for "
                f"a network that sees {self.reach} pixels around each; got {self.width}"
            )

    @property
    def margin(self) -> int:
        """Pixels along a tile's borders that are not used."""
        return -(-self.reach // self.multiple) * self.multiple

    @property
    def blend(self) -> int:
        """Pixels over which one tile takes over from the one before."""
        return -(-_BLEND // self.multiple) * self.multiple

    @property
    def overlap(self) -> int:
        """Pixels that adjacent tiles share: both margins, and where they are blended."""
        return 2 * self.margin + self.blend

    def spans(self, n: int) -> list[tuple[int, int]]:
        """First and last pixel (not included) of the tiles along an axis."""
        step = self.width - self.overlap
        starts = range(0, max(1, n - self.overlap), step)
        return [(start, min(start + self.width, n)) for start in starts]

    def weights(self, span: tuple[int, int], n: int) -> torch.Tensor:
        """A tile's share of the result along an axis: they add up to one.

        0 in the margins, then half a period of a Hann window.
        """
        first, last = span
        weights = torch.ones(last - first)
        blend = self.blend
        rise = torch.sin(torch.pi / 2 * (torch.arange(blend) + 0.5) / blend) ** 2
        if first > 0:
            weights[: self.margin] = 0
            weights[self.margin : self.margin + blend] = rise
        if last < n:
            end = len(weights) - self.margin
            weights[end:] = 0
            weights[end - blend : end] = 1 - rise
        return weights

    def __call__(
        self,
        network: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        x: torch.Tensor,
        noise: torch.Tensor,
    ) -> torch.Tensor:
        """The network's output, (N, depth, H, W) to (N, C, H, W)."""
        height, width = x.shape[2:]
        if max(height, width) <= self.width:
            return network(x, noise)
        out: torch.Tensor | None = None
        for rows, columns in self._tiles(height, width):
            tile = x[:, :, slice(*rows), slice(*columns)]
            found = network(tile.contiguous(memory_format=torch.channels_last), noise)
            across, along = self.weights(rows, height), self.weights(columns, width)
            weight = (across[:, None] * along).to(x.device)
            if out is None:
                out = x.new_zeros((*found.shape[:2], height, width))
            out[:, :, slice(*rows), slice(*columns)] += weight * found
        assert out is not None
        return out

    def _tiles(self, height: int, width: int) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        for rows in self.spans(height):
            for columns in self.spans(width):
                yield rows, columns
