"""Frames of a sample in a beam, each determined by what it shows and not by when it was asked for.

Enter: line integrals, a beam and its imperfections. Leave: uint16 frames. One seed and one index
give one frame, bit for bit, whichever control system takes it; so beamlines that differ in
their documents alone can be held against each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..errors import ConfigurationError
from ..intake.documents import FrameKind
from ..recon.beam import Beam

FULL_EXPOSURE_S = 0.01
_KINDS: dict[FrameKind, int] = {"projection": 0, "dark": 1, "flat": 2}
_SATURATED = 65535
# Second words of the seeds. Beam has the words 1 and 2.
_NOISE, _DETECTOR = 3, 4


@dataclass(frozen=True)
class Imperfections:
    """What is wrong with a beam and a detector; nothing, unless it is asked for.

    Parameters
    ----------
    flat_drift : float
        The beam leans towards one corner of the detector, and is brighter there by this fraction
        at the end of a scan. It leans back during the next one.
    dead_pixels, hot_pixels : float
        Share of the pixels that always read zero, or always full scale.
    ring_gain : float
        Standard deviation of what each pixel gains between the references and the projections,
        which a flat-field correction leaves as rings.
    """

    flat_drift: float = 0.0
    dead_pixels: float = 0.0
    hot_pixels: float = 0.0
    ring_gain: float = 0.0

    def __post_init__(self) -> None:
        if not (
            abs(self.flat_drift) < 1
            and self.dead_pixels >= 0
            and self.hot_pixels >= 0
            and self.dead_pixels + self.hot_pixels <= 1
            and 0 <= self.ring_gain < 0.1
        ):
            raise ConfigurationError(
                "imperfections: expected a drift below 1, shares of pixels that sum to 1 at most, "
                f"and a ring gain below 0.1; got {self}"
            )


class Exposure:
    """Frames of one sample in one beam.

    Parameters
    ----------
    integrals : array, shape (row, angle, column)
        What a detector without noise would measure.
    angles_deg : sequence of float, shape (angle,)
    beam : Beam
    imperfections : Imperfections

    Raises
    ------
    ConfigurationError
        Integrals and angles that do not belong together.
    """

    def __init__(
        self,
        integrals: np.ndarray,
        angles_deg: Sequence[float] | np.ndarray,
        beam: Beam,
        imperfections: Imperfections | None = None,
    ) -> None:
        self.integrals = np.asarray(integrals)
        self.angles_deg = np.asarray(angles_deg, dtype=np.float64)
        if self.integrals.ndim != 3 or self.integrals.shape[1] != len(self.angles_deg):
            raise ConfigurationError(
                f"integrals: expected (row, {len(self.angles_deg)} angles, column), got "
                f"{self.integrals.shape}"
            )
        self.beam = beam
        self.imperfections = imperfections or Imperfections()
        self._index = {round(float(angle), 6): i for i, angle in enumerate(self.angles_deg)}

    @property
    def frame_shape(self) -> tuple[int, int]:
        """(row, column)"""
        return self.integrals.shape[0], self.integrals.shape[2]

    def index_of(self, angle_deg: float) -> int:
        """Number of an angle among those that were simulated.

        Raises
        ------
        ConfigurationError
            It is not among them.
        """
        index = self._index.get(round(float(angle_deg), 6))
        if index is None:
            raise ConfigurationError(
                f"rotation: expected one of the {len(self._index)} angles that this simulation was "
                f"made for, from {self.angles_deg.min():g} to {self.angles_deg.max():g} degrees, "
                f"got {angle_deg:g} degrees"
            )
        return index

    def frame(
        self,
        kind: FrameKind,
        index: int,
        *,
        repeat: int = 0,
        part: int = 0,
        dose: float = 1.0,
        elapsed: float = 0.0,
    ) -> np.ndarray:
        """One frame.

        Parameters
        ----------
        kind : "projection", "dark" or "flat"
        index : int
            Of the angle for projections, else the number of the frame.
        repeat, part : int
            Number of the scan, and of the frame at its angle: what sets two projections of one
            angle apart.
        dose : float
            Exposure as a fraction of the beam's own.
        elapsed : float
            Scans since the beam was new, for its drift.

        Returns
        -------
        uint16 array, shape (row, column)
        """
        if kind == "dark":
            intensity = np.zeros(self.frame_shape)
        else:
            intensity = self._flat * (1 + self._lean(elapsed) * self._corner)
        if kind == "projection":
            attenuation = self.integrals[:, index].astype(np.float64)
            intensity = intensity * self._ring_gain * np.exp(-attenuation)
        noise = np.random.default_rng([self.beam.seed, _NOISE, _KINDS[kind], repeat, index, part])
        counts = replace(self.beam, dose=self.beam.dose * dose).counts(intensity, noise)
        counts[self._broken["dead"]] = 0
        counts[self._broken["hot"]] = _SATURATED
        return counts

    def _lean(self, elapsed: float) -> float:
        return self.imperfections.flat_drift * (1 - abs(1 - elapsed % 2))

    @cached_property
    def _flat(self) -> np.ndarray:
        return self.beam.profile(self.frame_shape)

    @cached_property
    def _corner(self) -> np.ndarray:
        row, column = (np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in self.frame_shape)
        return (row[:, None] + column) / 2

    @cached_property
    def _ring_gain(self) -> np.ndarray:
        rng = np.random.default_rng([self.beam.seed, _DETECTOR, 0])
        return 1 + self.imperfections.ring_gain * rng.standard_normal(self.frame_shape)

    @cached_property
    def _broken(self) -> dict[str, np.ndarray]:
        luck = np.random.default_rng([self.beam.seed, _DETECTOR, 1]).random(self.frame_shape)
        dead, hot = self.imperfections.dead_pixels, self.imperfections.hot_pixels
        return {"dead": luck < dead, "hot": (luck >= dead) & (luck < dead + hot)}


class Shots:
    """The frames of a beamline, counted as they are taken.

    Darks and flats are numbered in their order. A projection has the number of its angle, and
    those of a further scan are a repeat with noise of its own; but a frame that is taken again
    after a pause is the same as before.

    Parameters
    ----------
    exposure : Exposure
    full_exposure_s : float
        Exposure time of the beam's own dose, in seconds.
    """

    def __init__(self, exposure: Exposure, full_exposure_s: float = FULL_EXPOSURE_S) -> None:
        self.exposure = exposure
        self.full_exposure_s = full_exposure_s
        self._taken: dict[FrameKind, int] = {"dark": 0, "flat": 0}
        self._repeat = 0
        self._elapsed = 0.0
        self._has_projections = self._scan_ended = False

    def new_scan(self) -> None:
        """Projections from now on belong to another scan; cameras call it when they are staged."""
        self._scan_ended = self._has_projections

    def take(
        self,
        *,
        shutter: str,
        sample: str,
        angle_deg: float,
        exposure_s: float | None = None,
        part: int = 0,
    ) -> np.ndarray:
        """The frame that a camera takes now.

        Parameters
        ----------
        shutter : "open" or "closed"
        sample : "in" or "out"
        angle_deg : float
            Where the rotation stage is.
        exposure_s : float, optional
            Exposure time in seconds; None: the full exposure.
        part : int
            Number of the frame among those taken at this angle.

        Returns
        -------
        uint16 array, shape (row, column)

        Raises
        ------
        ConfigurationError
            A projection at an angle that was not simulated.
        """
        dose = 1.0 if exposure_s is None else exposure_s / self.full_exposure_s
        kind: FrameKind = "dark" if shutter == "closed" else "flat"
        if shutter == "open" and sample == "in":
            index = self.exposure.index_of(angle_deg)
            if self._scan_ended:
                self._repeat += 1
                self._scan_ended = False
            self._has_projections = True
            last = max(len(self.exposure.angles_deg) - 1, 1)
            self._elapsed = self._repeat + index / last
            return self.exposure.frame(
                "projection",
                index,
                repeat=self._repeat,
                part=part,
                dose=dose,
                elapsed=self._elapsed,
            )
        index = self._taken[kind]
        self._taken[kind] += 1
        return self.exposure.frame(kind, index, dose=dose, elapsed=self._elapsed)
