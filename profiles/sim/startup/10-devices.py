"""The devices of the simulated beamline: one sample, seen by step scans and by fly scans.

Detectors that write files do so in the folder that TOMOGAN_SIM_FILES names; a Tiled server that is
to serve their images needs to be able to read it.
"""

import os
from pathlib import Path

import numpy as np

from tomogan_bluesky.recon.beam import Beam
from tomogan_bluesky.recon.phantoms import make_phantom
from tomogan_bluesky.sim.area_detector import SimAreaDetector
from tomogan_bluesky.sim.async_beamline import AsyncBeamline
from tomogan_bluesky.sim.beamline import SimBeamline

ANGLES_DEG = np.linspace(0.0, 180.0, 181)
_COLUMNS, _ROWS = 128, 4
_files = Path(os.environ.get("TOMOGAN_SIM_FILES", "tomogan_sim_files"))

beamline = SimBeamline(
    make_phantom("foam", 2 * _COLUMNS, np.random.default_rng(3), _ROWS),
    ANGLES_DEG,
    Beam(dose=0.25),
    rotation_centre=(_COLUMNS - 1) / 2 + 1.7,  # as on every real beamline, not in the middle
)

# Frames inside the events.
camera, rotation = beamline.camera, beamline.rotation
shutter, sample = beamline.shutter, beamline.sample

# Frames in a file, with resource and datum documents; moves with the devices above.
area_detector = SimAreaDetector(beamline, _files, name="camera")

# ophyd-async devices, for fly scans.
fly = AsyncBeamline(beamline.shots, _files, angle_dataset="rotation")
fly.connect()
fly_camera, encoder, fly_rotation = fly.camera, fly.encoder, fly.rotation
fly_shutter, fly_sample = fly.shutter, fly.sample
