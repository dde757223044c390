"""What a derived run says of how it was made.

Enter: the settings of a run, and what is known of its scan by now. Leaves: metadata for the start
document, or, as far as it comes later, for the stop document.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from .._version import __version__
from ..config import Settings
from ..denoise.denoiser import Denoiser
from ..geometry import ScanGeometry
from ..recon.centre import CentreEstimate


def provenance(
    settings: Settings, start_doc: Mapping[str, Any], denoiser: Denoiser | None
) -> dict[str, Any]:
    """What is known before the scan: what is done, with what, in which version.

    Parameters
    ----------
    settings : Settings
    start_doc : mapping
        Of the raw run.
    denoiser : Denoiser or None
    """
    config = settings.reconstruction
    md: dict[str, Any] = {
        "analysis": {"name": "tomogan_bluesky", "version": __version__},
        "configuration": json.dumps(settings.decisive()),
        "slab_rows": config.slab_rows,
        "rotation_centre": config.rotation_centre,
    }
    pixel_size = start_doc.get("pixel_size_um")
    if config.preprocessing.binning > 1 and isinstance(pixel_size, int | float):
        md["pixel_size_um"] = pixel_size * config.preprocessing.binning
    if denoiser is not None:
        md["model_sha256"] = denoiser.sha256
        md["model_card"] = denoiser.card.model_dump_json()
    return md


def of_geometry(geometry: ScanGeometry, estimate: CentreEstimate | None) -> dict[str, Any]:
    """What is known after it: where the axis is, how well that is known, and the angles."""
    md: dict[str, Any] = {
        "rotation_centre": geometry.rotation_centre,
        "theta_range_deg": [
            float(np.rad2deg(geometry.theta.min())),
            float(np.rad2deg(geometry.theta.max())),
        ],
    }
    if estimate is not None:
        md["rotation_centre_confidence"] = estimate.confidence
        md["rotation_centre_methods"] = estimate.methods
    return md
