"""Plans of a tomography beamline.

Enter: devices and the settings of a scan. Leave: messages for a RunEngine. The runs that they make
have the streams ``dark``, ``flat`` and ``primary``; or darks and flats have a run of their own,
whose uid the run of the projections names in its start document. Plans in which the rotation stage
moves on while the camera exposes are in `fly_plans`.
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
    start = start_document(
        "tomo_scan", camera, rotation, angles_deg, n_darks, n_flats, dark_flat_run, md
    )

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


def start_document(
    plan_name: str,
    camera: Any,
    rotation: Any,
    angles_deg: Angles,
    n_darks: int,
    n_flats: int,
    dark_flat_run: str | None,
    md: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What the start document of a scan says; `md` has the last word."""
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
