"""A scan on a RunEngine, denoised while you wait, with the slices in a Tiled catalog on disk.

Run it:  python examples/live_scan.py [FOLDER]
Then look at the slices:  tomogan-bluesky serve-catalog FOLDER
"""

import sys

import numpy as np
from bluesky import RunEngine

from tomogan_bluesky import PublishingConfig, TomoGANCallback
from tomogan_bluesky.publish.server import serve_catalog
from tomogan_bluesky.recon.beam import Beam
from tomogan_bluesky.recon.phantoms import make_phantom
from tomogan_bluesky.sim.beamline import SimBeamline
from tomogan_bluesky.sim.plans import tomo_scan


def main(folder: str = "live_scan_catalog", columns: int = 128, n_angles: int = 181) -> str:
    """Scan a simulated sample; returns the uid of the derived run."""
    angles_deg = np.linspace(0, 180, n_angles)
    phantom = make_phantom("foam", 2 * columns, np.random.default_rng(3), rows=4)
    beamline = SimBeamline(phantom, angles_deg, Beam(dose=0.25))

    with serve_catalog(folder) as server:
        RE = RunEngine()
        with TomoGANCallback(
            server.client(), publishing=PublishingConfig(directory=server.volumes)
        ) as tomogan:
            RE.subscribe(tomogan)  # the one line that a beamline adds
            RE(
                tomo_scan(
                    beamline.camera,
                    beamline.rotation,
                    beamline.shutter,
                    beamline.sample,
                    angles_deg,
                )
            )
            (report,) = tomogan.wait()
        print(f"{report.exit_status}: {report.frames.used} projections, {report.n_slices} slices")
        denoised = server.client()[report.derived_uid]["primary"]["denoised"]
        print(f"derived run {report.derived_uid}: denoised {denoised.shape} {denoised.dtype}")
    return report.derived_uid


if __name__ == "__main__":
    main(*sys.argv[1:2])
