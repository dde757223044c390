"""Simulated ophyd devices of a tomography beamline: a rotation stage and a camera.

Enter: motions and triggers from a plan. Leave: readings with the frames inside the events, as
simple beamlines record them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from ophyd.sim import SynAxis, SynSignal


class SimRotation(SynAxis):
    """A rotation stage that arrives at once, in degrees."""

    def describe(self) -> dict[str, dict[str, Any]]:
        return {
            name: {**key, "units": "deg", "precision": 4}
            for name, key in super().describe().items()
        }


class SimCamera(SynSignal):
    """A camera that exposes a frame when it is triggered.

    Parameters
    ----------
    expose : callable
        Returns one frame, shape (row, column).
    name : str
    """

    def __init__(self, expose: Callable[[], np.ndarray], name: str = "camera") -> None:
        super().__init__(func=expose, name=name)

    def describe(self) -> dict[str, dict[str, Any]]:
        frame = np.asarray(self.get())
        return {
            name: {**key, "shape": list(frame.shape), "dtype_numpy": frame.dtype.str}
            for name, key in super().describe().items()
        }
