"""Collects the frames of one scan, and judges them.

Enter: `Frame` objects in any order. Leaves: a `Scan` with its frames in the order of their numbers,
and a `FrameAccount` in which every expected projection ends as exactly one of used, superseded,
missing or rejected.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from ..config import ScanConfig
from ..errors import MissingFramesError
from .angles import Angles
from .documents import Frame, FrameKind
from .frames import BLOCK_BYTES, StoredFrame, read_rows
from .references import References, group_by_time, mean_frame
from .scan import FrameAccount, Scan

_GIB = 1 << 30
# Enough frames and rows to measure a detector's noise to some percent.
_REFERENCE_FRAMES, _REFERENCE_ROWS = 10, 64


class FrameStore:
    """Collects the frames of one scan by kind and number.

    Of two frames of one point the one recorded later counts, whichever arrives first. A frame that
    cannot be used is rejected with a reason and leaves the others alone.

    Parameters
    ----------
    config : ScanConfig
    """

    def __init__(self, config: ScanConfig) -> None:
        self._config = config
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
        earlier = known.get(frame.number)
        if earlier is not None:
            # A document that comes twice is one frame.
            again = earlier.recorded != frame.recorded
            self._superseded += again and frame.kind == "projection"
            if earlier.recorded > frame.recorded:
                return
        known[frame.number] = frame
        self._judge(frame, self._fault_of(frame))

    def count(self, kind: FrameKind) -> int:
        """Number of points of a kind so far."""
        return len(self._frames[kind])

    def _judge(self, frame: Frame, fault: str | None) -> None:
        if fault is None:
            self._why_not.pop((frame.kind, frame.number), None)
        else:
            self._why_not[frame.kind, frame.number] = fault

    def _fault_of(self, frame: Frame) -> str | None:
        """What is wrong with a frame. Files are not opened for it: they may not be there yet."""
        if isinstance(frame.pixels, StoredFrame):
            return None
        if frame.pixels.shape != self._shape:
            return (
                f"expected frames of {_times(self._shape)} pixels, got {_times(frame.pixels.shape)}"
            )
        if frame.pixels.dtype.kind not in "fiu":
            return f"expected numbers as pixels, got {frame.pixels.dtype}"
        if frame.pixels.dtype.kind == "f" and not np.isfinite(frame.pixels).all():
            return "expected finite pixels, got NaN or infinity"
        return None

    def early(self, number: int) -> Frame | None:
        """The projection of a number that counts so far, if its pixels are there.

        Another may still supersede it, or its pixels be found to be unusable.
        """
        frame = self._frames["projection"].get(number)
        if frame is None or ("projection", number) in self._why_not:
            return None
        if isinstance(frame.pixels, StoredFrame) and not frame.pixels.source.has(
            frame.pixels.index
        ):
            return None
        return frame

    def _judge_stored(self, kinds: Sequence[FrameKind] = ("projection", "dark", "flat")) -> None:
        """Look at what frames in files are, now that they should all be there."""
        for frames in (self._frames[kind] for kind in kinds):
            by_source: dict[int, list[Frame]] = {}
            for frame in frames.values():
                if isinstance(frame.pixels, StoredFrame):
                    by_source.setdefault(id(frame.pixels.source), []).append(frame)
            for group in by_source.values():
                self._judge_group(group)

    def _judge_group(self, frames: list[Frame]) -> None:
        stored = [f.pixels for f in frames if isinstance(f.pixels, StoredFrame)]
        source = stored[0].source
        absent = source.absent([pixels.index for pixels in stored])
        if len(absent) == len(stored):  # there is nothing to look at
            for frame, pixels in zip(frames, stored, strict=True):
                self._judge(frame, absent[pixels.index])
            return
        self._shape = self._shape or source.frame_shape  # type: ignore[assignment]
        shape, kind = source.frame_shape, source.dtype.kind
        for frame, pixels in zip(frames, stored, strict=True):
            if pixels.index in absent:
                fault: str | None = absent[pixels.index]
            elif shape != self._shape:
                fault = f"expected frames of {_times(self._shape)} pixels, got {_times(shape)}"
            elif kind == "f" and not np.isfinite(read_rows([pixels], slice(None))).all():
                fault = "expected finite pixels, got NaN or infinity"
            else:
                fault = None
            self._judge(frame, fault)

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

    def scan(
        self, angles: Angles, promised: int | None, elsewhere: References | None = None
    ) -> Scan:
        """The scan as it stands.

        Parameters
        ----------
        angles : Angles
        promised : int or None
            Number of points that the documents announce.
        elsewhere : References, optional
            For a scan without darks or flats of its own.

        Raises
        ------
        MissingFramesError
            No usable projection, dark or flat.
        AnglesError
            No angles.
        """
        self._judge_stored()
        frames = self._usable("projection")
        if not frames:
            raise MissingFramesError(self._why_none("projection"))
        theta = angles.theta([f.number for f in frames], [f.time for f in frames], promised)
        for frame in (frames[i] for i in np.flatnonzero(~np.isfinite(theta))):
            self._judge(frame, "expected a finite angle, got none")
        frames = self._usable("projection")
        if not frames:
            raise MissingFramesError(self._why_none("projection"))
        if elsewhere is not None and elsewhere.dark.shape != self._shape:
            raise MissingFramesError(
                f"expected darks and flats of {_times(self._shape)} pixels, as the projections "
                f"have, got {_times(elsewhere.dark.shape)} in another run or file; record them "
                "with the same region of the detector"
            )
        return Scan(
            projections=[frame.pixels for frame in frames],
            theta=theta[np.isfinite(theta)],
            times=np.array([frame.time for frame in frames]),
            references=self.references() if elsewhere is None else elsewhere,
            account=self.account(promised),
            frames_bytes=int(self._config.memory_gib * _GIB),
        )

    def references(self) -> References:
        """The darks and flats so far.

        Raises
        ------
        MissingFramesError
            No usable dark or flat.
        """
        if self._config.flat == "none":
            shape = self._shape or (1, 1)
            return References(
                np.zeros(shape, np.float32), np.ones((1, *shape), np.float32), np.zeros(1)
            )
        self._judge_stored(("dark", "flat"))
        usable: dict[FrameKind, list[Frame]] = {k: self._usable(k) for k in ("flat", "dark")}
        for kind, frames in usable.items():
            if not frames:
                raise MissingFramesError(self._why_none(kind))
        flats = usable["flat"]
        groups = [list(range(len(flats)))]
        if self._config.flat_drift == "linear":
            projection_times = [f.time for f in self._frames["projection"].values()]
            groups = group_by_time([f.time for f in flats], projection_times)
        return References(
            dark=self._mean(usable["dark"]),
            flats=np.stack([self._mean([flats[i] for i in group]) for group in groups]),
            flat_times=np.array([np.mean([flats[i].time for i in group]) for group in groups]),
        )

    def reference_frames(self, kind: FrameKind) -> np.ndarray:
        """Some single darks or flats as recorded, of the middle rows: (frame, row, column)."""
        self._judge_stored()
        frames = self._usable(kind)[:_REFERENCE_FRAMES]
        if not frames:
            raise MissingFramesError(self._why_none(kind))
        first = max(0, (frames[0].pixels.shape[0] - _REFERENCE_ROWS) // 2)
        return read_rows([frame.pixels for frame in frames], slice(first, first + _REFERENCE_ROWS))

    @property
    def has_references(self) -> bool:
        """Whether there are both darks and flats."""
        return bool(self._frames["dark"] and self._frames["flat"])

    def _mean(self, frames: list[Frame]) -> np.ndarray:
        return mean_frame(_one_by_one([frame.pixels for frame in frames]))

    def _why_none(self, kind: FrameKind) -> str:
        reasons = Counter(why for (k, _), why in self._why_not.items() if k == kind)
        got = "; ".join(f"{n} rejected: {why}" for why, n in reasons.items()) or "none"
        elsewhere = (
            "of another run in scan.references_run_key, files in scan.reference_files, or set "
            "scan.flat to 'none'"
        )
        remedy = {
            "projection": "name their stream in scan.projection_streams",
            "flat": "record flat fields (beam on, sample out) in this run, or name their stream in "
            f"scan.flat_streams, the key {elsewhere} for frames that are corrected already",
            "dark": "record dark fields (beam off) in this run, or name their stream in "
            f"scan.dark_streams, the key {elsewhere} for frames that are corrected already",
        }[kind]
        return f"expected at least one {kind} frame, got {got}; {remedy}"


def _one_by_one(frames: list[np.ndarray | StoredFrame]) -> Iterator[np.ndarray]:
    """Whole frames, read by blocks: to a catalog each block is a request."""
    frame_bytes = int(np.prod(frames[0].shape)) * frames[0].dtype.itemsize
    n = max(BLOCK_BYTES // frame_bytes, 1)
    for first in range(0, len(frames), n):
        yield from read_rows(frames[first : first + n], slice(None))


def _times(shape: tuple[int, ...] | None) -> str:
    return " x ".join(map(str, shape or ()))
