"""A few numbers that a worker process shows to its owner, without a message.

The worker writes them, the owner reads them, also after the worker was killed.
"""

import mmap

import numpy as np

N_BYTES = mmap.PAGESIZE


class Board:
    """What a worker is at: numbers of items, and signs of life.

    Parameters
    ----------
    fd : int
        An anonymous file of `N_BYTES`.
    """

    def __init__(self, fd: int) -> None:
        self._numbers = np.frombuffer(mmap.mmap(fd, N_BYTES), np.int64, 3)

    @property
    def begun(self) -> int:
        """Number of the last item whose handling was begun."""
        return int(self._numbers[0])

    @begun.setter
    def begun(self, number: int) -> None:
        self._numbers[0] = number
        self.beat()

    @property
    def handled(self) -> int:
        """Number of the last item that was handled."""
        return int(self._numbers[1])

    @handled.setter
    def handled(self, number: int) -> None:
        self._numbers[1] = number
        self.beat()

    @property
    def beats(self) -> int:
        """Grows as long as the worker gets on."""
        return int(self._numbers[2])

    def beat(self) -> None:
        """Say that work gets on."""
        self._numbers[2] += 1
