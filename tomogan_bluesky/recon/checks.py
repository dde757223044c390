"""What every reconstruction refuses, said in one voice."""

import numpy as np
import torch

from ..errors import ReconstructionError
from ..geometry import ScanGeometry


def first_not_finite(values: torch.Tensor) -> tuple[int, ...] | None:
    """Index of the first value that is not finite, or None.

    The sum of finite values is finite unless it overflows, so that one cheap pass clears almost
    all data.
    """
    if torch.isfinite(values.sum()):
        return None
    bad = (~torch.isfinite(values)).flatten().nonzero()
    if len(bad) == 0:
        return None
    index = torch.unravel_index(bad[0, 0], values.shape)
    return tuple(int(i) for i in index)


def check_stack(
    stack: torch.Tensor, expected: tuple[int, int], name: str, axes: tuple[str, str, str]
) -> None:
    """Refuse a stack that is no tensor, not float32, not of the expected shape, or not finite.

    Parameters
    ----------
    stack : torch.Tensor, shape (any, *expected)
    expected : tuple of int
        Lengths of the last two axes.
    name : str
        What the values are, for the message.
    axes : tuple of str
        Names of the axes, for the message.

    Raises
    ------
    ReconstructionError
    """
    if not isinstance(stack, torch.Tensor):
        raise ReconstructionError(
            f"{name}: expected a torch.Tensor, got {type(stack).__name__}; an array becomes one by "
            "torch.from_numpy"
        )
    if stack.ndim != 3 or tuple(stack.shape[1:]) != expected:
        raise ReconstructionError(
            f"{name}: expected shape ({', '.join(axes)}) = ({axes[0]}, {expected[0]}, "
            f"{expected[1]}), as in the scan's geometry, got {tuple(stack.shape)}"
        )
    if stack.dtype != torch.float32:
        raise ReconstructionError(f"{name}: expected float32, got {stack.dtype}; convert it first")
    if (bad := first_not_finite(stack)) is not None:
        place = ", ".join(f"{axis} {i}" for axis, i in zip(axes, bad, strict=True))
        raise ReconstructionError(
            f"{name}: expected finite values, got {stack[bad].item()} at {place}; look at the "
            "dark and flat fields and at defective pixels there"
        )


def check_attenuation(attenuation: torch.Tensor, geometry: ScanGeometry) -> None:
    """Refuse sinograms that do not fit the geometry or are not finite; see `check_stack`.

    And those of a single direction, from which nothing can be reconstructed.
    """
    if np.ptp(geometry.theta) == 0:
        raise ReconstructionError(
            f"theta: expected projections at different angles, got {geometry.n_angles} at "
            f"{geometry.theta[0]:.6g} radians"
        )
    expected = (geometry.n_angles, geometry.n_columns)
    check_stack(attenuation, expected, "attenuation", ("slice", "angle", "column"))
