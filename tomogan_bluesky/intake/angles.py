"""The rotation angle of every projection, wherever a beamline records it.

Enter: what the documents say of angles (numbers in events, datasets of a file, a monitor stream,
the start document). Leaves: one angle in radians a projection.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..config import ScanConfig
from ..errors import AnglesError
from .frames import FrameSource
from .keys import radians_per_unit


class Angles:
    """Collects angles by projection number, or by time, and gives them out in the end.

    In the order of precedence: angles that belong to points (in events, or datasets beside the
    frames), a monitor stream, the start document.

    Parameters
    ----------
    config : ScanConfig
    """

    def __init__(self, config: ScanConfig) -> None:
        self._config = config
        self._of_point: dict[int, tuple[tuple[float, ...], float]] = {}
        self._stored: list[tuple[FrameSource, int, int, int, int, float]] = []
        self._monitored: list[tuple[float, float]] = []
        self._start: Mapping[str, Any] = {}
        self.candidates: list[str] = []
        """Descriptions of data keys that could be an angle if they had units; for messages."""

    def at_point(self, number: int, time: float, theta: float) -> None:
        """The angle of one projection; of two for one point the later counts."""
        self._keep(number, (time,), theta)

    def at_points_in(
        self, source: FrameSource, order: int, first_number: int, first: int, last: int, unit: float
    ) -> None:
        """Angles [first, last) of a dataset belong to the projections from `first_number`.

        Of two for one point that in the later file counts (by `order`), or later in one file.
        """
        self._stored.append((source, order, first_number, first, last, unit))

    def at_time(self, time: float, theta: float) -> None:
        """A reading of a monitor."""
        self._monitored.append((time, theta))

    def in_start(self, start_doc: Mapping[str, Any]) -> None:
        """The start document, which may hold the angles, or the first and the last one."""
        self._start = start_doc

    @property
    def known(self) -> bool:
        """Whether there is any source of angles."""
        return bool(self._of_point or self._stored or self._monitored or self._start_keys())

    def early(self, number: int, promised: int | None) -> float | None:
        """The angle of a projection in radians, if it can be told before the scan ends.

        Does not wait for files. Readings of a monitor are interpolated, which takes later ones.
        """
        waiting = []
        for source, order, first_number, first, last, unit in self._stored:
            stop = first
            if first_number <= number < first_number + last - first:
                while stop < last and source.has(stop):
                    stop += 1
                self._read_points(source, order, first_number, first, stop, unit)
            if stop < last:
                waiting.append((source, order, first_number + stop - first, stop, last, unit))
        self._stored = waiting
        if number in self._of_point:
            theta = self._of_point[number][1]
        elif self._of_point or self._stored or self._monitored or not (keys := self._start_keys()):
            return None
        else:
            theta = float(self._from_start(keys, [number], promised)[0])
        return theta if np.isfinite(theta) else None

    @property
    def listed(self) -> bool:
        """Whether the start document has the angles, and nothing else so far."""
        return not (self._of_point or self._stored or self._monitored) and bool(self._start_keys())

    def theta(
        self, numbers: Sequence[int], times: Sequence[float], promised: int | None
    ) -> np.ndarray:
        """Angles of projections.

        Parameters
        ----------
        numbers : sequence of int
            From 1.
        times : sequence of float
            When each was recorded, seconds since 1970.
        promised : int or None
            Number of projections of the whole scan, for angles that are spread evenly over it.

        Returns
        -------
        float64 array, shape (projection,)
            Radians; NaN where a point has none.

        Raises
        ------
        AnglesError
            No angle anywhere.
        """
        for source, order, first_number, first, last, unit in self._stored:
            available = min(last, source.count(last))
            self._read_points(source, order, first_number, first, available, unit)
        self._stored.clear()
        if self._of_point:
            missing = (0.0, np.nan)
            return np.array([self._of_point.get(n, missing)[1] for n in numbers])
        if self._monitored:
            if len(times) > 1 and len(set(times)) == 1:
                raise AnglesError(
                    "expected a time for each projection, to interpolate the monitored angle at, "
                    "got one time for all; name the data key with the frames' times in "
                    "scan.frame_time_key"
                )
            readings = np.array(sorted(self._monitored))
            return np.interp(times, readings[:, 0], readings[:, 1])
        if keys := self._start_keys():
            return self._from_start(keys, numbers, promised)
        raise AnglesError(
            "expected a rotation angle for each projection, got none; candidates: "
            f"{', '.join(self.candidates) or 'none'}; name one in scan.angle_key (and its units in "
            "scan.angle_units), a monitor stream in scan.angle_stream, or keys of the start "
            "document in scan.start_angles"
        )

    def _keep(self, number: int, recorded: tuple[float, ...], theta: float) -> None:
        earlier = self._of_point.get(number)
        if earlier is None or earlier[0] <= recorded:
            self._of_point[number] = (recorded, theta)

    def _read_points(
        self, source: FrameSource, order: int, first_number: int, first: int, stop: int, unit: float
    ) -> None:
        if first >= stop:
            return
        values = np.ravel(source.read(slice(first, stop), slice(None)))
        for i, value in enumerate(values):
            self._keep(first_number + i, (order, first + i), float(value) * unit)

    def _start_keys(self) -> tuple[str, ...]:
        keys = self._config.start_angles or ()
        return keys if keys and all(key in self._start for key in keys) else ()

    def _from_start(
        self, keys: tuple[str, ...], numbers: Sequence[int], promised: int | None
    ) -> np.ndarray:
        unit = radians_per_unit(" … ".join(keys), None, self._config)
        index = np.asarray(numbers) - 1
        if len(keys) == 1:
            listed = np.asarray(self._start[keys[0]], dtype=np.float64) * unit
            return np.array([listed[i] if i < len(listed) else np.nan for i in index])
        first, last = (float(self._start[key]) * unit for key in keys)
        n_steps = max((promised or index.max() + 1) - 1, 1)
        return first + (last - first) / n_steps * index
