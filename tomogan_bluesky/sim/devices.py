"""Simulated ophyd devices of a tomography beamline: a rotation stage and a camera.

Enter: motions and triggers from a plan. Leave: readings with the frames inside the events, as
simple beamlines record them.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from ophyd import Component, Device, Signal
from ophyd.sim import SynAxis
from ophyd.status import Status

from .exposure import Shots


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
    shots : Shots
        The frames that it may see.
    expose : callable
        Returns the one that it sees now, exposed for a time in seconds.
    name : str
        Also the data key of the frames.

    Attributes
    ----------
    exposure_time : signal
        In seconds.
    """

    exposure_time = Component(Signal, value=0.0, kind="config")

    def __init__(
        self, shots: Shots, expose: Callable[[float], np.ndarray], name: str = "camera"
    ) -> None:
        super().__init__(name=name)
        self._shots, self._expose = shots, expose
        self.exposure_time.put(shots.full_exposure_s)
        self._frame: np.ndarray | None = None
        self._time = 0.0

    def stage(self) -> list[object]:
        self._shots.new_scan()
        return list(super().stage())

    def trigger(self) -> Status:
        self._frame = self._expose(self.exposure_time.get())
        self._time = time.time()
        status = Status(self)
        status.set_finished()
        return status

    def describe(self) -> dict[str, dict[str, Any]]:
        key = {
            "source": f"SIM:{self.name}",
            "dtype": "array",
            "shape": list(self._shots.exposure.frame_shape),
            "dtype_numpy": "<u2",
        }
        return {**super().describe(), self.name: key}

    def read(self) -> dict[str, dict[str, Any]]:
        reading = {"value": self._frame, "timestamp": self._time}
        return {**super().read(), self.name: reading}
