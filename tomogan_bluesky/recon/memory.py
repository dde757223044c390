"""Memory in large pages: to touch fresh small ones costs a processor more than to compute on them.

Enters: a shape. Leaves: a tensor that is not initialised.
"""

import math

import numpy as np
import torch

_LINE = 16  # floats of a cache line, at which torch lets tensors begin, too


def empty(shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Float32 of a shape, not initialised.

    On a processor it is numpy's memory, which asks the kernel for pages of 2 MiB where it can have
    them; torch's has pages of 4 KiB.
    """
    if device.type != "cpu":
        return torch.empty(shape, device=device)
    size = math.prod(shape)
    memory = np.empty(size + _LINE, np.float32)
    first = -(memory.ctypes.data // memory.itemsize) % _LINE
    return torch.from_numpy(memory[first : first + size]).view(shape)


class Scratch:
    """Memory for intermediate results that is used again."""

    def __init__(self, device: torch.device) -> None:
        self._memory = torch.empty(0, device=device)

    def __call__(self, *shape: int) -> torch.Tensor:
        """Float32, not initialised; what was given before is overwritten."""
        size = math.prod(shape)
        if len(self._memory) < size:
            with torch.inference_mode(False):  # what is made there can't be written to elsewhere
                self._memory = empty((size,), self._memory.device)
        return self._memory[:size].view(shape)
