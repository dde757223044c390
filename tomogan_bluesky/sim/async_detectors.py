"""Simulated ophyd-async detectors: a camera, and an encoder box as PandA is one.

Enter: triggers of step and fly scans. Leave: HDF5 files in SWMR mode, one of frames and one of
the angle of each frame, and the documents that refer to them.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import numpy as np
from ophyd_async.core import (
    DetectorAcquireLogic,
    DetectorDataLogic,
    DetectorTriggerLogic,
    PathProvider,
    SignalDict,
    SignalR,
    SignalRW,
    StandardDetector,
    StreamableDataProvider,
    StreamResourceDataProvider,
    StreamResourceInfo,
    soft_signal_r_and_setter,
    soft_signal_rw,
)

from .async_rotation import Pulse
from .exposure import Shots
from .growing_file import GrowingFile

logger = logging.getLogger(__name__)

FRAMES = "/entry/data/data"
ANGLES = "Angle"

Taken = np.ndarray | float


class AsyncCamera(StandardDetector):
    """A camera that writes its frames into a file, in step and fly scans.

    Without a pulse it exposes when it is triggered; armed for an external edge it exposes at each
    pulse of the rotation stage.

    Parameters
    ----------
    shots : Shots
        The frames that it may see.
    expose : callable
        Awaited: the one that it sees at a pulse or now, exposed for a time in seconds.
    check : callable
        Awaited before it is armed; raises if it can't expose.
    paths : PathProvider
        Names its files.
    name : str

    Attributes
    ----------
    exposure_time : signal
        In seconds.
    """

    def __init__(
        self,
        shots: Shots,
        expose: Callable[[float, Pulse | None], Awaitable[np.ndarray]],
        check: Callable[[], Awaitable[None]],
        paths: PathProvider,
        name: str = "",
    ) -> None:
        self.exposure_time = soft_signal_rw(float, shots.full_exposure_s, units="s")

        async def take(pulse: Pulse | None) -> Taken:
            return await expose(await self.exposure_time.get_value(), pulse)

        recorder = Recorder(take)
        self.on_pulse = recorder.on_pulse
        self.add_detector_logics(
            _CameraTriggers(recorder, self.exposure_time),
            _Acquiring(recorder, shots.new_scan, check),
            _Writing(recorder, paths, FRAMES, shots.exposure.frame_shape, "<u2"),
        )
        super().__init__(name=name)


class AsyncEncoder(StandardDetector):
    """A box that writes the angle of each pulse into a file, as PandA does.

    Parameters
    ----------
    paths : PathProvider
    dataset : str
        In the file; it is the data key too, which has no units.
    name : str
    """

    def __init__(self, paths: PathProvider, dataset: str = ANGLES, name: str = "") -> None:
        async def take(pulse: Pulse | None) -> Taken:
            assert pulse is not None  # there is no other trigger
            return pulse.angle_deg

        recorder = Recorder(take)
        self.on_pulse = recorder.on_pulse
        self.add_detector_logics(
            _EncoderTriggers(recorder),
            _Acquiring(recorder),
            _Writing(recorder, paths, f"/{dataset}", (), "<f8", data_key=dataset),
        )
        super().__init__(name=name)


class Recorder:
    """What the logics of one detector share: its triggers, its file and a task that serves both.

    Parameters
    ----------
    take : callable
        Gives what is to be written for a pulse, or for None when there is no pulse to wait for.
    """

    def __init__(self, take: Callable[[Pulse | None], Awaitable[Taken]]) -> None:
        self._take = take
        self.written, self._set_written = soft_signal_r_and_setter(int)
        self.external = False
        self.n_wanted = 1
        self.period_s = 0.0
        self._file: GrowingFile | None = None
        self._dataset = ""
        self._pulses: asyncio.Queue[Pulse] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    def open(self, file: GrowingFile, dataset: str) -> None:
        self._file, self._dataset = file, dataset
        self._set_written(0)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def on_pulse(self, pulse: Pulse) -> None:
        """Take a pulse, if armed."""
        if self.external and self._task is not None and not self._task.done():
            self._pulses.put_nowait(pulse)

    def start(self) -> None:
        self._pulses = asyncio.Queue()
        self._task = asyncio.create_task(self._record(), name="tomogan-detector")
        self._task.add_done_callback(_report)

    async def finished(self) -> None:
        if self._task is not None:
            await self._task

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _record(self) -> None:
        assert self._file is not None  # the detector was prepared
        for _ in range(self.n_wanted):
            pulse = None
            if self.external:
                pulse = await self._pulses.get()
            else:
                await asyncio.sleep(self.period_s)
            self._file.append({self._dataset: await self._take(pulse)})
            self._set_written(self._file.count)


def _report(task: asyncio.Task[None]) -> None:
    """Say at once why a detector stopped: those who wait for its frames only see a timeout."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("a detector stopped recording: %s", error, exc_info=error)


class _CameraTriggers(DetectorTriggerLogic):
    def __init__(self, recorder: Recorder, exposure_time: SignalRW[float]) -> None:
        self._recorder = recorder
        self._exposure_time = exposure_time

    def config_sigs(self) -> set[SignalR]:
        return {self._exposure_time}

    def get_deadtime(self, config_values: SignalDict) -> float:
        return 0.0

    async def prepare_internal(self, num: int, livetime: float, deadtime: float) -> None:
        await self.prepare_edge(num, livetime)
        self._recorder.external = False
        self._recorder.period_s = await self._exposure_time.get_value() + deadtime

    async def prepare_edge(self, num: int, livetime: float) -> None:
        self._recorder.external = True
        self._recorder.n_wanted = num
        if livetime:
            await self._exposure_time.set(livetime)


class _EncoderTriggers(DetectorTriggerLogic):
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def get_deadtime(self, config_values: SignalDict) -> float:
        return 0.0

    async def prepare_level(self, num: int) -> None:
        self._recorder.external = True
        self._recorder.n_wanted = num


class _Acquiring(DetectorAcquireLogic):
    def __init__(
        self,
        recorder: Recorder,
        on_stage: Callable[[], None] | None = None,
        check: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._recorder = recorder
        self._on_stage = on_stage
        self._check = check

    async def ensure_ready(self) -> None:
        await self.ensure_stopped()
        if self._on_stage is not None:
            self._on_stage()

    async def start_acquiring(self) -> None:
        if self._check is not None and not self._recorder.external:
            await self._check()
        self._recorder.start()

    async def wait_for_idle(self) -> None:
        await self._recorder.finished()

    async def ensure_stopped(self) -> None:
        await self._recorder.stop()


class _Writing(DetectorDataLogic):
    """One dataset in a new file, each time that the detector is staged."""

    def __init__(
        self,
        recorder: Recorder,
        paths: PathProvider,
        dataset: str,
        shape: tuple[int, ...],
        dtype: str,
        data_key: str = "",
    ) -> None:
        self._recorder = recorder
        self._paths = paths
        self._dataset = dataset
        self._shape = shape
        self._dtype = dtype
        self._data_key = data_key

    async def prepare_unbounded(self, datakey_name: str) -> StreamableDataProvider:
        info = self._paths(datakey_name)
        name = f"{info.filename}.h5"
        file = GrowingFile(
            Path(info.directory_path) / name, {self._dataset: (self._shape, self._dtype)}
        )
        self._recorder.open(file, self._dataset)
        return StreamResourceDataProvider(
            uri=f"{info.directory_uri}{name}",
            resources=[
                StreamResourceInfo(
                    data_key=self._data_key or datakey_name,
                    shape=self._shape,
                    chunk_shape=file.chunk_shape(self._dataset),
                    dtype_numpy=self._dtype,
                    parameters={"dataset": self._dataset},
                )
            ],
            mimetype="application/x-hdf5",
            collections_written_signal=self._recorder.written,
        )

    async def stop(self) -> None:
        self._recorder.close()

    def get_hinted_fields(self, datakey_name: str) -> Sequence[str]:
        return [self._data_key or datakey_name]
