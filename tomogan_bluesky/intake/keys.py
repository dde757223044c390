"""Which data key is what: the conventions of beamlines, guessed from descriptors or configured.

Enters: an event descriptor. Leave: the names of its images and of its angle, with units.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..config import ScanConfig
from ..errors import AnglesError, IntakeError

_UNITS = {
    "deg": "deg",
    "degree": "deg",
    "degrees": "deg",
    "°": "deg",
    "rad": "rad",
    "radian": "rad",
    "radians": "rad",
}


def image_keys(descriptor: Mapping[str, Any], config: ScanConfig) -> list[str]:
    """Data keys that can be detector images: arrays of two dimensions or more."""
    keys = descriptor["data_keys"]
    if config.image_key is not None:
        return [config.image_key] if config.image_key in keys else []
    return [name for name, key in keys.items() if sum(n > 1 for n in key["shape"] or ()) >= 2]


def angle_keys(descriptor: Mapping[str, Any], config: ScanConfig) -> list[str]:
    """Data keys that can be the rotation angle: numbers with an angular unit.

    Where several have one, those that their device hints at (a motor's readback rather than its
    set point) are preferred.
    """
    keys = descriptor["data_keys"]
    if config.angle_key is not None:
        return [config.angle_key] if config.angle_key in keys else []
    angular = [
        name
        for name, key in keys.items()
        if np.prod(key["shape"] or [1]) == 1 and str(key.get("units")).lower() in _UNITS
    ]
    hinted = {
        field for hint in descriptor.get("hints", {}).values() for field in hint.get("fields", ())
    }
    return [name for name in angular if name in hinted] or angular


def the_image(descriptor: Mapping[str, Any], candidates: list[str]) -> str:
    """The one image.

    Raises
    ------
    IntakeError
        Names the candidates and the setting.
    """
    if len(candidates) == 1:
        return candidates[0]
    raise IntakeError(_ambiguous(descriptor, candidates, "detector image", "image_key", True))


def the_angle(descriptor: Mapping[str, Any], candidates: list[str], config: ScanConfig) -> str:
    """The one angle.

    Raises
    ------
    AnglesError
        Names the candidates and the setting.
    """
    if len(candidates) == 1:
        return candidates[0]
    raise AnglesError(
        _ambiguous(descriptor, candidates, "rotation angle", "angle_key", False)
        + " (and its units in scan.angle_units)"
    )


def radians_per_unit(name: str, units: str | None, config: ScanConfig) -> float:
    """Factor from the angle's units to radians; `scan.angle_units` wins over the data key's.

    Raises
    ------
    AnglesError
        Neither names an angular unit.
    """
    known = _UNITS.get(str(config.angle_units or units).lower())
    if known is None:
        raise AnglesError(
            f"expected the units of the rotation angle {name!r} to be degrees or radians, got "
            f"{units!r}; set scan.angle_units to 'deg' or 'rad'"
        )
    return np.pi / 180 if known == "deg" else 1.0


def _ambiguous(
    descriptor: Mapping[str, Any], candidates: list[str], what: str, setting: str, arrays: bool
) -> str:
    known = {
        name: f"{name} ({key.get('units') or 'no units'})"
        for name, key in descriptor["data_keys"].items()
        if (sum(n > 1 for n in key["shape"] or ()) >= 2) == arrays
    }
    named = candidates or list(known)
    choices = ", ".join(known[name] for name in named) or "none"
    line = f", such as scan: {{{setting}: {named[0]}}} in a profile" if named else ""
    return (
        f"stream {descriptor['name']!r}: expected one data key to be the {what}, got "
        f"{len(candidates)}; candidates: {choices}; name it in scan.{setting}{line}"
    )
