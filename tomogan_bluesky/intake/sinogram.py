"""The frames of one scan, and the account of every one of them.

Enter: `Frame` objects in any order. Leaves: a `Scan` with its frames in the order of their
``seq_num``, from which slabs of detector rows are cut, and a `FrameAccount` in which every expected
projection ends as exactly one of used, superseded, missing or rejected.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import MissingFramesError
from .documents import Frame, FrameKind
from .references import mean_frame


@dataclass(frozen=True)
class FrameAccount:
    """Where every expected projection went; the parts add up to `expected`.

    Attributes
    ----------
    expected : int
        Points that the scan promised or took, plus frames that were taken again.
    used, superseded, missing : int
        Frames in the reconstruction; replaced by a later one of the same point; never seen.
    rejected : dict of str to int
        Frames that came but cannot be used, by reason.
    """

    expected: int = 0
    used: int = 0
    superseded: int = 0
    missing: int = 0
    rejected: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parts = self.used + self.superseded + self.missing + sum(self.rejected.values())
        if parts != self.expected:
            raise AssertionError(f"frames are unaccounted for: {self}")

    def as_dict(self) -> dict[str, Any]:
        """For documents and JSON."""
        return {
            "expected": self.expected,
            "used": self.used,
            "superseded": self.superseded,
            "missing": self.missing,
            "rejected": dict(self.rejected),
        }


@dataclass(frozen=True, eq=False)
class Scan:
    """A complete set of frames, ready to be reconstructed.

    Attributes
    ----------
    projections : list of array, each (row, column)
        In the order of their ``seq_num``, as recorded.
    theta : float64 array, shape (angle,)
        Radians.
    dark, flat : float32 arrays, shape (row, column)
        Mean reference frames.
    account : FrameAccount
    """

    projections: list[np.ndarray]
    theta: np.ndarray
    dark: np.ndarray
    flat: np.ndarray
    account: FrameAccount

    @property
    def shape(self) -> tuple[int, int, int]:
        """(angle, row, column)."""
        rows, columns = self.dark.shape
        return len(self.projections), rows, columns

    def slabs(self, rows: tuple[int, int], slab_rows: int) -> Iterator[tuple[int, np.ndarray]]:
        """Cut the detector rows [first, last) into slabs.

        Yields
        ------
        first_row : int
        frames : array, shape (row, angle, column), recorded dtype
        """
        first, last = rows
        for row in range(first, last, slab_rows):
            stop = min(row + slab_rows, last)
            yield row, np.stack([frame[row:stop] for frame in self.projections], axis=1)


class FrameStore:
    """Collects the frames of one scan by kind and ``seq_num``.

    Of two frames of one point the one recorded later counts, whichever arrives first. A frame that
    cannot be used is rejected with a reason and leaves the others alone.
    """

    def __init__(self) -> None:
        self._shape: tuple[int, int] | None = None
        self._frames: dict[FrameKind, dict[int, Frame]] = {"projection": {}, "dark": {}, "flat": {}}
        self._why_not: dict[tuple[FrameKind, int], str] = {}
        self._superseded = 0

    def expect_shape(self, kind: FrameKind, shape: tuple[int, int]) -> None:
        """Learn the frame shape from a descriptor; the projections' word counts most."""
        if self._shape is None or kind == "projection":
            self._shape = shape

    def add(self, frame: Frame) -> None:
        """Take a frame in; O(1) but for the finite check of floating-point pixels."""
        known = self._frames[frame.kind]
        earlier = known.get(frame.seq_num)
        if earlier is not None:
            self._superseded += frame.kind == "projection"
            if earlier.time > frame.time:
                return
        known[frame.seq_num] = frame
        reason = self._fault_of(frame)
        if reason is None:
            self._why_not.pop((frame.kind, frame.seq_num), None)
        else:
            self._why_not[frame.kind, frame.seq_num] = reason

    def count(self, kind: FrameKind) -> int:
        """Number of distinct points of a kind so far."""
        return len(self._frames[kind])

    def _fault_of(self, frame: Frame) -> str | None:
        if frame.pixels.shape != self._shape:
            return (
                f"expected frames of {_times(self._shape)} pixels, got {_times(frame.pixels.shape)}"
            )
        if frame.pixels.dtype.kind == "f" and not np.isfinite(frame.pixels).all():
            return "expected finite pixels, got NaN or infinity"
        if frame.pixels.dtype.kind not in "fiu":
            return f"expected numbers as pixels, got {frame.pixels.dtype}"
        if frame.theta is not None and not np.isfinite(frame.theta):
            return f"expected a finite angle, got {frame.theta}"
        return None

    def _usable(self, kind: FrameKind) -> list[Frame]:
        frames = self._frames[kind]
        return [frames[n] for n in sorted(frames) if (kind, n) not in self._why_not]

    def account(self, promised: int | None) -> FrameAccount:
        """Count the projections; `promised` is how many points the documents announce."""
        seen = self._frames["projection"]
        points = max([promised or 0, len(seen), *seen])
        rejected = Counter(why for (kind, _), why in self._why_not.items() if kind == "projection")
        return FrameAccount(
            expected=points + self._superseded,
            used=len(self._usable("projection")),
            superseded=self._superseded,
            missing=points - len(seen),
            rejected=dict(rejected),
        )

    def scan(self, promised: int | None) -> Scan:
        """The scan as it stands.

        Raises
        ------
        MissingFramesError
            No usable projection, dark or flat.
        """
        usable = {kind: self._usable(kind) for kind in self._frames}
        for kind in ("projection", "flat", "dark"):
            if not usable[kind]:
                raise MissingFramesError(self._why_none(kind))
        projections = usable["projection"]
        return Scan(
            projections=[frame.pixels for frame in projections],
            theta=np.array([frame.theta for frame in projections], dtype=np.float64),
            dark=mean_frame([frame.pixels for frame in usable["dark"]]),
            flat=mean_frame([frame.pixels for frame in usable["flat"]]),
            account=self.account(promised),
        )

    def _why_none(self, kind: FrameKind) -> str:
        reasons = Counter(why for (k, _), why in self._why_not.items() if k == kind)
        got = "; ".join(f"{n} rejected: {why}" for why, n in reasons.items()) or "none"
        remedy = {
            "projection": "name their stream in scan.projection_streams",
            "flat": "record flat fields (beam on, sample out) in this run, or name their stream in "
            "scan.flat_streams",
            "dark": "record dark fields (beam off) in this run, or name their stream in "
            "scan.dark_streams",
        }[kind]
        return f"expected at least one {kind} frame, got {got}; {remedy}"


def _times(shape: tuple[int, ...] | None) -> str:
    return " x ".join(map(str, shape or ()))
