"""The same small scan, recorded in each way that a beamline records scans."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path

import bluesky.plan_stubs as bps
import numpy as np
from bluesky import RunEngine
from bluesky.preprocessors import plan_mutator
from bluesky.utils import RunEngineInterrupted

from tomogan_bluesky.recon.beam import Beam
from tomogan_bluesky.sim.beamline import SimBeamline
from tomogan_bluesky.sim.fly_plans import tomo_fly_scan, tomo_sweep_scan
from tomogan_bluesky.sim.plans import dark_flat, tomo_scan

ROWS, COLUMNS = 3, 32
ANGLES_DEG = np.linspace(0.0, 180.0, 31)
DARKS, FLATS = 2, 3
CENTRE = 16.2

Documents = list[tuple[str, dict]]


REFERENCES = {"n_darks": DARKS, "n_flats": FLATS}


@cache
def phantom() -> np.ndarray:
    y, x = np.mgrid[:COLUMNS, :COLUMNS] / COLUMNS * 2 - 1
    discs = [((x - 0.2) ** 2 + y**2 < r**2).astype(np.float32) for r in (0.4, 0.5, 0.6)]
    return np.stack(discs).repeat(2, 1).repeat(2, 2)


def beamline(**options) -> SimBeamline:
    """Always of the same sample and the same photons."""
    options = {"rotation_centre": CENTRE, "full_exposure_s": 0.001, **options}
    return SimBeamline(phantom(), ANGLES_DEG, Beam(seed=5), **options)


@contextmanager
def run_engine() -> Iterator[RunEngine]:
    """A RunEngine that leaves no thread, no event loop and no task of a device behind."""
    RE = RunEngine()
    loop, thread = RE.loop, RE._th
    try:
        yield RE
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        tasks = asyncio.all_tasks(loop)
        busy = [task.get_name() for task in tasks if task.get_name().startswith("tomogan")]
        # When a fly scan is stopped, ophyd-async goes on to wait for its frames until its timeout.
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks))
        loop.close()
        assert not busy, f"devices still at work: {busy}"


def step(b, camera=None, **options):
    """The plan of a step scan with the devices of a beamline."""
    options = {**REFERENCES, **options}
    return tomo_scan(camera or b.camera, b.rotation, b.shutter, b.sample, ANGLES_DEG, **options)


def _events(RE: RunEngine, folder: Path) -> None:
    """Frames inside the events."""
    RE(step(beamline()))


def _area_detector(RE: RunEngine, folder: Path, frames_a_point: int = 1) -> None:
    """Frames in a file, with resource and datum documents."""
    from tomogan_bluesky.sim.area_detector import SimAreaDetector

    b = beamline()
    camera = SimAreaDetector(b, folder)
    camera.num_images.put(frames_a_point)
    RE(step(b, camera))


def _async_beamline(folder: Path):
    from tomogan_bluesky.sim.async_beamline import AsyncBeamline

    b = AsyncBeamline(beamline().shots, folder)
    b.connect()
    return b


def _async_step(RE: RunEngine, folder: Path) -> None:
    """A step scan of ophyd-async devices: each stream_datum comes before its event."""
    RE(step(_async_beamline(folder)))


def fly(b, encoder=None, **options):
    """The plan of a fly scan, which says how far it is some times before it ends."""
    return tomo_fly_scan(
        b.camera,
        encoder,
        b.rotation,
        b.shutter,
        b.sample,
        ANGLES_DEG,
        **{"flush_period_s": 0.01, "period_s": 0.001, **REFERENCES, **options},
    )


def _async_fly(RE: RunEngine, folder: Path) -> None:
    """A fly scan: no events; frames in one file and their angles in another."""
    b = _async_beamline(folder)
    RE(fly(b, b.encoder))


def _async_fly_start_angles(RE: RunEngine, folder: Path) -> None:
    """A fly scan without an encoder: the angles are a list in the start document."""
    RE(fly(_async_beamline(folder), md={"angles_deg": ANGLES_DEG.tolist()}))


def _hex(RE: RunEngine, folder: Path) -> None:
    """As at HEX: darks and flats in a run of their own, projections in a stream `tomo`."""
    b = _async_beamline(folder)
    uids: list[str] = []

    def both():
        references = yield from dark_flat(b.camera, b.shutter, b.sample, **REFERENCES)
        uids.append(references)
        yield from fly(
            b, b.encoder, dark_flat_run=references, projection_stream="tomo", n_darks=0, n_flats=0
        )

    RE(both())


def sweep(b, camera, rotation):
    """The plan of a sweep with one event for all frames."""
    return tomo_sweep_scan(
        camera, rotation, b.shutter, b.sample, ANGLES_DEG, period_s=0.001, **REFERENCES
    )


def _fxi(RE: RunEngine, folder: Path) -> None:
    """As at FXI: one event for all frames of a stream, and a monitor stream of the angle."""
    from tomogan_bluesky.sim.area_detector import SimAreaDetector
    from tomogan_bluesky.sim.async_beamline import AsyncBeamline

    b = beamline()
    camera = SimAreaDetector(b, folder)
    moving = AsyncBeamline(b.shots, folder)
    moving.connect()
    moving.rotation.listeners[:] = [camera.on_pulse]
    RE(sweep(b, camera, moving.rotation))


_iocs = count()


@contextmanager
def epics(b):
    """The devices of an IOC that sees what a beamline sees."""
    from caproto.threading.pyepics_compat import PV

    from tomogan_bluesky.sim.epics import EpicsBeamline, running_ioc

    # A client remembers names, and does not search for them again: each IOC has names of its own.
    with running_ioc(b.shots, prefix=f"SIM{next(_iocs)}:") as prefix:
        try:
            yield EpicsBeamline(prefix)
        finally:  # or the client would go on to search for an IOC that is no more
            for circuit in list(PV.default_context().circuit_managers.values()):
                circuit.disconnect()


def _ioc(RE: RunEngine, folder: Path) -> None:
    """EPICS devices of an IOC in a process of its own, over Channel Access."""
    with epics(beamline()) as devices:
        RE(step(devices))


FLAVOURS: dict[str, Callable[[RunEngine, Path], None]] = {
    "events": _events,
    "area_detector": _area_detector,
    "area_detector_2": lambda RE, folder: _area_detector(RE, folder, frames_a_point=2),
    "async_step": _async_step,
    "async_fly": _async_fly,
    "async_fly_start_angles": _async_fly_start_angles,
    "hex": _hex,
    "fxi": _fxi,
    "ioc": _ioc,
}


class Paused:
    """A RunEngine whose scan is paused after some projections, and resumed.

    The last checkpoint is before the point that was taken last: it is taken again.
    """

    def __init__(self, RE: RunEngine, after: int) -> None:
        self._RE = RE
        self._after = after

    def __call__(self, plan) -> None:
        saved = count(1)
        first = DARKS + FLATS

        def pause(message):
            if message.command == "save" and next(saved) == first + self._after:
                return None, bps.pause()
            return None, None

        try:
            self._RE(plan_mutator(plan, pause))
        except RunEngineInterrupted:
            self._RE.resume()
        else:
            raise AssertionError("the scan was not paused")


def run(
    flavour: str,
    folder: Path,
    *subscribers: Callable[[str, dict], None],
    pause_after: int | None = None,
) -> Documents:
    """Scan the sample and return the documents, of one run or more, in their order.

    Subscribers get the documents while the scan runs. Where `pause_after` is given, the scan is
    paused after so many projections, rewound and resumed.
    """
    documents: Documents = []
    with run_engine() as RE:
        RE.subscribe(lambda name, doc: documents.append((name, doc)))
        for subscriber in subscribers:
            RE.subscribe(subscriber)
        FLAVOURS[flavour](RE if pause_after is None else Paused(RE, pause_after), folder)
    return documents
