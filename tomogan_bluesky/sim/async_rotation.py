"""A simulated rotation stage of ophyd-async, for step and fly scans.

Enter: positions, and sweeps over many angles. Leave: readings in degrees and, during a sweep, a
pulse at each angle, which triggers detectors as the position-compare output of a real stage does.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from ophyd_async.core import (
    FlyableLogic,
    MovableLogic,
    SignalRW,
    StandardFlyable,
    StandardMovable,
    StandardReadable,
    StandardReadableFormat,
    TimeoutCalculator,
    soft_signal_r_and_setter,
    soft_signal_rw,
)


@dataclass(frozen=True)
class Pulse:
    """A trigger: where the stage was, and when (seconds since 1970)."""

    angle_deg: float
    time: float


@dataclass(frozen=True, eq=False)
class Sweep:
    """A flight of the stage: a pulse at each angle, with so many seconds before each."""

    angles_deg: Sequence[float] | np.ndarray
    period_s: float = 0.0


class AsyncRotation(StandardReadable, StandardMovable[float], StandardFlyable[Sweep, Sweep]):
    """A rotation stage that moves at once, and sweeps in fly scans. In degrees.

    Parameters
    ----------
    check : callable
        Raises if projections can't be taken at an angle.
    initial_deg : float
    name : str

    Attributes
    ----------
    listeners : list of callables
        Called with a `Pulse` at each angle of a sweep.
    """

    def __init__(
        self, check: Callable[[float], Any], initial_deg: float = 0.0, name: str = ""
    ) -> None:
        with self.add_children_as_readables(StandardReadableFormat.HINTED_SIGNAL):
            self.user_readback, self._arrive = soft_signal_r_and_setter(
                float, initial_deg, units="deg", precision=4
            )
        self.user_setpoint = soft_signal_rw(float, initial_deg, units="deg", precision=4)
        self._check = check
        self.listeners: list[Callable[[Pulse], None]] = []
        super().__init__(name=name)

    def set_name(self, name: str, *, child_name_separator: str | None = None) -> None:
        super().set_name(name, child_name_separator=child_name_separator)
        self.user_readback.set_name(name)  # readbacks of motors have the motor's own name

    @cached_property
    def movable_logic(self) -> MovableLogic[float]:
        return _Move(self.user_setpoint, self.user_readback, self._arrive)

    @cached_property
    def flyable_logic(self) -> FlyableLogic[Sweep, Sweep]:
        return _Fly(self)

    async def ready(self, sweep: Sweep) -> None:
        """Check a sweep, and move to where it starts."""
        for angle in sweep.angles_deg:
            self._check(angle)
        await self.set(float(sweep.angles_deg[0]))

    async def sweep(self, sweep: Sweep) -> None:
        """Pass by each angle and send its pulse."""
        for angle in sweep.angles_deg:
            await asyncio.sleep(sweep.period_s)
            self._arrive(float(angle))
            (reading,) = (await self.user_readback.read()).values()
            for listener in self.listeners:
                listener(Pulse(float(angle), reading["timestamp"]))


@dataclass
class _Move(MovableLogic[float]):
    setpoint: SignalRW[float]
    readback: Any
    arrive: Callable[[float], None]

    async def move(self, new_position: float, timeout: TimeoutCalculator) -> None:
        await self.setpoint.set(new_position)
        self.arrive(new_position)


class _Fly(FlyableLogic[Sweep, Sweep]):
    def __init__(self, rotation: AsyncRotation) -> None:
        self._rotation = rotation
        self._task: asyncio.Task[None] | None = None

    async def on_prepare(self, value: Sweep) -> Sweep:
        await self._rotation.ready(value)
        return value

    async def on_kickoff(self, ctx: Sweep) -> Sweep:
        self._task = asyncio.create_task(self._rotation.sweep(ctx), name="tomogan-sweep")
        return ctx

    async def on_complete(self, ctx: Sweep) -> None:
        if self._task is None:
            return
        await asyncio.wait([self._task])
        if not self._task.cancelled():  # one that was stopped is complete: who did so knows why
            await self._task

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
