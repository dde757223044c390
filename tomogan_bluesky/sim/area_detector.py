"""A simulated area detector of ophyd, which writes a file and refers to it from the events.

Enter: triggers from a plan. Leave: an HDF5 file laid out as areaDetector's file plugin does it,
readable while it grows, and `resource` and `datum` documents as ophyd's classes for it emit them.
"""

import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
from event_model import compose_resource
from ophyd import Component, Device, Signal
from ophyd.status import Status

from ..errors import ConfigurationError
from .growing_file import GrowingFile

if TYPE_CHECKING:
    from .async_rotation import Pulse
    from .beamline import SimBeamline

FRAMES = "/entry/data/data"
_ATTRIBUTES = "/entry/instrument/NDAttributes"
SECONDS, NANOSECONDS = f"{_ATTRIBUTES}/NDArrayEpicsTSSec", f"{_ATTRIBUTES}/NDArrayEpicsTSnSec"
EPICS_EPOCH = 631_152_000
"""1990-01-01 in seconds since 1970: where the time of frames in the file is counted from."""


class SimAreaDetector(Device):
    """A camera that takes one or several frames a trigger, each stage into a new file.

    Parameters
    ----------
    beamline : SimBeamline
        What it looks at.
    folder : Path
        For the files; the root of the `resource` documents.
    name : str
        The data key of the frames is this and ``_image``.

    Attributes
    ----------
    exposure_time : signal
        In seconds.
    num_images : signal
        Frames a trigger. What it is when the detector is staged counts.
    trigger_mode : signal
        "Internal": the frames are taken at once. "External": one at each pulse of a rotation
        stage that has `on_pulse` among its listeners.
    """

    exposure_time = Component(Signal, value=0.0, kind="config")
    num_images = Component(Signal, value=1, kind="config")
    trigger_mode = Component(Signal, value="Internal", kind="config")

    def __init__(self, beamline: "SimBeamline", folder: Path, name: str = "camera") -> None:
        super().__init__(name=name)
        self._beamline = beamline
        self.exposure_time.put(beamline.shots.full_exposure_s)
        self._folder = folder.absolute()
        self._file: GrowingFile | None = None
        self._documents: deque[tuple[str, Any]] = deque()
        self._armed: Status | None = None

    @property
    def image_key(self) -> str:
        """Data key of the frames."""
        return f"{self.name}_image"

    def stage(self) -> list[object]:
        staged = list(super().stage())
        self._beamline.shots.new_scan()
        self._frames_a_point = int(self.num_images.get())
        name = f"{uuid4()}.h5"
        self._file = GrowingFile(
            self._folder / name,
            {
                FRAMES: (self._beamline.shots.exposure.frame_shape, "<u2"),
                SECONDS: ((), "<u4"),
                NANOSECONDS: ((), "<u4"),
            },
        )
        resource, self._compose_datum, _ = compose_resource(
            spec="AD_HDF5",
            root=str(self._folder),
            resource_path=name,
            resource_kwargs={"frame_per_point": self._frames_a_point},
            path_semantics="posix",
        )
        self._documents.append(("resource", resource))
        return staged

    def unstage(self) -> list[object]:
        if self._armed is not None:
            self._armed.set_finished()  # given up: who unstages an armed camera knows why
            self._armed = None
        if self._file is not None:
            self._file.close()
            self._file = None
        self._documents.clear()
        return list(super().unstage())

    def trigger(self) -> Status:
        if self._file is None:
            raise ConfigurationError(
                f"{self.name}: expected to be staged before it is triggered, because staging opens "
                "its file; stage it in the plan"
            )
        if self.trigger_mode.get() == "External":
            self._armed = Status(self)
            return self._armed
        for part in range(self._frames_a_point):
            frame = self._beamline.expose(self.exposure_time.get(), part)
            self._append(self._file, frame, time.time())
        status = Status(self)
        status.set_finished()
        return status

    def on_pulse(self, pulse: "Pulse") -> None:
        """Take a frame, if armed for external triggers."""
        if self._armed is None or self._file is None:
            return
        frame = self._beamline.expose(self.exposure_time.get(), angle_deg=pulse.angle_deg)
        self._append(self._file, frame, pulse.time)
        if self._file.count % self._frames_a_point == 0:
            self._armed.set_finished()
            self._armed = None

    def _append(self, file: GrowingFile, frame: np.ndarray, when: float) -> None:
        seconds, fraction = divmod(when, 1)
        file.append(
            {
                SECONDS: seconds - EPICS_EPOCH,
                NANOSECONDS: round(fraction * 1e9),
                FRAMES: frame,
            }
        )
        point, rest = divmod(file.count, self._frames_a_point)
        if rest == 0:
            datum = self._compose_datum(datum_kwargs={"point_number": point - 1})
            self._documents.append(("datum", datum))
            self._reading = {"value": datum["datum_id"], "timestamp": time.time()}

    def describe(self) -> dict[str, dict[str, Any]]:
        key = {
            "source": f"SIM:{self.name}",
            "dtype": "array",
            "shape": [self._frames_a_point, *self._beamline.shots.exposure.frame_shape],
            "dtype_numpy": "<u2",
            "external": "FILESTORE:",
        }
        return {**super().describe(), self.image_key: key}

    def read(self) -> dict[str, dict[str, Any]]:
        return {**super().read(), self.image_key: self._reading}

    def collect_asset_docs(self) -> Iterator[tuple[str, Any]]:
        """The `resource` and `datum` documents since the last time."""
        while self._documents:
            yield self._documents.popleft()
