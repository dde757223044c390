"""The networks that denoise slices, by name.

Enters: a preset and its options, such as ``unet4(base=16)``. Leaves: a `Generator` with random
weights. What all of them have in common is in `models.base`.
"""

import inspect
import re
from collections.abc import Callable, Mapping

from ..errors import ConfigurationError
from .base import Generator
from .mixed_scale import msd
from .unet3d import unet3d
from .unets import tomogan3, unet4

__all__ = [
    "PRESETS",
    "Generator",
    "build_generator",
    "depth_of",
    "describe_generator",
    "msd",
    "parse_generator",
    "tomogan3",
    "unet3d",
    "unet4",
]

PRESETS: dict[str, Callable[..., Generator]] = {
    "unet4": unet4,
    "tomogan3": tomogan3,
    "unet3d": unet3d,
    "msd": msd,
}


def build_generator(name: str, **options: int) -> Generator:
    """Build a preset by name, with random weights from torch's generator.

    Raises
    ------
    ConfigurationError
        An unknown preset, or an option that it does not have.
    """
    if name not in PRESETS:
        raise ConfigurationError(f"network: expected one of {', '.join(PRESETS)}; got {name!r}")
    known = inspect.signature(PRESETS[name]).parameters
    if unknown := sorted(set(options) - set(known)):
        raise ConfigurationError(
            f"network {name!r} has no option {unknown[0]!r}; it has {', '.join(known)}"
        )
    if wrong := [f"{k}={v}" for k, v in options.items() if v < 1]:
        raise ConfigurationError(f"network {name!r}: expected options of 1 or more, got {wrong[0]}")
    return PRESETS[name](**options)


def depth_of(name: str, options: Mapping[str, int]) -> int:
    """How many adjacent slices enter a preset with these options."""
    default = inspect.signature(PRESETS[name]).parameters["depth"].default
    return options.get("depth", default)


def describe_generator(name: str, options: Mapping[str, int]) -> str:
    """A preset and its options as the card of a model has them: ``unet4(base=16)``."""
    return f"{name}({', '.join(f'{k}={v}' for k, v in options.items())})"


def parse_generator(text: str) -> tuple[str, dict[str, int]]:
    """Preset and options of a description. Raises ConfigurationError where it is none."""
    found = re.fullmatch(r"(\w+)\(((?:\w+=\d+(?:, )?)*)\)", text)
    if found is None:
        raise ConfigurationError(
            f"network: expected a preset and its options, such as unet4(base=16); got {text!r}"
        )
    return found[1], {k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", found[2])}
