"""Plans of a tomography beamline.

Enter: devices and the settings of a scan. Leave: messages for a RunEngine; the run that they make
has the streams ``dark``, ``flat`` and ``primary``.
"""

from collections.abc import Generator, Mapping, Sequence
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import numpy as np


def tomo_scan(
    camera: Any,
    rotation: Any,
    shutter: Any,
    sample: Any,
    angles_deg: Sequence[float] | np.ndarray,
    *,
    n_darks: int = 10,
    n_flats: int = 10,
    md: Mapping[str, Any] | None = None,
) -> Generator[Any, Any, Any]:
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
    n_darks, n_flats : int
    md : mapping, optional
        Further keys for the start document.
    """
    start = {
        "plan_name": "tomo_scan",
        "num_projections": len(angles_deg),
        "num_darks": n_darks,
        "num_flats": n_flats,
        "motors": [rotation.name],
        "detectors": [camera.name],
        **(md or {}),
    }

    @bpp.stage_decorator([camera])
    @bpp.run_decorator(md=start)
    def scan() -> Generator[Any, Any, None]:
        yield from bps.mv(shutter, "closed", sample, "out")
        for _ in range(n_darks):
            yield from bps.trigger_and_read([camera], name="dark")
        yield from bps.mv(shutter, "open")
        for _ in range(n_flats):
            yield from bps.trigger_and_read([camera], name="flat")
        yield from bps.mv(sample, "in")
        for angle in angles_deg:
            yield from bps.checkpoint()
            yield from bps.mv(rotation, angle)
            yield from bps.trigger_and_read([camera, rotation], name="primary")
        yield from bps.mv(shutter, "closed", sample, "out")

    return (yield from scan())
