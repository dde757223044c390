"""Simulated samples: what a scan would look at, known exactly.

Enters: a family's name, a size and a random generator. Leaves: slices ``(row, y, x)`` of a sample
inside the circle that all projections see. Five families serve for training. `HELD_OUT_FAMILY`, a
rolled battery, is for demonstrations and tests: no model of ours is ever trained on it.
"""

from collections.abc import Callable

import numpy as np

from ..errors import ConfigurationError

FIELD_RADIUS = 0.9  # of half the image's width: the sample is inside, with air all around
SUPERSAMPLING = 2  # each pixel is the mean of 2 x 2 point samples, so that edges are not jagged

Array = np.ndarray


def make_phantom(family: str, size: int, rng: np.random.Generator, rows: int = 1) -> Array:
    """Draw a sample of a family.

    Parameters
    ----------
    family : str
        One of `TRAINING_FAMILIES`, or `HELD_OUT_FAMILY`.
    size : int
        Width and height of a slice in pixels. The sample is centred on ``(size - 1) / 2``.
    rng : numpy.random.Generator
        The same state and arguments give the same sample.
    rows : int
        Number of slices. Those of `HELD_OUT_FAMILY` are neighbours, one pixel apart, in one
        three-dimensional object; those of the training families are independent draws.

    Returns
    -------
    array of float32, shape (row, y, x)
        Attenuation relative to a typical material of the sample, in [0, 1.8]; zero outside the
        circle of `FIELD_RADIUS`.

    Raises
    ------
    ConfigurationError
        An unknown family, a size below 8 or no rows.
    """
    if family not in _SLICES and family != HELD_OUT_FAMILY:
        known = ", ".join((*TRAINING_FAMILIES, HELD_OUT_FAMILY))
        raise ConfigurationError(f"family: expected one of {known}; got {family!r}")
    if size < 8 or rows < 1:
        raise ConfigurationError(
            f"expected a phantom of at least 8 pixels and 1 row, got size={size}, rows={rows}"
        )
    grid = Grid(size * SUPERSAMPLING)
    if family == HELD_OUT_FAMILY:
        slices = _battery(grid, rng, rows)
    else:
        slices = np.stack([_SLICES[family](grid, rng) for _ in range(rows)])
    slices = np.clip(slices, 0.0, 1.8)
    split = (rows, size, SUPERSAMPLING, size, SUPERSAMPLING)
    return slices.reshape(split).mean((2, 4), dtype=np.float32)


class Grid:
    """Pixel centres in units of half the image's width, and the tools that draw on them."""

    def __init__(self, n: int) -> None:
        self.n = n
        axis = ((np.arange(n) + 0.5) * 2 / n - 1).astype(np.float32)
        self.y, self.x = np.meshgrid(axis, axis, indexing="ij")

    def disc(self, radius: float) -> Array:
        return self.x**2 + self.y**2 < radius**2

    def ellipse(
        self,
        image: Array,
        centre: tuple[float, float],
        radius: float,
        value: float,
        elongation: float = 1.0,
        angle: float = 0.0,
    ) -> None:
        """Set the pixels of an ellipse with half axes ``radius`` and ``radius / elongation``."""
        cx, cy = centre
        rows, columns = (self._window(c, radius) for c in (cy, cx))
        x, y = self.x[rows, columns] - np.float32(cx), self.y[rows, columns] - np.float32(cy)
        if elongation != 1.0:
            cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
            x, y = x * cos + y * sin, (y * cos - x * sin) * np.float32(elongation)
        image[rows, columns][x * x + y * y < radius * radius] = value

    def _window(self, centre: float, radius: float) -> slice:
        first, last = ((centre + side * radius + 1) * self.n / 2 for side in (-1, 1))
        return slice(max(0, int(first) - 1), min(self.n, int(last) + 2))

    def texture(
        self, rng: np.random.Generator, exponent: float, highest: float, lowest: float = 0.0
    ) -> Array:
        """Gaussian random field of unit variance, power spectrum f^-exponent inside a band.

        Frequencies are in cycles a pixel of the finished image.
        """
        frequency = np.hypot(*self._frequencies())
        frequency[0, 0] = 1.0
        band = (frequency > lowest) & (frequency < highest)
        band[0, 0] = False
        return self._filtered(rng, frequency ** (-exponent / 2) * band)

    def streaks(self, rng: np.random.Generator, across: float, along: float) -> Array:
        """Gaussian random field of unit variance, elongated in a random direction (pixels)."""
        angle = rng.uniform(0, np.pi)
        fy, fx = self._frequencies()
        u, v = fx * np.cos(angle) + fy * np.sin(angle), fy * np.cos(angle) - fx * np.sin(angle)
        return self._filtered(rng, np.exp(-2 * np.pi**2 * ((across * u) ** 2 + (along * v) ** 2)))

    def _frequencies(self) -> tuple[Array, Array]:
        n, pixel = self.n, 1 / SUPERSAMPLING
        fy, fx = np.fft.fftfreq(n, pixel), np.fft.rfftfreq(n, pixel)
        return fy.astype(np.float32)[:, None], fx.astype(np.float32)[None, :]

    def _filtered(self, rng: np.random.Generator, amplitude: Array) -> Array:
        white = rng.standard_normal((self.n, self.n), dtype=np.float32)
        field = np.fft.irfft2(np.fft.rfft2(white) * amplitude, (self.n, self.n))
        return (field / field.std()).astype(np.float32)

    def cells(self, rng: np.random.Generator, across: int) -> tuple[Array, Array]:
        """Voronoi cells of one random seed in each square of a lattice.

        Returns the cell's number at each pixel, in [0, (across + 2)²), and the distance to the
        next cell's seed minus that to its own, which is small along the boundaries. Only the 3 x 3
        nearest squares are looked at, which is what makes it quick.
        """
        pitch, side = 2 / across, across + 2  # one square more on each side
        seeds = (np.indices((side, side)) - 1 + rng.uniform(0, 1, (2, side, side))) * pitch - 1
        seed_y, seed_x = seeds.reshape(2, -1).astype(np.float32)
        home_y, home_x = (((v + 1) / pitch).astype(np.int32) + 1 for v in (self.y, self.x))
        nearest = np.full(self.x.shape, np.inf, np.float32)
        second, label = nearest.copy(), np.zeros(self.x.shape, np.int32)
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                other = (home_y + dy) * side + home_x + dx
                distance = np.hypot(self.x - seed_x[other], self.y - seed_y[other])
                closer = distance < nearest
                second = np.minimum(second, np.where(closer, nearest, distance))
                label[closer] = other[closer]
                nearest = np.minimum(nearest, distance)
        return label, second - nearest


def _in_disc(rng: np.random.Generator, radius: float) -> tuple[float, float]:
    distance, angle = radius * np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
    return distance * np.cos(angle), distance * np.sin(angle)


def _packed(
    rng: np.random.Generator, radii: Array, inside: float, gap: float
) -> list[tuple[float, float, float]]:
    """Random sequential placement: each radius is tried once and kept if it touches nothing."""
    placed = np.empty((len(radii), 3))
    count = 0
    for radius in radii:
        x, y = _in_disc(rng, max(inside - radius, 0.0))
        px, py, pr = placed[:count].T
        if ((px - x) ** 2 + (py - y) ** 2 > (pr + radius + gap) ** 2).all():
            placed[count] = x, y, radius
            count += 1
    return [(x, y, r) for x, y, r in placed[:count]]


def _body_radius(rng: np.random.Generator) -> float:
    return rng.uniform(0.75, FIELD_RADIUS)


def _foam(grid: Grid, rng: np.random.Generator) -> Array:
    """A solid full of round bubbles of all sizes."""
    body = _body_radius(rng)
    image = grid.disc(body).astype(np.float32)
    largest = rng.uniform(0.06, 0.16)
    radii = np.sort(np.exp(rng.uniform(np.log(0.012), np.log(largest), 1500)))[::-1]
    for x, y, radius in _packed(rng, radii, body - 0.02, rng.uniform(0.0, 0.006)):
        grid.ellipse(image, (x, y), radius, 0.0)
    return image


def _shale(grid: Grid, rng: np.random.Generator) -> Array:
    """Overlapping grains of little contrast, pores, a few dense inclusions, often textured."""
    body = _body_radius(rng)
    image = grid.disc(body).astype(np.float32)
    values, weights = [0.7, 0.8, 0.9, 1.1, 1.2, 0.2, 1.6], [0.2, 0.2, 0.2, 0.15, 0.1, 0.12, 0.03]
    coarseness = rng.uniform(0.5, 1.0)
    for _ in range(int(250 / coarseness**2)):
        radius = coarseness * float(np.exp(rng.uniform(np.log(0.02), np.log(0.12))))
        value = float(rng.choice(values, p=weights))
        place = _in_disc(rng, body - radius)
        grid.ellipse(image, place, radius, value, rng.uniform(1, 4), rng.uniform(0, np.pi))
    if rng.uniform() < 0.5:
        strength = np.float32(rng.uniform(0.02, 0.06))
        image *= 1 + strength * np.clip(grid.texture(rng, 1.5, 0.15), -3, 3)
    return image


def _spheres(grid: Grid, rng: np.random.Generator) -> Array:
    """Glass spheres in air, cracked."""
    body = _body_radius(rng)
    image = np.zeros_like(grid.x)
    smallest = rng.uniform(0.02, 0.05)
    for x, y, radius in _packed(rng, rng.uniform(smallest, 0.13, 700), body, 0.0):
        grid.ellipse(image, (x, y), radius, rng.uniform(0.8, 1.1))
        for _ in range(rng.integers(0, 3)):
            place = x + rng.uniform(-0.4, 0.4) * radius, y + rng.uniform(-0.4, 0.4) * radius
            size = radius * rng.uniform(0.05, 0.3)
            grid.ellipse(image, place, size, 0.0, rng.uniform(1, 6), rng.uniform(0, np.pi))
    return image


def _grains(grid: Grid, rng: np.random.Generator) -> Array:
    """A polycrystal: grains with values and textures of their own, boundaries, pores."""
    highest = rng.uniform(0.06, 0.2)
    label, gap = grid.cells(rng, int(rng.integers(5, 13)))
    count = int(label.max()) + 1
    value = rng.uniform(0.7, 1.2, count).astype(np.float32)
    strength = rng.choice([0.0, 0.04, 0.08, 0.12], count).astype(np.float32)
    round_texture = grid.texture(rng, rng.uniform(1, 2.5), highest)
    long_texture = grid.streaks(rng, rng.uniform(1, 2), rng.uniform(3, 8))
    is_round = rng.uniform(size=count) < 0.5
    image = value[label] + strength[label] * np.where(is_round[label], round_texture, long_texture)
    if rng.uniform() < 0.6:
        image[gap < rng.uniform(0.005, 0.015)] = rng.uniform(0.1, 0.6)
    image[grid.texture(rng, 3.0, highest) > rng.uniform(1.6, 2.4)] = 0.1
    image *= grid.disc(_body_radius(rng))
    return image


def _fibres(grid: Grid, rng: np.random.Generator) -> Array:
    """Porous tissue: two phases that run through each other, fibres, a few dense particles."""
    body, highest = _body_radius(rng), rng.uniform(0.06, 0.2)
    phase = grid.texture(rng, rng.uniform(2.5, 3.5), highest) > rng.uniform(-0.4, 0.6)
    dense, thin = np.float32(rng.uniform(0.8, 1.1)), np.float32(rng.uniform(0.1, 0.6))
    image = np.where(phase, dense, thin)
    image += np.float32(rng.uniform(0.02, 0.1)) * grid.texture(rng, rng.uniform(1, 2), highest)
    for slope, axis in zip(rng.uniform(-0.1, 0.1, 2), (grid.x, grid.y), strict=True):
        image += np.float32(slope) * axis
    for _ in range(rng.integers(0, 60)):
        angle, offset = rng.uniform(0, np.pi), rng.uniform(-body, body)
        distance = grid.x * np.float32(np.cos(angle)) + grid.y * np.float32(np.sin(angle))
        image[np.abs(distance - np.float32(offset)) < rng.uniform(0.004, 0.012)] = rng.uniform(
            0.6, 1.5
        )
    for _ in range(rng.integers(0, 8)):
        grid.ellipse(image, _in_disc(rng, 0.8), rng.uniform(0.01, 0.04), 1.6)
    image *= grid.disc(body)
    return image


# Layers of the rolled battery from the inside to the outside of one turn, as fractions of it.
_ALUMINIUM, _CATHODE, _SEPARATOR, _ANODE, _COPPER = 0.07, 0.45, 0.53, 0.83, 0.91


def _battery(grid: Grid, rng: np.random.Generator, rows: int) -> Array:
    """A rolled cell: foils, a cathode of cracked particles in binder, a graphite anode, a can."""
    pitch, inner, outer = rng.uniform(0.19, 0.22), 0.15, 0.82
    dents = rng.uniform(-0.015, 0.015, 3), rng.uniform(0, 2 * np.pi, 3)
    pixel = 2 * SUPERSAMPLING / grid.n
    heights = (np.arange(rows) - (rows - 1) / 2) * pixel

    def dent(angle: Array | float, height: float) -> Array:
        """Relative displacement of the roll, which turns slowly with height."""
        waves = [
            a * np.cos(k * angle + p + height) for k, a, p in zip((2, 3, 5), *dents, strict=True)
        ]
        return 1 + np.sum(waves, axis=0)

    radius, angle = np.hypot(grid.x, grid.y), np.arctan2(grid.y, grid.x)
    graphite = 0.45 + 0.05 * grid.streaks(rng, 1.0, 4.0) + 0.04 * grid.texture(rng, 2.0, 0.15)
    volume = np.zeros((rows, grid.n, grid.n), np.float32)
    for image, height in zip(volume, heights, strict=True):
        turn = (radius / dent(angle, height) - inner) / pitch - angle / (2 * np.pi)
        layer = turn - np.floor(turn)
        edges = [_ALUMINIUM, _CATHODE, _SEPARATOR, _ANODE, _COPPER]
        material = np.digitize(layer, edges)
        image[:] = np.choose(material, [0.8, 0.6, 0.25, graphite, 1.15, 0.25])
        image[(radius < inner) | (radius > outer)] = 0.0
        image[(radius > 0.845) & (radius < 0.88)] = 0.8
        image[(radius > 0.07) & (radius < 0.1)] = 0.7
    for particle in _cathode_particles(rng, pitch, inner, outer, heights):
        _draw_particle(grid, volume, heights, particle, dent)
    return volume


def _cathode_particles(
    rng: np.random.Generator, pitch: float, inner: float, outer: float, heights: Array
) -> list[tuple[float, ...]]:
    """Spheres (radius from the axis, angle, height, own radius, value, crack angle, crack width)
    spread evenly over the volume of the cathode."""
    margin = 0.024
    bottom, top = heights[0] - margin, heights[-1] + margin
    volume = np.pi * (outer**2 - inner**2) * (_CATHODE - _ALUMINIUM) * (top - bottom)
    count = int(0.8 * volume / (4 / 3 * np.pi * 0.0175**3))
    own = rng.uniform(0.01, 0.024, count)
    angle = rng.uniform(-np.pi, np.pi, count)
    turn = np.floor(np.sqrt(rng.uniform(0, 1, count)) * (outer - inner) / pitch)
    edge = own / pitch
    layer = rng.uniform(_ALUMINIUM + edge, _CATHODE - edge)
    distance = inner + pitch * (turn + layer + angle / (2 * np.pi))
    cracked = np.where(rng.uniform(size=count) < 0.4, rng.uniform(0.002, 0.004, count), 0.0)
    columns = (
        distance,
        angle,
        rng.uniform(bottom, top, count),
        own,
        rng.uniform(0.85, 1.1, count),
        rng.uniform(0, np.pi, count),
        cracked,
    )
    inside = (distance > inner + 0.02) & (distance < outer - 0.02)
    return list(zip(*(c[inside].tolist() for c in columns), strict=True))


def _draw_particle(
    grid: Grid,
    volume: Array,
    heights: Array,
    particle: tuple[float, ...],
    dent: Callable[[float, float], Array],
) -> None:
    distance, angle, height, own, value, crack_angle, crack = particle
    for row in np.flatnonzero(np.abs(heights - height) < own):
        level = float(heights[row])
        radius = float(np.sqrt(own**2 - (level - height) ** 2))
        place = distance * float(dent(angle, level))
        centre = place * float(np.cos(angle)), place * float(np.sin(angle))
        grid.ellipse(volume[row], centre, radius, value)
        if crack:
            grid.ellipse(volume[row], centre, 0.8 * radius, 0.4, 0.8 * radius / crack, crack_angle)


_SLICES: dict[str, Callable[[Grid, np.random.Generator], Array]] = {
    "foam": _foam,
    "shale": _shale,
    "spheres": _spheres,
    "grains": _grains,
    "fibres": _fibres,
}
TRAINING_FAMILIES: tuple[str, ...] = tuple(_SLICES)
HELD_OUT_FAMILY = "battery"
