"""From detector counts to attenuation.

Enters: projections (row, angle, column) of any dtype, and the scan's dark and flat fields. Leaves:
transmission, the share of the beam that came through, and attenuation, its negative logarithm:
the line integrals that are reconstructed.
"""

import logging

import torch

from ..errors import ReconstructionError
from .checks import first_not_finite

logger = logging.getLogger(__name__)

MINIMUM_BEAM = 1e-6
"""Least flat - dark, in counts; what is smaller is raised to it, as TomoPy does."""

# Without any beam, noise makes the flat field brighter at half the pixels; a beam that fills a
# fifth of the detector is one.
_MOST_DEAD = 0.4


def transmission(projections: torch.Tensor, dark: torch.Tensor, flat: torch.Tensor) -> torch.Tensor:
    """Correct projections for the detector's offset and the beam's profile.

    Pixels where the flat field does not exceed the dark field by `MINIMUM_BEAM` carry no
    information; they are counted in a warning of this module's logger.

    Parameters
    ----------
    projections : torch.Tensor, any real dtype, shape (row, angle, column)
        Detector counts.
    dark : torch.Tensor, float32, shape (row, column)
        Mean frame without beam, on the same device.
    flat : torch.Tensor, float32, shape (row, column) or (row, angle, column)
        Mean frame with beam but without sample, on the same device; one for each projection where
        the beam drifts.

    Returns
    -------
    torch.Tensor, float32, shape (row, angle, column)
        (projections - dark) / (flat - dark), on the same device.

    Raises
    ------
    ReconstructionError
        Shapes that do not fit each other, or values that are not finite.
    """
    frame = (projections.shape[0], projections.shape[-1])
    for name, field in (("dark", dark), ("flat", flat)):
        drifts = name == "flat" and field.shape == projections.shape
        if projections.ndim != 3 or not (drifts or tuple(field.shape) == frame):
            raise ReconstructionError(
                "flat-field correction: expected projections (row, angle, column) and fields "
                f"(row, column) of the same detector, got projections {tuple(projections.shape)} "
                f"and {name} {tuple(field.shape)}"
            )
        _refuse_not_finite(name, field, ("row", "angle", "column") if drifts else ("row", "column"))
    if projections.is_floating_point():
        _refuse_not_finite("projections", projections, ("row", "angle", "column"))
    # From here on, with an axis of angles, of one where it does not drift.
    flat = flat if flat.ndim == 3 else flat[:, None]
    beam = usable_beam(dark[:, None], flat)
    return share_of_beam(projections, dark[:, None], beam)


def usable_beam(dark: torch.Tensor, flat: torch.Tensor) -> torch.Tensor:
    """What the beam adds to the dark field, at least `MINIMUM_BEAM`.

    Parameters
    ----------
    dark : torch.Tensor, float32, shape (row, 1, column)
    flat : torch.Tensor, float32, shape (row, time, column)

    Returns
    -------
    torch.Tensor, float32, shape (row, time, column)

    Raises
    ------
    ReconstructionError
        At too many pixels the flat field is no brighter than the dark one.
    """
    beam = flat - dark
    dead = beam < MINIMUM_BEAM
    n_dead = int(dead.sum())
    if n_dead > _MOST_DEAD * beam.numel():
        raise ReconstructionError(
            f"flat field: expected it to be brighter than the dark field, but {n_dead} of "
            f"{beam.numel()} pixels are not (mean flat {float(flat.mean()):.6g}, mean dark "
            f"{float(dark.mean()):.6g}); see whether the shutter was open for the flats, and "
            "whether darks and flats are mixed up in scan.dark_streams and scan.flat_streams"
        )
    if n_dead:
        row, _, column = (int(i) for i in dead.nonzero()[0])
        logger.warning(
            "flat field: %d of %d pixels are not brighter than the dark field (the first at row "
            "%d, column %d); expect rings there",
            n_dead,
            beam.numel(),
            row,
            column,
        )
    return beam.clamp_min_(MINIMUM_BEAM)


def share_of_beam(
    projections: torch.Tensor, dark: torch.Tensor, beam: torch.Tensor
) -> torch.Tensor:
    """Transmission, with a dark field and a beam that have been checked.

    Parameters
    ----------
    projections : torch.Tensor, any real dtype, shape (row, angle, column)
    dark : torch.Tensor, float32, shape (row, 1, column)
    beam : torch.Tensor, float32, shape (row, 1 or angle, column)
        See `usable_beam`.

    Returns
    -------
    torch.Tensor, float32, shape (row, angle, column)
    """
    # Unsigned counts below the dark field would wrap around: subtract as float32.
    return projections.to(torch.float32, copy=True).sub_(dark).div_(beam)


def attenuation(transmission: torch.Tensor, minimum: float) -> tuple[torch.Tensor, int]:
    """Line integrals of the attenuation coefficient, by the law of Beer and Lambert.

    Parameters
    ----------
    transmission : torch.Tensor, float32, shape (row, angle, column)
    minimum : float
        Transmissions below, which noise makes and which have no logarithm, are raised to it.

    Returns
    -------
    attenuation : torch.Tensor, float32, shape (row, angle, column)
    n_clamped : int
        Number of values that were raised to `minimum`.

    Raises
    ------
    ReconstructionError
        Values that are not finite.
    """
    _refuse_not_finite("transmission", transmission, ("row", "angle", "column"))
    n_clamped = int((transmission < minimum).sum())
    return transmission.clamp_min(minimum).log_().neg_(), n_clamped


def _refuse_not_finite(name: str, values: torch.Tensor, axes: tuple[str, ...]) -> None:
    if (bad := first_not_finite(values)) is not None:
        place = ", ".join(f"{axis} {i}" for axis, i in zip(axes, bad, strict=True))
        raise ReconstructionError(
            f"{name}: expected finite values, got {values[bad].item()} at {place} (counted from "
            "the slab's first row); a broken frame must be left out before the correction"
        )
