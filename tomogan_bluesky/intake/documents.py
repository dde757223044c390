"""From the documents of one run to its frames.

Enter: the documents of one Bluesky run, in any order in which a RunEngine or a replay may emit
them. Leave: `Frame` objects that say what a detector image is (projection, dark or flat), where in
the scan it belongs and where its pixels are; and the angles.

Everything that is a convention of a beamline (names of streams and keys, units, files) is settled
here; behind this module angles are in radians and frames are identified by kind and number.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from event_model import DocumentRouter

from ..config import ScanConfig
from .angles import Angles
from .archive import CatalogFrames
from .assets import Assets
from .frames import StoredFrame
from .keys import angle_keys, image_keys, radians_per_unit, the_angle, the_image

logger = logging.getLogger(__name__)

FrameKind = Literal["projection", "dark", "flat"]


@dataclass(frozen=True, eq=False)
class Frame:
    """One detector image and its place in the scan.

    Attributes
    ----------
    kind : "projection", "dark" or "flat"
    number : int
        Number of the frame in its stream, from 1: its ``seq_num``, where a point has one frame. A
        point that is taken again after a pause has the number of the first.
    time : float
        When it was recorded, seconds since 1970. For a frame that comes with no time, that of its
        descriptor; `place` then tells earlier from later.
    pixels : array or StoredFrame, shape (row, column)
        As recorded, by reference. Not necessarily of the expected shape: the store judges.
    place : (int, int)
        Which of the stream's files it is in, in their order, and where in it; (0, 0) for frames
        inside events.
    """

    kind: FrameKind
    number: int
    time: float
    pixels: np.ndarray | StoredFrame
    place: tuple[int, int] = (0, 0)

    @property
    def recorded(self) -> tuple[float, tuple[int, int]]:
        """Of two frames of one point, the one with the larger value was recorded later."""
        return self.time, self.place


@dataclass(frozen=True)
class _Plan:
    """What is read from the events and data of one descriptor."""

    kind: FrameKind
    time: float
    image_key: str
    dtype: str | None
    n_frames: int
    """Frames of one point."""
    angle_key: str | None
    radians_per_unit: float


class ScanDocuments(DocumentRouter):
    """Reads the documents of one run and hands each frame to `on_frame`.

    Parameters
    ----------
    config : ScanConfig
    on_frame : callable
        Called with a `Frame` for each detector image, in the order of the documents.
    on_shape : callable
        Called with the frame kind and the (row, column) shape that a descriptor announces.

    Raises
    ------
    IntakeError
        From a call with a document that can't be understood: ambiguous data keys, angles without
        units, files that may not be read.
    """

    def __init__(
        self,
        config: ScanConfig,
        on_frame: Callable[[Frame], None],
        on_shape: Callable[[FrameKind, tuple[int, int]], None],
    ) -> None:
        super().__init__()
        self._config = config
        self._on_frame = on_frame
        self._on_shape = on_shape
        self._plans: dict[str, _Plan | None] = {}
        self._monitors: dict[str, tuple[str, float]] = {}
        self._assets = Assets(config)
        self._datums: dict[str, tuple[str, Mapping[str, Any]]] = {}
        # Documents that came before one that they refer to, by its uid.
        self._early: defaultdict[str, list[Callable[[], None]]] = defaultdict(list)
        self.angles = Angles(config)
        self.start_doc: Mapping[str, Any] = {}
        self.stop_doc: Mapping[str, Any] = {}
        self.projection_stream: str | None = None
        self.has_references = False
        # Images of darks and flats that are called otherwise than scan.image_key says.
        self.passed_over: list[str] = []

    @property
    def is_tomography(self) -> bool:
        """Whether the run has images with angles, or means to, or images beside darks and flats.

        Other runs (an alignment, a count, a scan without a camera) are none of our business.
        """
        if self.projection_stream is None:
            return self.has_references and self.declared_projections is not None
        return self.has_references or self.angles.known

    @property
    def declared_projections(self) -> int | None:
        """Number of projections that the start document promises, if it does."""
        for key in ("num_projections", "num_points"):
            value = self.start_doc.get(key)
            if isinstance(value, int) and value > 0:
                return value
        return None

    def kind_of(self, stream: str) -> FrameKind | None:
        """What the frames of a stream are, None where the stream is not ours."""
        if stream in self._config.projection_streams:
            return "projection"
        if stream in self._config.dark_streams:
            return "dark"
        if stream in self._config.flat_streams:
            return "flat"
        return None

    def close(self) -> None:
        """Close the files of the run."""
        self._assets.close()

    # The documents -----------------------------------------------------------------------------

    def start(self, doc: Mapping[str, Any]) -> None:
        self.start_doc = doc
        self.angles.in_start(doc)

    def descriptor(self, doc: Mapping[str, Any]) -> None:
        if doc["uid"] in self._plans:
            return
        self._plans[doc["uid"]] = None  # until it is understood, its events are passed over
        kind = self.kind_of(doc["name"])
        images = image_keys(doc, self._config) if kind is not None else []
        if kind is None or not images:
            if kind in ("dark", "flat"):
                self.passed_over += image_keys(doc, ScanConfig())
            self._look_for_monitor(doc)
            return
        if kind == "projection":
            self.projection_stream = doc["name"]
        else:
            self.has_references = True
        image_key = the_image(doc, images)
        key = doc["data_keys"][image_key]
        angle_key, unit = self._angle_of(doc) if kind == "projection" else (None, 1.0)
        *points, rows, columns = key["shape"]
        self._plans[doc["uid"]] = _Plan(
            kind,
            doc["time"],
            image_key,
            key.get("dtype_numpy"),
            int(np.prod(points or [1])),
            angle_key,
            unit,
        )
        if rows > 0 and columns > 0:
            self._on_shape(kind, (int(rows), int(columns)))

    def event(self, doc: Mapping[str, Any]) -> None:  # type: ignore[override]  # a sink
        if doc["descriptor"] in self._monitors:
            name, unit = self._monitors[doc["descriptor"]]
            self.angles.at_time(doc["timestamps"][name], float(doc["data"][name]) * unit)
            return
        plan = self._plans.get(doc["descriptor"])
        if plan is None:
            return
        data = doc["data"]
        datum = data.get(plan.image_key)
        if isinstance(datum, str) and datum not in self._datums:
            self._early[datum].append(lambda: self.event(doc))
            return
        frames = self._frames_in(data[plan.image_key], plan) if plan.image_key in data else []
        n = len(frames) or plan.n_frames
        first = (doc["seq_num"] - 1) * n + 1
        if plan.angle_key in data:
            values = np.ravel(np.asarray(data[plan.angle_key], dtype=np.float64))
            for i, value in enumerate(
                np.broadcast_to(values, (n,)) if values.size == 1 else values
            ):
                self.angles.at_point(first + i, doc["time"], float(value) * plan.radians_per_unit)
        times = self._times(doc, plan, n)
        for i, (place, pixels) in enumerate(frames):
            when = float(times[i] if len(times) == n else times[0])
            self._on_frame(Frame(plan.kind, first + i, when, pixels, place))

    def resource(self, doc: Mapping[str, Any]) -> None:
        self._assets.add(doc)

    def datum(self, doc: Mapping[str, Any]) -> None:  # type: ignore[override]  # a sink
        self._datums[doc["datum_id"]] = (doc["resource"], doc["datum_kwargs"])
        self._arrived(doc["datum_id"])

    def stream_resource(self, doc: Mapping[str, Any]) -> None:
        self._assets.add(doc)
        self._arrived(doc["uid"])

    def stream_datum(self, doc: Mapping[str, Any]) -> None:
        plan = self._plans.get(doc["descriptor"])
        if plan is None:
            return
        resource = doc["stream_resource"]
        if not self._assets.knows(resource):
            self._early[resource].append(lambda: self.stream_datum(doc))
            return
        key, order = self._assets.data_key(resource), self._assets.order(resource)
        if key not in (plan.image_key, plan.angle_key):
            return
        source = self._assets.source(doc["stream_resource"])
        first, last = doc["indices"]["start"], doc["indices"]["stop"]
        number = doc["seq_nums"]["start"]
        if key == plan.angle_key:
            self.angles.at_points_in(source, order, number, first, last, plan.radians_per_unit)
            return
        n = plan.n_frames
        for i in range((last - first) * n):
            pixels = StoredFrame(source, first * n + i)
            place = (order, pixels.index)
            self._on_frame(Frame(plan.kind, (number - 1) * n + 1 + i, plan.time, pixels, place))

    def stop(self, doc: Mapping[str, Any]) -> None:
        self.stop_doc = doc
        if waiting := sum(map(len, self._early.values())):
            logger.warning(
                "run %s: %d documents refer to others that never came, and are left out",
                self.start_doc.get("uid"),
                waiting,
            )

    # Details -----------------------------------------------------------------------------------

    def _arrived(self, uid: str) -> None:
        """Go on with the documents that waited for one."""
        for take in self._early.pop(uid, ()):
            take()

    def _angle_of(self, descriptor: Mapping[str, Any]) -> tuple[str | None, float]:
        """The angle's data key and its factor to radians, if the stream has one."""
        candidates = angle_keys(descriptor, self._config)
        if not candidates:
            self.angles.candidates += [
                f"{name} ({key.get('units') or 'no units'})"
                for name, key in descriptor["data_keys"].items()
                if np.prod(key["shape"] or [1]) == 1
            ]
            return None, 1.0
        name = the_angle(descriptor, candidates, self._config)
        units = descriptor["data_keys"][name].get("units")
        return name, radians_per_unit(name, units, self._config)

    def _look_for_monitor(self, descriptor: Mapping[str, Any]) -> None:
        """Remember a monitor stream of the angle."""
        wanted, name = self._config.angle_stream, descriptor["name"]
        if name == wanted or (wanted is None and name.endswith("_monitor")):
            candidates = angle_keys(descriptor, self._config)
            if name == wanted or len(candidates) == 1:
                key = the_angle(descriptor, candidates, self._config)
                units = descriptor["data_keys"][key].get("units")
                unit = radians_per_unit(key, units, self._config)
                self._monitors[descriptor["uid"]] = (key, unit)

    def _times(self, event: Mapping[str, Any], plan: _Plan, n: int) -> np.ndarray:
        """When the frames of an event were taken: one time for each, or one for all."""
        data = event["data"]
        if self._config.frame_time_key in data:
            return np.ravel(data[self._config.frame_time_key])
        times = self._times_in_file(data.get(plan.image_key), n) if n > 1 else None
        return np.ravel(event["time"]) if times is None else times

    def _times_in_file(self, value: Any, n: int) -> np.ndarray | None:
        """When the frames of a point were taken, where their file says so."""
        if isinstance(value, str):
            resource, kwargs = self._datums[value]
            first = int(kwargs.get("point_number", 0)) * n
            return self._assets.frame_times(resource, slice(first, first + n))
        if _is_stored(value) and isinstance(value[0].source, CatalogFrames):
            first = value[0].index
            return self._assets.times_in_file_of(value[0].source, slice(first, first + n))
        return None

    def _frames_in(
        self, value: Any, plan: _Plan
    ) -> list[tuple[tuple[int, int], np.ndarray | StoredFrame]]:
        """The frames of one point, each with its place in the files."""
        if isinstance(value, str):
            resource, kwargs = self._datums[value]
            source, n = self._assets.source(resource), self._assets.frames_a_point(resource)
            first = int(kwargs.get("point_number", 0)) * n
            order = self._assets.order(resource)
            return [((order, first + i), StoredFrame(source, first + i)) for i in range(n)]
        if _is_stored(value):
            return [((0, frame.index), frame) for frame in value]
        if isinstance(value, np.ndarray):
            pixels = value.view()  # ours to reshape; the pixels stay the caller's
        else:  # exported documents hold nested lists
            pixels = np.asarray(value, dtype=plan.dtype)
        while pixels.ndim > 2 and pixels.shape[0] == 1:
            pixels = pixels[0]
        return [((0, 0), frame) for frame in (pixels if pixels.ndim == 3 else [pixels])]


def _is_stored(value: Any) -> bool:
    """Whether a value of an event is a list of frames in a catalog."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], StoredFrame)
