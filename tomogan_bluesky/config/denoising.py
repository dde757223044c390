"""How slices are denoised."""

from typing import Literal

from pydantic import Field

from .base import Config

DEFAULT_MODEL = "unet4-simulated-v3"
"""Name of the model that ships with the package."""


class DenoisingConfig(Config):
    """From noisy slices to denoised ones."""

    noise: float | None = Field(default=None, ge=0.0)
    """Standard deviation of the noise in 1/pixel, of slices of the model's filter; None: estimated
    for each slice."""
    tile: int | None = Field(default=None, ge=64)
    """Width in pixels of the tiles that wider slices are denoised by, a multiple of 16: smaller
    ones need less memory and more time. None: 2048."""
    sides: Literal[1, 2, 4, 8] = 1
    """Of how many sides of a slice, turned and mirrored, the mean is taken: it takes as many times
    as long, and 8 of them gain a sixth of a decibel."""
    uncertainty: bool = True
    """Whether to publish how far off each pixel may be, where the model says it: the volume file is
    half as large again then."""
    check_slices: int = Field(default=16, ge=0)
    """How many denoised slices, evenly spread, are checked: against the projections, for spots that
    denoising has changed, and for being like those that the model knows. 0: none."""
    on_mismatch: Literal["remark", "refuse"] = "remark"
    """Where the model was trained on slices that were reconstructed in another way (a smoother
    filter here is no matter): denoise, and say so in the derived run; or fail the run and publish
    the reconstruction alone."""
