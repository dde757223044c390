"""How sinograms become slices, while a scan is taken and after it."""

from typing import Literal, Self

from pydantic import Field, model_validator

from .base import Config
from .preprocessing import PreprocessingConfig

FilterName = Literal[
    "ramlak", "shepp", "cosine", "hann", "hamming", "parzen", "butterworth", "none"
]
CentreMethod = Literal["pair", "wedge", "centroid"]

METHODS = {
    "torch": ("gridrec", "fbp", "sirt", "tv"),
    "tomopy": ("gridrec", "fbp"),
    "astra": ("fbp", "sirt"),
}
"""Reconstruction methods of each backend."""


class ReconstructionConfig(Config):
    """From recorded frames to slices in 1/pixel."""

    preprocessing: PreprocessingConfig = PreprocessingConfig()
    """Before the reconstruction; off until it is asked for."""

    backend: Literal["torch", "tomopy", "astra"] = "torch"
    """Which has which methods: see `METHODS`."""
    method: Literal["gridrec", "fbp", "sirt", "tv"] = "gridrec"
    """Fourier gridding; filtered back-projection; iterative, plain or with total variation."""
    filter: FilterName = "ramlak"
    """Of `gridrec` and `fbp`."""
    iterations: int = Field(default=100, ge=1)
    """Of `sirt` and `tv`."""
    tv_strength: float = Field(default=1.0, gt=0.0)
    """How much edges cost in `tv`, in units of the noise of the projections, which is estimated for
    each slice."""
    rotation_centre: float | None = None
    """Detector column of the axis, 0.0 being the centre of column 0; None: found from the
    projections."""
    rotation_centre_method: Literal["auto"] | CentreMethod = "auto"
    """How it is found: from a 0°/180° pair, from the double wedge of the sinogram's transform (Vo
    2014), or from the centre of mass. "auto" asks all three and tells how far they agree."""
    oversampling: float = Field(default=1.5, ge=1.25, le=4.0)
    """Size of the Fourier grid in image widths, of all torch methods but `fbp`."""
    minimum_transmission: float = Field(default=1e-6, gt=0.0, lt=1.0)
    """Transmissions below are raised to it before the logarithm, and counted."""
    slab_rows: int = Field(default=8, ge=1)
    """Detector rows that are reconstructed, denoised and published together."""

    @model_validator(mode="after")
    def _method_of_backend(self) -> Self:
        if self.method not in METHODS[self.backend]:
            raise ValueError(
                f"method: expected one that the backend {self.backend!r} has "
                f"({', '.join(METHODS[self.backend])}), got {self.method!r}; the backend 'torch' "
                "has all"
            )
        return self


class LiveConfig(Config):
    """What is done while a scan is taken. It changes when slices are there, and not their bits."""

    incremental: bool = True
    """Reconstruct projections as they come, where that gives the slices of the whole scan: with
    `gridrec` of the torch backend, a given rotation centre, and darks and flats before the
    projections."""
    preview_every: int | None = Field(default=None, ge=1)
    """Projections from one preview to the next; None: only time decides."""
    preview_every_s: float | None = Field(default=10.0, gt=0.0)
    """Seconds from one preview to the next; None: only the number of projections decides. Previews
    are left out when the work does not keep up with the scan."""
    preview_rows: tuple[int, ...] = ()
    """Detector rows that are previewed; empty: the middle one."""
    memory_gib: float = Field(default=4.0, gt=0.0)
    """Most memory for what is reconstructed while the scan is taken."""

    @property
    def previews(self) -> bool:
        """Whether there are any."""
        return self.preview_every is not None or self.preview_every_s is not None
