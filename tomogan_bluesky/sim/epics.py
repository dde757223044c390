"""The simulated beamline over Channel Access: an IOC in a process of its own, and its devices.

Enters: a sample. Leave: ophyd devices of the IOC's records, as of any EPICS beamline.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from ophyd import Component, Device, EpicsMotor, EpicsSignal, EpicsSignalRO, get_cl

from ..errors import ConfigurationError, TomoGANError
from .exposure import Shots
from .sample_file import save_sample

_STOPS_WITHIN_S = 10


@contextmanager
def running_ioc(shots: Shots, prefix: str = "SIM:") -> Iterator[str]:
    """Run the IOC on loopback, on a free port, for as long as the context lasts.

    The environment is set so that Channel Access clients of this process find it.

    Parameters
    ----------
    shots : Shots
        What its camera sees, from the first frame on.
    prefix : str
        Of the names of its records. A Channel Access client remembers names, and may not find
        those of an IOC that ran before in this process: use another prefix then.

    Yields
    ------
    str
        The prefix.

    Raises
    ------
    ConfigurationError
        It did not start.
    """
    with TemporaryDirectory(prefix="tomogan-ioc-") as folder:
        sample = Path(folder) / "sample.npz"
        save_sample(sample, shots)
        command = [sys.executable, "-m", "tomogan_bluesky.sim.ioc", "--until-input-closes"]
        with subprocess.Popen(
            [*command, "--sample", str(sample), "--prefix", prefix],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C, which pauses a RunEngine, is none of its business
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                port = process.stdout.readline().strip()
                if not port:
                    raise ConfigurationError(
                        f"the IOC ended with exit status {process.wait()} before it served; see "
                        "what it said on stderr"
                    )
                found_here = {
                    "EPICS_CA_ADDR_LIST": f"127.0.0.1:{port}",
                    "EPICS_CA_AUTO_ADDR_LIST": "NO",
                }
                with _environment(found_here):
                    yield prefix
            finally:
                process.stdin.close()
                try:
                    process.wait(_STOPS_WITHIN_S)
                except subprocess.TimeoutExpired:
                    process.kill()


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class EpicsCamera(Device):
    """A camera of areaDetector's records, whose image is read into the event."""

    acquire = Component(EpicsSignal, "cam1:Acquire", kind="omitted", trigger_value=1)
    exposure_time = Component(EpicsSignal, "cam1:AcquireTime", kind="config", put_complete=True)
    state = Component(EpicsSignalRO, "cam1:DetectorState_RBV", string=True, kind="omitted")
    message = Component(EpicsSignalRO, "cam1:StatusMessage_RBV", string=True, kind="omitted")
    counter = Component(EpicsSignal, "cam1:ArrayCounter", put_complete=True, kind="omitted")
    columns = Component(EpicsSignalRO, "cam1:ArraySizeX_RBV", kind="config")
    rows = Component(EpicsSignalRO, "cam1:ArraySizeY_RBV", kind="config")
    image = Component(EpicsSignalRO, "image1:ArrayData", kind="omitted")

    def __init__(self, prefix: str, *, name: str, **options: Any) -> None:
        super().__init__(prefix, name=name, **options)
        self.stage_sigs["counter"] = 0  # a new scan

    def describe(self) -> dict[str, dict[str, Any]]:
        key = {
            "source": f"PV:{self.image.pvname}",
            "dtype": "array",
            "shape": [int(self.rows.get()), int(self.columns.get())],
            "dtype_numpy": "<u2",
        }
        return {**super().describe(), self.name: key}

    def read(self) -> dict[str, dict[str, Any]]:
        """The frame that was taken last.

        Raises
        ------
        TomoGANError
            The camera could not take it, and says why.
        """
        if self.state.get(use_monitor=False) == "Error":
            raise TomoGANError(f"{self.name}: {self.message.get(use_monitor=False)}")
        counts = np.asarray(self.image.get(use_monitor=False), dtype=np.uint16)
        frame = counts.reshape(int(self.rows.get()), int(self.columns.get()))
        return {**super().read(), self.name: {"value": frame, "timestamp": time.time()}}


class EpicsBeamline:
    """Devices of the records of `ioc.beamline`.

    Parameters
    ----------
    prefix : str
        As the IOC has it.
    timeout_s : float
        How long to wait for the records, in seconds.

    Attributes
    ----------
    rotation, camera, shutter, sample : ophyd devices
        The shutter is "open" or "closed", the sample "in" or "out".

    Raises
    ------
    ConfigurationError
        ophyd has no Channel Access client.
    TimeoutError
        Nobody serves the records.
    """

    def __init__(self, prefix: str = "SIM:", timeout_s: float = 10.0) -> None:
        if get_cl().name == "dummy":
            raise ConfigurationError(
                "ophyd: expected a client of Channel Access, got its dummy control layer; install "
                "caproto, and set no OPHYD_CONTROL_LAYER or set it to caproto"
            )
        self.rotation = EpicsMotor(f"{prefix}rot", name="rotation")
        self.camera = EpicsCamera(prefix, name="camera")
        self.shutter = EpicsSignal(
            f"{prefix}shutter", name="shutter", string=True, put_complete=True
        )
        self.sample = EpicsSignal(f"{prefix}sample", name="sample", string=True, put_complete=True)
        for device in (self.rotation, self.camera, self.shutter, self.sample):
            device.wait_for_connection(timeout=timeout_s)
