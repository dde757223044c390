"""Denoised slices of every tomography scan of this session.

Copied into the startup folder of an IPython profile or of a queueserver, after the file that makes
the RunEngine `RE`. The Tiled server is named by TILED_URI (an address) or a Tiled profile called
"tomogan"; its key is read from TILED_API_KEY.
"""

import os
from pathlib import Path

from tomogan_bluesky import PublishingConfig, ScanConfig, TomoGANCallback

tomogan = TomoGANCallback(
    os.environ.get("TILED_URI", "tomogan"),
    scan=ScanConfig(angle_key="rotation", angle_units="deg"),
    # A folder that the Tiled server can read; without it the slices travel inside the documents.
    publishing=PublishingConfig(directory=Path(os.environ["TOMOGAN_VOLUMES"]))
    if "TOMOGAN_VOLUMES" in os.environ
    else None,
)
RE.subscribe(tomogan)  # noqa: F821  # made by an earlier startup file
