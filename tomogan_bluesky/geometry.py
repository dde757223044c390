"""The geometry of a parallel-beam scan: where each projection was taken from.

Enters: angles and the rotation centre. Leaves: one validated, immutable object that every
reconstruction backend takes.
"""

from dataclasses import dataclass

import numpy as np

from .errors import AnglesError, ReconstructionError, RotationCentreError

# Ten full turns. A scan in degrees taken for radians exceeds it after 62 projections of 1 degree.
_LARGEST_SENSIBLE_THETA = 20 * np.pi
# Parts of a typical gap: angles closer than the first coincide, neighbours farther apart than the
# second have a missing wedge between them. Gaps of a golden-ratio scan differ by 2.6 at most.
_COINCIDENT = 0.05
_MISSING_WEDGE = 4.0
# Parts of a step by which angles may miss an even grid that they are meant to be on.
_JITTER = 0.1
# Above the rounding errors of angles, and below anything that matters.
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class ScanGeometry:
    """Parallel-beam geometry of one scan.

    A point at (row, column) of a slice, measured from the slice's origin, falls on the detector
    at ``rotation_centre + column * cos(theta) - row * sin(theta)``.

    Parameters
    ----------
    theta : array of float64, shape (angle,)
        Rotation angles in radians, in the order of the projections. Copied and made read-only.
    rotation_centre : float
        Detector column of the rotation axis in pixels; 0.0 is the centre of column 0.
    n_columns : int
        Detector columns; a slice has ``n_columns`` x ``n_columns`` pixels.

    Raises
    ------
    AnglesError
        Angles that are not a finite, non-empty vector, or too large to be radians.
    RotationCentreError
        A centre that does not lie on the detector.
    ReconstructionError
        Fewer than two columns.
    """

    theta: np.ndarray
    rotation_centre: float
    n_columns: int

    def __post_init__(self) -> None:
        theta = np.array(self.theta, dtype=np.float64)
        if theta.ndim != 1 or theta.size == 0:
            raise AnglesError(
                f"theta: expected a vector of angles, got an array of shape {theta.shape}"
            )
        if not np.isfinite(theta).all():
            bad = int(np.flatnonzero(~np.isfinite(theta))[0])
            raise AnglesError(f"theta: expected finite angles, but angle {bad} is {theta[bad]}")
        if np.abs(theta).max() > _LARGEST_SENSIBLE_THETA:
            raise AnglesError(
                f"theta: expected radians, got values up to {np.abs(theta).max():.6g}, which is "
                "more than ten turns; if these are degrees, convert them with numpy.deg2rad, or "
                "for a scan's documents set scan.angle_units to 'deg'"
            )
        if self.n_columns < 2:
            raise ReconstructionError(
                f"n_columns: expected at least 2 detector columns, got {self.n_columns}"
            )
        centre = float(self.rotation_centre)
        if not 0.0 <= centre <= self.n_columns - 1:
            raise RotationCentreError(
                f"rotation_centre: expected a detector column between 0 and {self.n_columns - 1}, "
                f"got {centre:g}; give it in pixels of the recorded frames, where 0 is the centre "
                "of the first column"
            )
        theta.setflags(write=False)
        object.__setattr__(self, "theta", theta)
        object.__setattr__(self, "rotation_centre", centre)

    @property
    def n_angles(self) -> int:
        """Number of projections."""
        return len(self.theta)

    @property
    def shares(self) -> np.ndarray:
        """What each projection counts, in steps of an even coverage.

        Projections half a turn apart show the same, so angles count modulo pi. Each gets half the
        gap to its neighbours on either side; those that coincide, within 5 % of the typical gap,
        share what one would get. The typical gap is the one not exceeded on three quarters of the
        way round, the widest gap left out. A gap wider than four of these is a missing wedge (of
        an aborted scan, or behind a sample holder): nothing was measured there, and it counts as
        one. Angles that all lie within a tenth of a step of an even grid count as on it: the
        jitter of an encoder, by which neighbours differ, averages out.

        Returns
        -------
        numpy.ndarray, float64, shape (angle,)
            Exactly 1 for an even coverage of any arc, and halves where 0 and 180 degrees are both
            taken.
        """
        place = np.mod(self.theta, np.pi)
        order = np.argsort(place, kind="stable")
        steps = np.diff(place[order], append=place[order[0]] + np.pi)
        # Begin after the widest gap, so that no group of coinciding angles is cut in two.
        begin = int(np.argmax(steps)) + 1
        order, steps = np.roll(order, -begin), np.roll(steps, -begin)
        narrower = np.sort(steps[:-1])
        way = np.cumsum(narrower)
        if narrower.sum() < _ROUNDING:
            return np.ones(self.n_angles)
        typical = narrower[np.searchsorted(way, 0.75 * way[-1])]

        starts_group = np.concatenate(([False], steps[:-1] > _COINCIDENT * typical))
        group = np.cumsum(starts_group)
        size = np.bincount(group)
        middle = np.bincount(group, np.concatenate(([0.0], np.cumsum(steps[:-1])))) / size
        gaps = _even_where_jittered(np.diff(middle, append=middle[0] + np.pi) / typical)
        gaps[gaps > _MISSING_WEDGE] = 1.0
        share = (gaps + np.roll(gaps, 1)) / 2 / size
        shares = np.empty(self.n_angles)
        shares[order] = share[group]
        # Repeats of every angle are an even coverage, too.
        even = np.allclose(shares, shares[0], rtol=_ROUNDING, atol=0)
        return np.ones(self.n_angles) if even else shares

    @property
    def weights(self) -> np.ndarray:
        """Share of the half turn that each projection stands for.

        The `shares`, all scaled alike to add up to pi, so that the object keeps its mean value.

        Returns
        -------
        numpy.ndarray, float64, shape (angle,)
            In radians. Exactly ``pi / n_angles`` for an even coverage of any arc.
        """
        shares = self.shares
        return shares * (np.pi / shares.sum())


def _even_where_jittered(gaps: np.ndarray) -> np.ndarray:
    """Gaps, the last one round to the first angle: all 1 if the angles are near an even grid."""
    step = gaps[:-1].mean() if len(gaps) > 1 else gaps[0]
    place = np.concatenate(([0.0], np.cumsum(gaps[:-1]))) / step
    if np.abs(place - np.arange(len(gaps))).max() > _JITTER:
        return gaps
    gaps = gaps / step
    near = np.abs(gaps - 1) <= 2 * _JITTER
    near[:-1] = True
    return np.where(near, 1.0, gaps)
