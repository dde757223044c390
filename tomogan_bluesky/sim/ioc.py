"""A simulated beamline as an EPICS IOC: ``python -m tomogan_bluesky.sim.ioc``.

Enter: puts over Channel Access. Leave: the records of a rotation stage, a shutter, a sample stage
and a camera, under the names that motor records and areaDetector give them. Serves the loopback
interface alone.
"""

import argparse
import asyncio
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from caproto import ChannelType
from caproto.asyncio.server import Context
from caproto.server import PVGroup, SubGroup, pvproperty

from ..errors import TomoGANError
from ..geometry import ScanGeometry
from ..recon.beam import Beam, line_integrals
from ..recon.phantoms import make_phantom
from .exposure import Exposure, Shots
from .sample_file import load_sample

LOOPBACK = "127.0.0.1"


class Rotation(PVGroup):
    """A motor record that moves at once."""

    async def _start(self, instance: Any, async_lib: Any) -> None:
        record = instance.field_inst
        record.value_write_hook = self._move
        await record.engineering_units.write("deg")
        await record.user_readback_value.write_metadata(units="deg", precision=4)

    async def _move(self, instance: Any, value: float) -> None:
        record = self.motor.field_inst
        await record.done_moving_to_value.write(0)
        await record.user_readback_value.write(value)
        await record.done_moving_to_value.write(1)

    motor = pvproperty(name="", value=0.0, record="motor", precision=4, units="deg", startup=_start)


def beamline(shots: Shots, prefix: str) -> PVGroup:
    """The records of a beamline.

    Parameters
    ----------
    shots : Shots
        What the camera sees.
    prefix : str
        Of the names of all records.
    """
    rows, columns = shots.exposure.frame_shape

    class Camera(PVGroup):
        async def _begin_scan(self, instance: Any, value: int) -> int:
            shots.new_scan()
            await self.counter_rbv.write(value)
            return value

        async def _expose(self, instance: Any, value: int) -> int:
            if value:
                await self.state.write("Acquire")
                try:
                    await self.image.write((await self._frame()).astype(np.int32).ravel())
                except TomoGANError as error:  # a putter that raises leaves its client waiting
                    await self.message.write(str(error))
                    await self.state.write("Error")
                else:
                    await self.counter_rbv.write(self.counter_rbv.value + 1)
                    await self.state.write("Idle")
            return 0

        async def _frame(self) -> np.ndarray:
            await asyncio.sleep(self.exposure_time.value)
            ioc = self.parent
            return shots.take(
                shutter=ioc.shutter.value,
                sample=ioc.sample.value,
                angle_deg=ioc.rotation.motor.field_inst.user_readback_value.value,
                exposure_s=self.exposure_time.value,
            )

        acquire = pvproperty(name="cam1:Acquire", value=0, put=_expose, doc="1: take a frame")
        exposure_time = pvproperty(
            name="cam1:AcquireTime", value=shots.full_exposure_s, units="s", precision=6
        )
        state = pvproperty(
            name="cam1:DetectorState_RBV",
            value="Idle",
            dtype=ChannelType.ENUM,
            enum_strings=("Idle", "Acquire", "Error"),
            read_only=True,
        )
        message = pvproperty(
            name="cam1:StatusMessage_RBV",
            value="",
            dtype=ChannelType.CHAR,
            max_length=1024,
            report_as_string=True,
            read_only=True,
        )
        counter = pvproperty(
            name="cam1:ArrayCounter", value=0, put=_begin_scan, doc="a put begins a scan"
        )
        counter_rbv = pvproperty(name="cam1:ArrayCounter_RBV", value=0, read_only=True)
        columns_rbv = pvproperty(name="cam1:ArraySizeX_RBV", value=columns, read_only=True)
        rows_rbv = pvproperty(name="cam1:ArraySizeY_RBV", value=rows, read_only=True)
        image = pvproperty(
            name="image1:ArrayData",
            value=[0] * (rows * columns),
            dtype=ChannelType.LONG,  # Channel Access has no unsigned 16-bit numbers
            max_length=rows * columns,
            read_only=True,
        )

    class Beamline(PVGroup):
        rotation = SubGroup(Rotation, prefix="rot")
        camera = SubGroup(Camera, prefix="")
        shutter = pvproperty(
            name="shutter", value="closed", dtype=ChannelType.ENUM, enum_strings=("closed", "open")
        )
        sample = pvproperty(
            name="sample", value="out", dtype=ChannelType.ENUM, enum_strings=("out", "in")
        )

    return Beamline(prefix=prefix)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until interrupted or, with ``--until-input-closes``, until that.

    Once Channel Access clients are served, the port is printed.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tomogan_bluesky.sim.ioc", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--sample", type=Path, help="written by save_sample; else a foam, at 181 angles to 180°"
    )
    parser.add_argument("--prefix", default="SIM:", help="of the names of all records (SIM:)")
    parser.add_argument("--port", type=int, help="of Channel Access; a free one by default")
    parser.add_argument("--until-input-closes", action="store_true")
    args = parser.parse_args(arguments)
    port = _free_port() if args.port is None else args.port
    shots = _foam() if args.sample is None else load_sample(args.sample)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as beacons:
        beacons.bind((LOOPBACK, 0))  # the server beats its drum, and nobody has to listen
        os.environ |= {
            "EPICS_CA_SERVER_PORT": str(port),
            "EPICS_CAS_SERVER_PORT": str(port),
            "EPICS_CAS_BEACON_ADDR_LIST": f"{LOOPBACK}:{beacons.getsockname()[1]}",
            "EPICS_CAS_AUTO_BEACON_ADDR_LIST": "NO",
        }
        records = beamline(shots, args.prefix).pvdb
        asyncio.run(_serve(records, port, args.until_input_closes))


async def _serve(records: Any, port: int, until_input_closes: bool) -> None:
    async def say_ready(async_lib: Any) -> None:
        sys.stdout.write(f"{port}\n")
        sys.stdout.flush()

    tasks = [
        asyncio.create_task(
            Context(records, [LOOPBACK]).run(startup_hook=say_ready), name="tomogan-ioc"
        )
    ]
    if until_input_closes:
        tasks.append(asyncio.create_task(_input_closed(), name="tomogan-ioc-input"))
    done, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    for task in done:
        task.result()


async def _input_closed() -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.read(1024):
        pass


def _foam(rows: int = 8, columns: int = 128) -> Shots:
    angles_deg = np.linspace(0.0, 180.0, 181)
    geometry = ScanGeometry(np.deg2rad(angles_deg), (columns - 1) / 2 + 1.7, columns)
    phantom = make_phantom("foam", 2 * columns, np.random.default_rng(0), rows)
    return Shots(Exposure(line_integrals(phantom, geometry)[0], angles_deg, Beam()))


def _free_port() -> int:
    """A port that nobody uses, neither by UDP, which searches use, nor by TCP."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
    ):
        udp.bind((LOOPBACK, 0))
        port = int(udp.getsockname()[1])
        tcp.bind((LOOPBACK, port))
        return port


if __name__ == "__main__":
    main()
