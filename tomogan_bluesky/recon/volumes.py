"""Simulated samples in three dimensions, for networks that look at adjacent slices.

Enters: a family's name, a size, a number of rows and a random generator. Leaves: slices
``(row, y, x)`` of one object, one pixel apart, that change from one to the next as real ones do.
"""

from collections.abc import Callable, Iterator

import numpy as np

from ..errors import ConfigurationError
from .phantoms import FIELD_RADIUS, SUPERSAMPLING, Array, Grid


def make_volume(family: str, size: int, rng: np.random.Generator, rows: int) -> Array:
    """Draw a sample of a family.

    Parameters
    ----------
    family : str
        One of `VOLUME_FAMILIES`.
    size : int
        Width and height of a slice in pixels, which are also one pixel apart.
    rng : numpy.random.Generator
        The same state and arguments give the same sample.
    rows : int
        Number of slices.

    Returns
    -------
    array of float32, shape (row, y, x)
        As `phantoms.make_phantom` gives it.

    Raises
    ------
    ConfigurationError
        An unknown family, a size below 8 or no rows.
    """
    if family not in _VOLUMES:
        raise ConfigurationError(
            f"family: expected one of {', '.join(VOLUME_FAMILIES)}; got {family!r}"
        )
    if size < 8 or rows < 1:
        raise ConfigurationError(
            f"expected a volume of at least 8 pixels and 1 row, got size={size}, rows={rows}"
        )
    grid = Grid(size * SUPERSAMPLING)
    heights = (np.arange(rows) - (rows - 1) / 2) * 2 / size  # in half widths of the image
    volume = np.clip(_VOLUMES[family](grid, heights, rng), 0.0, 1.8)
    split = (rows, size, SUPERSAMPLING, size, SUPERSAMPLING)
    return volume.reshape(split).mean((2, 4), dtype=np.float32)


def _body(grid: Grid, heights: Array, rng: np.random.Generator) -> tuple[Array, float]:
    """A cylinder, and its radius."""
    radius = rng.uniform(0.75, FIELD_RADIUS)
    return np.repeat(grid.disc(radius).astype(np.float32)[None], len(heights), 0), radius


def _packed_balls(
    rng: np.random.Generator, radii: Array, heights: Array, inside: float
) -> Iterator[tuple[float, float, float, float]]:
    """Random sequential placement: (x, y, height, radius) of balls that do not touch."""
    placed = np.empty((len(radii), 4))
    count = 0
    for radius in radii:
        distance = max(inside - radius, 0.0) * np.sqrt(rng.uniform())
        angle = rng.uniform(0, 2 * np.pi)
        ball = np.array(
            [
                distance * np.cos(angle),
                distance * np.sin(angle),
                rng.uniform(heights[0] - radius, heights[-1] + radius),
                radius,
            ]
        )
        others = placed[:count]
        if (((others - ball)[:, :3] ** 2).sum(1) > (others[:, 3] + radius) ** 2).all():
            placed[count] = ball
            count += 1
            yield tuple(ball)


def _draw_ellipsoid(
    grid: Grid,
    volume: Array,
    heights: Array,
    ball: tuple[float, float, float, float],
    value: float,
    elongation: float = 1.0,
    angle: float = 0.0,
) -> None:
    """Set the voxels of a ball, or of one that is flattened along one direction in the slice."""
    x, y, height, radius = ball
    for row in np.flatnonzero(np.abs(heights - height) < radius):
        across = float(np.sqrt(radius**2 - (heights[row] - height) ** 2))
        grid.ellipse(volume[row], (x, y), across, value, elongation, angle)


def _texture(
    grid: Grid, rng: np.random.Generator, rows: int, exponent: float, highest: float, along: float
) -> Array:
    """Gaussian random field of unit variance: in the slice as `Grid.texture`; over height it
    changes within about `along` rows."""
    reach = int(np.ceil(2 * along))
    field = np.zeros((rows, grid.n, grid.n), np.float32)
    for layer in range(-reach, rows + reach):
        weights = np.exp(-((np.arange(rows) - layer) ** 2) / (2 * along**2)).astype(np.float32)
        image = grid.texture(rng, exponent, highest)
        for row in np.flatnonzero(weights > 0.1):
            field[row] += weights[row] * image
    return field / field.std((1, 2), keepdims=True)


def _foam(grid: Grid, heights: Array, rng: np.random.Generator) -> Array:
    """A solid full of round bubbles of all sizes."""
    volume, radius = _body(grid, heights, rng)
    radii = np.exp(rng.uniform(np.log(0.012), np.log(rng.uniform(0.06, 0.16)), 2500))
    for ball in _packed_balls(rng, np.sort(radii)[::-1], heights, radius - 0.02):
        _draw_ellipsoid(grid, volume, heights, ball, 0.0)
    return volume


def _spheres(grid: Grid, heights: Array, rng: np.random.Generator) -> Array:
    """Glass spheres in air, of several densities."""
    volume, radius = _body(grid, heights, rng)
    volume[:] = 0.0
    radii = rng.uniform(rng.uniform(0.02, 0.05), 0.13, 1500)
    for ball in _packed_balls(rng, radii, heights, radius):
        _draw_ellipsoid(grid, volume, heights, ball, rng.uniform(0.8, 1.1))
    return volume


def _shale(grid: Grid, heights: Array, rng: np.random.Generator) -> Array:
    """Overlapping grains of little contrast, pores, a few dense inclusions, textured."""
    volume, radius = _body(grid, heights, rng)
    values, weights = [0.7, 0.8, 0.9, 1.1, 1.2, 0.2, 1.6], [0.2, 0.2, 0.2, 0.15, 0.1, 0.12, 0.03]
    for _ in range(500):
        own = float(np.exp(rng.uniform(np.log(0.02), np.log(0.1))))
        distance, angle = (radius - own) * np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
        height = rng.uniform(heights[0] - own, heights[-1] + own)
        ball = (distance * np.cos(angle), distance * np.sin(angle), height, own)
        value = float(rng.choice(values, p=weights))
        turn = rng.uniform(0, np.pi)
        _draw_ellipsoid(grid, volume, heights, ball, value, rng.uniform(1, 4), turn)
    strength = np.float32(rng.uniform(0.02, 0.06))
    return volume * (1 + strength * _texture(grid, rng, len(heights), 1.5, 0.15, 2.0))


def _porous(grid: Grid, heights: Array, rng: np.random.Generator) -> Array:
    """Two phases that run through each other, both textured."""
    body, _ = _body(grid, heights, rng)
    rows, highest = len(heights), rng.uniform(0.06, 0.2)
    phase = _texture(grid, rng, rows, rng.uniform(2.5, 3.5), highest, rng.uniform(2, 5))
    dense, thin = np.float32(rng.uniform(0.8, 1.1)), np.float32(rng.uniform(0.1, 0.6))
    volume = np.where(phase > rng.uniform(-0.4, 0.6), dense, thin)
    strength = np.float32(rng.uniform(0.02, 0.1))
    return body * (volume + strength * _texture(grid, rng, rows, 1.5, highest, 2.0))


_VOLUMES: dict[str, Callable[[Grid, Array, np.random.Generator], Array]] = {
    "foam3d": _foam,
    "shale3d": _shale,
    "spheres3d": _spheres,
    "porous3d": _porous,
}
VOLUME_FAMILIES: tuple[str, ...] = tuple(_VOLUMES)
