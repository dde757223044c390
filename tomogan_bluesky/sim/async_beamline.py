"""The simulated beamline of ophyd-async devices, which write files in step and fly scans.

Enter: the frames of a sample, and a folder. Leave: the devices that a plan moves and reads.
"""

import asyncio
from pathlib import Path

import numpy as np
from bluesky.run_engine import call_in_bluesky_event_loop
from ophyd_async.core import StaticPathProvider, UUIDFilenameProvider, soft_signal_rw

from .async_detectors import ANGLES, AsyncCamera, AsyncEncoder
from .async_rotation import AsyncRotation, Pulse
from .exposure import Shots


class AsyncBeamline:
    """A sample on a rotation stage between a shutter and a camera, beside an encoder box.

    A fly scan is wired as in hardware: while the stage sweeps it sends a pulse at each angle, and
    the camera and the encoder box take what arrives in their own time.

    Parameters
    ----------
    shots : Shots
        What the camera sees.
    folder : Path
        For the files of camera and encoder.
    angle_dataset : str
        What the encoder calls the angle; a data key of the documents.

    Attributes
    ----------
    rotation, camera, encoder, shutter, sample : ophyd-async devices
        The shutter is "open" or "closed", the sample "in" or "out".
    """

    def __init__(self, shots: Shots, folder: Path, angle_dataset: str = ANGLES) -> None:
        self.shots = shots
        paths = StaticPathProvider(UUIDFilenameProvider(), folder.absolute())
        exposure = shots.exposure
        self.rotation = AsyncRotation(
            exposure.index_of, float(exposure.angles_deg[0]), name="rotation"
        )
        self.camera = AsyncCamera(shots, self.expose, self.check, paths, name="camera")
        self.encoder = AsyncEncoder(paths, angle_dataset, name="encoder")
        self.shutter = soft_signal_rw(str, "closed", name="shutter")
        self.sample = soft_signal_rw(str, "out", name="sample")
        self.rotation.listeners += [self.camera.on_pulse, self.encoder.on_pulse]

    def connect(self) -> None:
        """Make the devices ready, in the event loop of the RunEngine that was made before."""

        async def connect_all() -> None:
            devices = self.rotation, self.camera, self.encoder, self.shutter, self.sample
            await asyncio.gather(*(device.connect() for device in devices))

        call_in_bluesky_event_loop(connect_all())

    async def check(self) -> None:
        """Raise if the camera can't expose now: a projection at an unknown angle."""
        if await self.shutter.get_value() == "open" and await self.sample.get_value() == "in":
            self.shots.exposure.index_of(await self.rotation.user_readback.get_value())

    async def expose(self, exposure_s: float, pulse: Pulse | None = None) -> np.ndarray:
        """The frame that the camera sees at a pulse or, without one, where the stage is."""
        if pulse is not None:
            angle = pulse.angle_deg
        else:
            angle = await self.rotation.user_readback.get_value()
        return self.shots.take(
            shutter=await self.shutter.get_value(),
            sample=await self.sample.get_value(),
            angle_deg=angle,
            exposure_s=exposure_s,
        )
