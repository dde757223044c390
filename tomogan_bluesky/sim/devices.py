"""Simulated ophyd devices of a tomography beamline: a rotation stage and a camera.

Enter: motions and triggers from a plan. Leave: readings with the frames inside the events, as
simple beamlines record them.
"""

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from ophyd import Component, Device, Signal
from ophyd.sim import SynAxis
from ophyd.status import Status

if TYPE_CHECKING:
    from .beamline import SimBeamline


class SimRotation(SynAxis):
    """A rotation stage that arrives at once, in degrees."""

    def describe(self) -> dict[str, dict[str, Any]]:
        return {
            name: {**key, "units": "deg", "precision": 4}
            for name, key in super().describe().items()
        }


class SimCamera(Device):
    """A camera that exposes a frame when it is triggered, and has it read into the event.

    Parameters
    ----------
    beamline : SimBeamline
        What it looks at.
    name : str
        Also the data key of the frames.

    Attributes
    ----------
    exposure_time : signal
        In seconds.
    """

    exposure_time = Component(Signal, value=0.0, kind="config")

    def __init__(self, beamline: "SimBeamline", name: str = "camera") -> None:
        super().__init__(name=name)
        self._beamline = beamline
        self.exposure_time.put(beamline.shots.full_exposure_s)
        self._frame: np.ndarray | None = None
        self._time = 0.0

    def stage(self) -> list[object]:
        self._beamline.shots.new_scan()
        return list(super().stage())

    def trigger(self) -> Status:
        self._frame = self._beamline.expose(self.exposure_time.get())
        self._time = time.time()
        status = Status(self)
        status.set_finished()
        return status

    def describe(self) -> dict[str, dict[str, Any]]:
        key = {
            "source": f"SIM:{self.name}",
            "dtype": "array",
            "shape": list(self._beamline.shots.exposure.frame_shape),
            "dtype_numpy": "<u2",
        }
        return {**super().describe(), self.name: key}

    def read(self) -> dict[str, dict[str, Any]]:
        reading = {"value": self._frame, "timestamp": self._time}
        return {**super().read(), self.name: reading}
