"""Plans of a tomography beamline.

Enter: devices and the settings of a scan. Leave: messages for a RunEngine. The runs that they make
have the streams ``dark``, ``flat`` and ``primary``; or darks and flats have a run of their own,
whose uid the run of the projections names in its start document.
"""

from collections.abc import Generator, Mapping, Sequence
from typing import Any
from uuid import uuid4

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import numpy as np

DARK_FLAT_KEY = "current_dark_flat_scan_uid"
"""Start key that names the run of the darks and flats, as at NSLS-II's HEX."""

Plan = Generator[Any, Any, Any]
Angles = Sequence[float] | np.ndarray


def tomo_scan(
    camera: Any,
    rotation: Any,
    shutter: Any,
    sample: Any,
    angles_deg: Angles,
    *,
    n_darks: int = 10,
    n_flats: int = 10,
    n_flats_after: int = 0,
    dark_flat_run: str | None = None,
    md: Mapping[str, Any] | None = None,
) -> Plan:
    """A step scan: darks, flats, then one projection at each angle.

    Parameters
    ----------
    camera, rotation : ophyd devices
        Read at each point.
    shutter : settable
        Set to "closed" for darks and to "open" otherwise.
    sample : settable
        Set to "out" for flats and to "in" otherwise.
    angles_deg : sequence of float
        Rotation angles in degrees, in the order in which they are visited.
    n_darks, n_flats, n_flats_after : int
        Darks and flats before the projections, and flats after them.
    dark_flat_run : str, optional
        Uid of a run of `dark_flat`. It has the darks and flats then, and this run has none.
    md : mapping, optional
        Further keys for the start document.

    Returns
    -------
    str
        Uid of the run.
    """
    start = _start("tomo_scan", camera, rotation, angles_deg, n_darks, n_flats, dark_flat_run, md)

    def points() -> Plan:
        for angle in angles_deg:
            yield from bps.checkpoint()
            yield from bps.mv(rotation, angle)
            yield from bps.trigger_and_read([camera, rotation], name="primary")

    @bpp.run_decorator(md=start)
    def scan() -> Plan:
        if dark_flat_run is None:
            yield from _references(camera, shutter, sample, n_darks, n_flats)
        yield from bps.mv(shutter, "open", sample, "in")
        yield from bpp.stage_wrapper(points(), [camera])
        yield from _references(camera, shutter, sample, 0, n_flats_after)
        yield from bps.mv(shutter, "closed", sample, "out")

    return (yield from scan())


def dark_flat(
    camera: Any,
    shutter: Any,
    sample: Any,
    *,
    n_darks: int = 10,
    n_flats: int = 10,
    md: Mapping[str, Any] | None = None,
) -> Plan:
    """Darks and flats in a run of their own, for the scans that follow.

    Parameters are those of `tomo_scan`.

    Returns
    -------
    str
        Uid of the run, for `dark_flat_run` of the scans.
    """
    start = {
        "plan_name": "dark_flat",
        "num_darks": n_darks,
        "num_flats": n_flats,
        "detectors": [camera.name],
        **(md or {}),
    }

    @bpp.run_decorator(md=start)
    def references() -> Plan:
        yield from _references(camera, shutter, sample, n_darks, n_flats)
        yield from bps.mv(shutter, "closed", sample, "out")

    return (yield from references())


def tomo_fly_scan(
    camera: Any,
    encoder: Any,
    rotation: Any,
    shutter: Any,
    sample: Any,
    angles_deg: Angles,
    *,
    n_darks: int = 10,
    n_flats: int = 10,
    dark_flat_run: str | None = None,
    exposure_s: float = 0.0,
    period_s: float = 0.0,
    flush_period_s: float = 0.5,
    projection_stream: str = "primary",
    md: Mapping[str, Any] | None = None,
) -> Plan:
    """A fly scan of ophyd-async devices: the stage sweeps, its pulses trigger the camera.

    There are no events at all: camera and encoder write files, and documents say how far.

    Parameters
    ----------
    camera, rotation, shutter, sample, angles_deg, n_darks, n_flats, dark_flat_run, md
        See `tomo_scan`.
    encoder : ophyd-async device, optional
        Writes the angle of each frame, as PandA does. None: the documents say no angles but
        those that `md` has.
    exposure_s : float
        Exposure time in seconds; 0: as it is set.
    period_s : float
        Seconds from one projection to the next.
    flush_period_s : float
        Seconds between the documents that say how far the files are.
    projection_stream : str

    Returns
    -------
    str
        Uid of the run.
    """
    from ophyd_async.core import DetectorTrigger, TriggerInfo

    from .async_rotation import Sweep

    start = _start(
        "tomo_fly_scan", camera, rotation, angles_deg, n_darks, n_flats, dark_flat_run, md
    )
    detectors = [camera] if encoder is None else [camera, encoder]

    def burst(stream: str, n: int) -> Plan:
        if n == 0:
            return
        info = TriggerInfo(number_of_events=n, livetime=exposure_s)
        yield from bps.prepare(camera, info, wait=True)
        yield from fly(stream, [camera])

    def fly(stream: str, writers: list[Any], *movers: Any) -> Plan:
        yield from bps.declare_stream(*writers, name=stream, collect=True)
        yield from bps.kickoff_all(*writers, wait=True)  # they count from here
        for mover in movers:
            yield from bps.kickoff(mover, wait=True)
        yield from bps.collect_while_completing(
            [*writers, *movers], writers, flush_period_s, stream
        )

    def sweep() -> Plan:
        edge, level = DetectorTrigger.EXTERNAL_EDGE, DetectorTrigger.EXTERNAL_LEVEL
        n = len(angles_deg)
        flight = Sweep(angles_deg, period_s)
        slowest = period_s * n + 10
        frame = TriggerInfo(
            number_of_events=n, trigger=edge, livetime=exposure_s, exposure_timeout=slowest
        )
        yield from bps.prepare(camera, frame, group="prepare")
        if encoder is not None:
            angle = TriggerInfo(number_of_events=n, trigger=level, exposure_timeout=slowest)
            yield from bps.prepare(encoder, angle, group="prepare")
        yield from bps.prepare(rotation, flight, group="prepare")
        yield from bps.wait("prepare")
        yield from fly(projection_stream, detectors, rotation)

    @bpp.run_decorator(md=start)
    def scan() -> Plan:
        # Each stream has files of its own: a writer counts its frames from where it was staged,
        # and camera and encoder have to agree on the count.
        if dark_flat_run is None:
            yield from bps.mv(shutter, "closed", sample, "out")
            yield from bpp.stage_wrapper(burst("dark", n_darks), [camera])
            yield from bps.mv(shutter, "open")
            yield from bpp.stage_wrapper(burst("flat", n_flats), [camera])
        yield from bps.mv(shutter, "open", sample, "in")
        yield from bpp.stage_wrapper(sweep(), [*detectors, rotation])
        yield from bps.mv(shutter, "closed", sample, "out")

    return (yield from scan())


def tomo_sweep_scan(
    camera: Any,
    rotation: Any,
    shutter: Any,
    sample: Any,
    angles_deg: Angles,
    *,
    n_darks: int = 10,
    n_flats: int = 10,
    period_s: float = 0.0,
    md: Mapping[str, Any] | None = None,
) -> Plan:
    """A sweep of the stage with one event for all frames of a stream, as at NSLS-II's FXI.

    The rotation angle is monitored; its stream ``<rotation>_monitor`` has it with time stamps,
    and the camera's file has the time of each frame.

    Parameters
    ----------
    camera : SimAreaDetector
        Listening to the pulses of the rotation stage.
    rotation : AsyncRotation
    shutter, sample, angles_deg, n_darks, n_flats, period_s, md
        See `tomo_fly_scan`.

    Returns
    -------
    str
        Uid of the run.
    """
    from .async_rotation import Sweep

    start = _start("tomo_sweep_scan", camera, rotation, angles_deg, n_darks, n_flats, None, md)

    def stack(stream: str, n: int, mode: str, meanwhile: Plan | None = None) -> Plan:
        yield from bps.mv(camera.num_images, n, camera.trigger_mode, mode)

        @bpp.stage_decorator([camera])
        def point() -> Plan:
            yield from bps.trigger(camera, group="frames")
            if meanwhile is not None:
                yield from meanwhile
            yield from bps.wait("frames")
            yield from bps.create(stream)
            yield from bps.read(camera)
            yield from bps.save()

        if n:
            yield from point()

    def sweep() -> Plan:
        yield from bps.kickoff(rotation, wait=True)
        yield from bps.complete(rotation, wait=True)

    @bpp.run_decorator(md=start)
    def scan() -> Plan:
        yield from bps.mv(shutter, "closed", sample, "out")
        yield from stack("dark", n_darks, "Internal")
        yield from bps.mv(shutter, "open")
        yield from stack("flat", n_flats, "Internal")
        yield from bps.mv(sample, "in")
        yield from bps.prepare(rotation, Sweep(angles_deg, period_s), wait=True)
        yield from bps.monitor(rotation.user_readback, name=f"{rotation.name}_monitor")
        yield from stack("primary", len(angles_deg), "External", sweep())
        yield from bps.unmonitor(rotation.user_readback)
        yield from bps.mv(shutter, "closed", sample, "out")

    return (yield from scan())


def paired_dose_scan(
    camera: Any,
    rotation: Any,
    shutter: Any,
    sample: Any,
    angles_deg: Angles,
    *,
    exposure_s: float,
    doses: Sequence[float] = (1.0, 0.25, 0.1),
    n_darks: int = 10,
    n_flats: int = 10,
    md: Mapping[str, Any] | None = None,
) -> Plan:
    """Step scans of one sample at several doses, to train on: a run each.

    The exposure time is reduced, of the flats too. Start keys link the runs: ``paired_scan``
    is the same in all of them, ``dose`` is the fraction of the full one, and ``exposure_s`` the
    exposure time.

    Parameters
    ----------
    camera, rotation, shutter, sample, angles_deg, n_darks, n_flats, md
        See `tomo_scan`. The camera has an `exposure_time` to be set.
    exposure_s : float
        Exposure time at full dose, in seconds; the camera is left with it.
    doses : sequence of float
        As fractions of the full dose, in the order of the scans.

    Returns
    -------
    list of str
        Uids of the runs.
    """
    pair = str(uuid4())
    uids = []

    def scans() -> Plan:
        for dose in doses:
            yield from bps.mv(camera.exposure_time, exposure_s * dose)
            keys = {"paired_scan": pair, "dose": dose, "exposure_s": exposure_s * dose}
            uid = yield from tomo_scan(
                camera,
                rotation,
                shutter,
                sample,
                angles_deg,
                n_darks=n_darks,
                n_flats=n_flats,
                md={**(md or {}), **keys},
            )
            uids.append(uid)

    yield from bpp.finalize_wrapper(scans(), bps.mv(camera.exposure_time, exposure_s))
    return uids


def _start(
    plan_name: str,
    camera: Any,
    rotation: Any,
    angles_deg: Angles,
    n_darks: int,
    n_flats: int,
    dark_flat_run: str | None,
    md: Mapping[str, Any] | None,
) -> dict[str, Any]:
    references: dict[str, Any] = {"num_darks": n_darks, "num_flats": n_flats}
    if dark_flat_run is not None:
        references = {DARK_FLAT_KEY: dark_flat_run}
    return {
        "plan_name": plan_name,
        "num_projections": len(angles_deg),
        **references,
        "motors": [rotation.name],
        "detectors": [camera.name],
        **(md or {}),
    }


def _references(camera: Any, shutter: Any, sample: Any, n_darks: int, n_flats: int) -> Plan:
    """Darks and flats, staged apart: each stream has a file of its own, as archives expect."""

    def burst(stream: str, n: int) -> Plan:
        for _ in range(n):
            yield from bps.trigger_and_read([camera], name=stream)

    for stream, n, beam in (("dark", n_darks, "closed"), ("flat", n_flats, "open")):
        if n:
            yield from bps.mv(shutter, beam, sample, "out")
            yield from bpp.stage_wrapper(burst(stream, n), [camera])
