"""What is done to frames before they are reconstructed."""

from typing import Literal, Self

from pydantic import Field, model_validator

from .base import Config


class SortingStripes(Config):
    """Stripes removed by comparing sorted columns (Vo 2018, algorithm 3)."""

    method: Literal["sorting"]
    size: int | None = Field(default=None, ge=1)
    """Columns of the median's window; None: 1 % of the columns, from 5 to 21."""


class WaveletStripes(Config):
    """Stripes removed in wavelet and Fourier space (Münch 2009)."""

    method: Literal["wavelet"]
    level: int | None = Field(default=None, ge=1)
    """Number of bands; None: all, which takes away broad shapes too."""
    wavelet: str = "db5"
    sigma: float = Field(default=2.0, gt=0.0)


class AllStripes(Config):
    """Dead, fluctuating, large and small stripes removed (Vo 2018, algorithms 6, 5, 3)."""

    method: Literal["all"]
    snr: float = Field(default=3.0, gt=0.0)
    large_size: int = Field(default=61, ge=1)
    small_size: int = Field(default=21, ge=1)


class TomopyStripes(Config):
    """Stripes removed by one of TomoPy's own functions, where TomoPy is installed."""

    method: Literal["tomopy"]
    function: Literal[
        "remove_stripe_fw",
        "remove_stripe_ti",
        "remove_stripe_sf",
        "remove_stripe_based_sorting",
        "remove_stripe_based_filtering",
        "remove_stripe_based_fitting",
        "remove_stripe_based_interpolation",
        "remove_dead_stripe",
        "remove_large_stripe",
        "remove_all_stripe",
    ]
    options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """Its arguments by name; those that are left out have TomoPy's defaults."""


class PhaseConfig(Config):
    """Paganin's phase retrieval, for a sample of one material at one distance."""

    pixel_size_um: float = Field(gt=0.0)
    """Of the recorded frames, as seen in the sample."""
    distance_mm: float = Field(gt=0.0)
    """From the sample to the detector."""
    energy_kev: float = Field(gt=0.0)
    alpha: float = Field(default=1e-3, gt=0.0)
    """In TomoPy's convention; smaller is smoother."""


class PreprocessingConfig(Config):
    """What is done to the frames before the logarithm, and in which order: zingers, binning, dark
    and flat fields, stripes, phase. All but dark and flat fields is off by default."""

    zinger_difference: float | None = Field(default=None, gt=0.0)
    """Pixels brighter than the median around them by this, in the frames' units, are replaced by
    it; None: none."""
    zinger_size: int = Field(default=3, ge=3)
    """Odd width and height of the median's window."""
    binning: int = Field(default=1, ge=1)
    """Squares of so many rows and columns become one pixel. Rows and the rotation centre are given
    in recorded pixels all the same; slices are in 1/(binned pixel)."""
    stripes: SortingStripes | WaveletStripes | AllStripes | TomopyStripes | None = Field(
        default=None, discriminator="method"
    )
    """Removal of the stripes that become rings; None: none."""
    phase: PhaseConfig | None = None
    """Phase retrieval; None: none."""
    axis_tilt_deg: float = 0.0
    """Angle of the rotation axis to the columns of the detector, positive where the centre moves to
    higher columns with the row. The rotation centre is that of the middle row; the others are
    shifted."""
    full_turn: bool = False
    """Whether the scan is over 360° with the axis near the edge of the detector, and is to become
    one of half a turn and nearly twice the width."""

    @model_validator(mode="after")
    def _odd_window(self) -> Self:
        if self.zinger_size % 2 == 0:
            raise ValueError(f"zinger_size: expected an odd number, got {self.zinger_size}")
        return self
