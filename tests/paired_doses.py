"""Scans at full dose and at a quarter of it, for tests of what learns from archived scans."""

from typing import Any

import numpy as np
from bluesky import RunEngine

from tomogan_bluesky.publish.tiled_publisher import TiledPublisher
from tomogan_bluesky.sim.beamline import SimBeamline
from tomogan_bluesky.sim.plans import paired_dose_scan


def scan_at_two_doses(
    beamline: SimBeamline, angles_deg: np.ndarray, client: Any, md: dict[str, Any]
) -> dict[float, str]:
    """Scan into a catalog; the uids by dose."""
    RE = RunEngine()
    RE.subscribe(TiledPublisher(client, batch_size=100))
    devices = (beamline.camera, beamline.rotation, beamline.shutter, beamline.sample)
    doses = {"exposure_s": 0.01, "doses": (1.0, 0.25)}
    uids = RE(paired_dose_scan(*devices, angles_deg, **doses, n_darks=4, n_flats=4, md=md))
    return dict(zip((1.0, 0.25), getattr(uids, "run_start_uids", uids), strict=True))
