"""A sample in a beam: from a phantom to the frames that a detector would record.

Enters: a phantom or line integrals. Leaves: uint16 projections, darks and flats with the noise of
photon counting, and the truth that a reconstruction of them should find.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import torch

from ..errors import ConfigurationError
from ..geometry import ScanGeometry
from .kernel import slice_origin
from .phantoms import make_phantom
from .project import Projector

_FULL_WELL = 50_000  # counts in a flat of full dose at most: a bright spot still fits in uint16
_FLAT_VARIATION = 0.1


@dataclass(frozen=True)
class Beam:
    """Photon counting after Beer and Lambert.

    A frame is ``gain * (Poisson(photons * dose * flat * exp(-line integral) + dark) + N(0,
    electronic))``, rounded. Every call draws fresh noise from one stream, so that the same seed
    and the same calls give the same frames.

    Parameters
    ----------
    photons : float
        Photons a pixel and projection of the open beam at full dose. 5.5e4 suits a detector of
        256 columns: it reproduces the effective counts of a real scan at APS and the published
        image quality at a quarter of the dose.
    dose : float
        Fraction of the full exposure, of the projections and of the flats.
    dark : float
        Mean dark signal in electrons.
    electronic : float
        Standard deviation of the readout noise in electrons.
    seed : int
        Of the noise, and of the smooth unevenness of the beam.
    """

    photons: float = 5.5e4
    dose: float = 1.0
    dark: float = 100.0
    electronic: float = 3.0
    seed: int = 0
    _noise: np.random.Generator = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not (self.photons > 0 and self.dose > 0 and self.dark >= 0 and self.electronic >= 0):
            raise ConfigurationError(
                "a beam needs positive photons and dose, and no negative noise; got "
                f"photons={self.photons}, dose={self.dose}, dark={self.dark}, "
                f"electronic={self.electronic}"
            )
        object.__setattr__(self, "_noise", np.random.default_rng([self.seed, 1]))

    @property
    def gain(self) -> float:
        """Counts an electron: 1, or less where the open beam would saturate the detector."""
        return min(1.0, _FULL_WELL / (self.photons * max(self.dose, 1.0)))

    def profile(self, shape: tuple[int, int]) -> np.ndarray:
        """The beam's smooth unevenness, around 1: float64 (row, column)."""
        rng = np.random.default_rng([self.seed, 2])
        row, column = (np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape)
        waves = sum(
            math.cos(phase) * np.cos(math.pi * (a * row[:, None] + b * column) + phase)
            for a, b, phase in rng.uniform(-2, 2, (4, 3))
        )
        return 1 + _FLAT_VARIATION * waves / 4

    def projections(self, line_integrals: np.ndarray) -> np.ndarray:
        """Frames with the sample in the beam: (..., row, column) line integrals to uint16."""
        line_integrals = np.asarray(line_integrals, dtype=np.float64)
        return self._frames(np.exp(-line_integrals) * self.profile(line_integrals.shape[-2:]))

    def flats(self, n: int, shape: tuple[int, int]) -> np.ndarray:
        """Frames without the sample: uint16 (n, row, column)."""
        return self._frames(np.broadcast_to(self.profile(shape), (n, *shape)))

    def darks(self, n: int, shape: tuple[int, int]) -> np.ndarray:
        """Frames without the beam: uint16 (n, row, column)."""
        return self._frames(np.zeros((n, *shape)))

    def counts(self, intensity: np.ndarray, noise: np.random.Generator) -> np.ndarray:
        """Frames with noise from a generator of the caller's: uint16, of the intensity's shape.

        The intensity is relative to the open beam's mean: 0 is a dark.
        """
        electrons = noise.poisson(self.photons * self.dose * intensity + self.dark)
        readout = noise.normal(0.0, self.electronic, intensity.shape)
        return np.clip(np.rint(self.gain * (electrons + readout)), 0, 65535).astype(np.uint16)

    def _frames(self, intensity: np.ndarray) -> np.ndarray:
        return self.counts(intensity, self._noise)


def line_integrals(
    phantom: np.ndarray, geometry: ScanGeometry, largest: float = 2.0
) -> tuple[np.ndarray, np.ndarray]:
    """Line integrals of a phantom of twice the detector's resolution.

    The finer phantom is projected on a finer detector, whose pixels are then averaged in pairs:
    so the detector integrates over its pixels, and a reconstruction on the coarse grid does not
    simply undo the projection.

    Parameters
    ----------
    phantom : array, shape (row, 2 * n_columns, 2 * n_columns)
        Relative attenuation.
    geometry : ScanGeometry
        Of the detector as it is.
    largest : float
        The phantom is scaled so that this is its largest line integral.

    Returns
    -------
    integrals : array of float32, shape (row, angle, column)
    truth : array of float32, shape (row, n_columns, n_columns)
        The scaled phantom in 1/pixel, averaged over the pixels of the reconstruction.
    """
    n = geometry.n_columns
    if phantom.ndim != 3 or phantom.shape[1:] != (2 * n, 2 * n):
        raise ConfigurationError(
            f"phantom: expected (row, {2 * n}, {2 * n}), twice the detector's {n} columns; got "
            f"{phantom.shape}"
        )
    # Column c of the detector is the columns 2c and 2c + 1 of the finer one.
    finer = Projector(ScanGeometry(geometry.theta, 2 * geometry.rotation_centre + 0.5, 2 * n))
    sums = finer(torch.from_numpy(phantom)).numpy()
    integrals = sums.reshape(*sums.shape[:2], n, 2).mean(-1)
    scale = largest / integrals.max()
    truth = phantom
    for axis, (fine, coarse) in enumerate(zip(finer.origin, slice_origin(n), strict=True), start=1):
        truth = _mean_over_wide_pixels(truth, axis, first=fine - 2 * coarse)
    # A fine pixel is half as wide: sums over fine pixels count each 1/pixel twice.
    return integrals * scale, truth * (2 * scale)


def volume_line_integrals(
    volume: np.ndarray, geometry: ScanGeometry, largest: float = 2.0
) -> tuple[np.ndarray, np.ndarray]:
    """Line integrals of a volume of twice the detector's resolution, in height too.

    A row of the detector integrates over two slices of the volume, so that neighbouring rows are as
    far apart as neighbouring columns.

    Parameters
    ----------
    volume : array, shape (2 * row, 2 * n_columns, 2 * n_columns)
        Relative attenuation, in voxels of one size.
    geometry, largest
        As for `line_integrals`; before rows are averaged.

    Returns
    -------
    integrals : array of float32, shape (row, angle, column)
    truth : array of float32, shape (row, n_columns, n_columns)
        In 1/pixel.

    Raises
    ------
    ConfigurationError
        An odd number of slices, or slices of another size.
    """
    if len(volume) % 2:
        raise ConfigurationError(f"volume: expected two slices a row, got {len(volume)}")
    integrals, truth = line_integrals(volume, geometry, largest)
    return _mean_of_pairs(integrals), _mean_of_pairs(truth)


def _mean_of_pairs(slices: np.ndarray) -> np.ndarray:
    return slices.reshape(-1, 2, *slices.shape[1:]).mean(1)


def _mean_over_wide_pixels(image: np.ndarray, axis: int, first: int) -> np.ndarray:
    """Means over pixels of twice the width, the first of them centred on pixel `first`."""
    image = np.moveaxis(image, axis, -1)
    n = image.shape[-1]
    padded = np.pad(image, [(0, 0)] * (image.ndim - 1) + [(2, 3)])
    left, middle, right = (padded[..., first + s : first + s + n : 2] for s in (1, 2, 3))
    return np.moveaxis(left / 4 + middle / 2 + right / 4, -1, axis)


@dataclass(frozen=True, eq=False)
class SimulatedScan:
    """What a scan of a simulated sample records, and what it should find."""

    projections: np.ndarray
    """uint16 (angle, row, column)"""
    darks: np.ndarray
    """uint16 (frame, row, column)"""
    flats: np.ndarray
    """uint16 (frame, row, column)"""
    geometry: ScanGeometry
    truth: np.ndarray
    """float32 (slice, y, x) in 1/pixel"""


def simulate_scan(
    family: str,
    size: int,
    n_angles: int,
    beam: Beam,
    rows: int = 1,
    n_references: int = 20,
    rotation_centre: float | None = None,
    seed: int = 0,
) -> SimulatedScan:
    """Scan a phantom over a half turn.

    Parameters
    ----------
    family : str
        Of `phantoms.make_phantom`; drawn from ``seed``.
    size, rows : int
        Columns and rows of the detector.
    n_angles : int
        Projections, evenly over [0, π).
    beam : Beam
    n_references : int
        Number of darks and of flats.
    rotation_centre : float, optional
        Detector column of the axis; None: the middle, ``(size - 1) / 2``.
    seed : int
        Of the sample alone; the noise has the beam's.
    """
    centre = (size - 1) / 2 if rotation_centre is None else rotation_centre
    geometry = ScanGeometry(np.arange(n_angles) * (np.pi / n_angles), centre, size)
    phantom = make_phantom(family, 2 * size, np.random.default_rng(seed), rows)
    integrals, truth = line_integrals(phantom, geometry)
    return SimulatedScan(
        projections=beam.projections(integrals.transpose(1, 0, 2)),
        darks=beam.darks(n_references, (rows, size)),
        flats=beam.flats(n_references, (rows, size)),
        geometry=geometry,
        truth=truth,
    )
