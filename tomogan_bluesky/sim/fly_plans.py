"""Plans in which the rotation stage sweeps while the camera exposes.

Enter: devices of ophyd-async and the settings of a scan. Leave: messages for a RunEngine. There is
not one event a projection: detectors say how far their files are, or one event stands for all.
"""

from collections.abc import Mapping
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from ophyd_async.core import DetectorTrigger, TriggerInfo

from .async_rotation import Sweep
from .plans import Angles, Plan, start_document


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
    start = start_document(
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
    start = start_document(
        "tomo_sweep_scan", camera, rotation, angles_deg, n_darks, n_flats, None, md
    )

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
