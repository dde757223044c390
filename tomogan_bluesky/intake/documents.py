"""From the documents of one run to its frames.

Enter: the documents of one Bluesky run, in any order in which a RunEngine or a replay may emit
them. Leave: `Frame` objects that say what a detector image is (projection, dark or flat), where in
the scan it belongs, and at which angle it was taken.

Everything that is a convention of a beamline (names of streams and keys, units) is settled here;
behind this module angles are in radians and frames are identified by kind and ``seq_num``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from event_model import DocumentRouter

from ..config import ScanConfig
from ..errors import AnglesError, IntakeError

FrameKind = Literal["projection", "dark", "flat"]

_UNITS = {
    "deg": "deg",
    "degree": "deg",
    "degrees": "deg",
    "°": "deg",
    "rad": "rad",
    "radian": "rad",
    "radians": "rad",
}


@dataclass(frozen=True, eq=False)
class Frame:
    """One detector image and its place in the scan.

    Attributes
    ----------
    kind : "projection", "dark" or "flat"
    seq_num : int
        Number of the point in its stream, from 1. A point that is taken again after a pause
        has the number of the first.
    time : float
        When it was recorded, seconds since 1970.
    pixels : array, shape (row, column)
        As recorded, by reference. Not necessarily of the expected shape: the store judges.
    theta : float or None
        Rotation angle in radians; None for darks and flats.
    """

    kind: FrameKind
    seq_num: int
    time: float
    pixels: np.ndarray
    theta: float | None


@dataclass(frozen=True)
class _StreamPlan:
    """What is read from the events of one descriptor."""

    kind: FrameKind
    image_key: str
    dtype: str | None
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
    IntakeError, AnglesError
        From a call with a descriptor or event that can't be understood: ambiguous or missing data
        keys, angles without units.
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
        self._plans: dict[str, _StreamPlan | None] = {}
        self.start_doc: Mapping[str, Any] = {}
        self.stop_doc: Mapping[str, Any] = {}
        self.projection_stream: str | None = None
        self._looks_like_a_scan = False

    @property
    def is_tomography(self) -> bool:
        """Whether the run has images with an angle, or images beside darks or flats.

        Other runs (an alignment, a count, a scan without a camera) are none of our business.
        """
        return self._looks_like_a_scan

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

    # The documents -----------------------------------------------------------------------------

    def start(self, doc: Mapping[str, Any]) -> None:
        self.start_doc = doc

    def descriptor(self, doc: Mapping[str, Any]) -> None:
        if doc["uid"] in self._plans:
            return
        self._plans[doc["uid"]] = None  # until it is understood, its events are passed over
        kind = self.kind_of(doc["name"])
        if kind is None:
            return
        images = _image_keys(doc, self._config.image_key)
        if not images:
            return
        angles = _angle_keys(doc, self._config) if kind == "projection" else []
        self._looks_like_a_scan |= kind != "projection" or bool(angles)
        if kind == "projection":
            self.projection_stream = doc["name"]
        image_key = _only(images, doc, "detector image", "image_key", IntakeError)
        data_key = doc["data_keys"][image_key]
        if "external" in data_key:
            raise IntakeError(
                f"stream {doc['name']!r}: expected the frames of {image_key!r} inside the events, "
                f"got references to external files ({data_key['external']}); replay the run from "
                "its catalog, which reads them"
            )
        angle_key, unit = None, 1.0
        if kind == "projection":
            angle_key = _only(angles, doc, "rotation angle", "angle_key", AnglesError)
            unit = _radians_per_unit(doc, angle_key, self._config)
        self._plans[doc["uid"]] = _StreamPlan(
            kind, image_key, data_key.get("dtype_numpy"), angle_key, unit
        )
        self._on_shape(kind, _frame_shape(data_key["shape"]))

    def event(self, doc: Mapping[str, Any]) -> None:  # type: ignore[override]  # a sink
        plan = self._plans.get(doc["descriptor"])
        if plan is None:
            return
        pixels = doc["data"][plan.image_key]
        if isinstance(pixels, np.ndarray):
            pixels = pixels.view()  # ours to reshape; the pixels stay the caller's
        else:  # exported documents hold nested lists
            pixels = np.asarray(pixels, dtype=plan.dtype)
        while pixels.ndim > 2 and pixels.shape[0] == 1:
            pixels = pixels[0]
        theta = None
        if plan.angle_key is not None:
            theta = float(doc["data"][plan.angle_key]) * plan.radians_per_unit
        self._on_frame(Frame(plan.kind, doc["seq_num"], doc["time"], pixels, theta))

    def stop(self, doc: Mapping[str, Any]) -> None:
        self.stop_doc = doc


def _image_keys(descriptor: Mapping[str, Any], wanted: str | None) -> list[str]:
    """Data keys that can be detector images: arrays of two dimensions or more."""
    keys = descriptor["data_keys"]
    if wanted is not None:
        return [wanted] if wanted in keys else []
    return [name for name, key in keys.items() if sum(n > 1 for n in key["shape"] or ()) >= 2]


def _angle_keys(descriptor: Mapping[str, Any], config: ScanConfig) -> list[str]:
    """Data keys that can be the rotation angle: scalars with an angular unit.

    Where several have one, those that their device hints at (a motor's readback rather than its
    set point) are preferred.
    """
    keys = descriptor["data_keys"]
    if config.angle_key is not None:
        return [config.angle_key] if config.angle_key in keys else []
    angular = [
        name
        for name, key in keys.items()
        if not key["shape"] and str(key.get("units")).lower() in _UNITS
    ]
    hinted = {
        field for hint in descriptor.get("hints", {}).values() for field in hint.get("fields", ())
    }
    return [name for name in angular if name in hinted] or angular


def _only(
    candidates: list[str],
    descriptor: Mapping[str, Any],
    what: str,
    setting: str,
    error: type[IntakeError],
) -> str:
    """The one candidate, or an error that names the choices."""
    if len(candidates) == 1:
        return candidates[0]
    known = {
        name: f"{name} ({key.get('units') or 'no units'})"
        for name, key in descriptor["data_keys"].items()
        if bool(key["shape"]) == (setting == "image_key")
    }
    choices = ", ".join(known[name] for name in candidates) or ", ".join(known.values()) or "none"
    raise error(
        f"stream {descriptor['name']!r}: expected one data key to be the {what}, got "
        f"{len(candidates)}; candidates: {choices}; name it in scan.{setting}"
        + (" (and its units in scan.angle_units)" if setting == "angle_key" else "")
    )


def _radians_per_unit(descriptor: Mapping[str, Any], key: str, config: ScanConfig) -> float:
    units = config.angle_units or descriptor["data_keys"][key].get("units")
    known = _UNITS.get(str(units).lower())
    if known is None:
        raise AnglesError(
            f"stream {descriptor['name']!r}: expected the units of the rotation angle {key!r} to "
            f"be degrees or radians, got {units!r}; set scan.angle_units to 'deg' or 'rad'"
        )
    return np.pi / 180 if known == "deg" else 1.0


def _frame_shape(shape: list[int]) -> tuple[int, int]:
    rows, columns = shape[-2:]
    return int(rows), int(columns)
