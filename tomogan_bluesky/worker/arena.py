"""Memory that two processes share, for the pixels of items that travel between them.

Enter: arrays, by group. Leave: `Shared` places, which the other process turns into arrays without
copying. A group's memory is taken back as a whole. The memory has no name: it is gone with the
last process that has it, however that process ends.
"""

import math
import mmap
import os
import tempfile
import threading
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from .wire import Shared

SEGMENT_BYTES = 64 << 20
_ALIGNMENT = 64
# Segments that are kept for the next groups: their pages need not be made anew.
_SPARES = 2


@dataclass
class Segment:
    """A piece of shared memory."""

    number: int
    fd: int
    memory: mmap.mmap
    used: int = 0

    @property
    def size(self) -> int:
        return len(self.memory)


class Arena:
    """Shared memory that grows by segments; a segment belongs to one group at a time.

    Parameters
    ----------
    segment_bytes : int
        Of a segment, unless an array needs more.
    """

    def __init__(self, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._segment_bytes = segment_bytes
        self._lock = threading.Lock()
        self._count = 0
        self._of_group: defaultdict[str, list[Segment]] = defaultdict(list)
        self._spare: list[Segment] = []

    def place(self, group: str, array: np.ndarray) -> Shared:
        """Copy an array into the memory of a group."""
        with self._lock:
            segments = self._of_group[group]
            if not segments or segments[-1].size - segments[-1].used < array.nbytes:
                segments.append(self._segment(array.nbytes))
            segment = segments[-1]
            offset = segment.used
            segment.used += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
        place = Shared(segment.number, offset, array.dtype.str, array.shape)
        view(segment.memory, place)[...] = array
        return place

    def prepare(self) -> None:
        """Have a segment ready whose pages are there, so that `place` costs a copy alone."""
        if not self._spare:
            segment = self._make(self._segment_bytes)
            np.frombuffer(segment.memory, np.uint8)[:: mmap.PAGESIZE] = 0
            with self._lock:
                self._spare.append(segment)

    def free(self, group: str) -> list[int]:
        """Take back the memory of a group; returns the numbers of the segments that are gone."""
        with self._lock:
            gone = []
            for segment in self._of_group.pop(group, ()):
                segment.used = 0
                if len(self._spare) < _SPARES and segment.size == self._segment_bytes:
                    self._spare.append(segment)
                else:
                    gone.append(segment)
        for segment in gone:
            os.close(segment.fd)
        return [segment.number for segment in gone]

    def segment(self, number: int) -> Segment:
        """The segment of a number, which must be of a group or a spare."""
        with self._lock:
            every = [self._spare, *self._of_group.values()]
            return next(s for segments in every for s in segments if s.number == number)

    def close(self) -> None:
        """Give all memory back."""
        for group in list(self._of_group):
            self.free(group)
        with self._lock:
            while self._spare:
                os.close(self._spare.pop().fd)

    def _segment(self, n_bytes: int) -> Segment:
        if self._spare and n_bytes <= self._segment_bytes:
            return self._spare.pop()
        return self._make(max(n_bytes, self._segment_bytes))

    def _make(self, n_bytes: int) -> Segment:
        self._count += 1
        fd = anonymous_file("tomogan-pixels", n_bytes)
        return Segment(self._count, fd, mmap.mmap(fd, n_bytes))


def anonymous_file(name: str, n_bytes: int) -> int:
    """File descriptor of memory without a path, which can be mapped by every process that has it.

    Neither the size of /dev/shm nor a process that is killed matters to it.
    """
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create(name, os.MFD_CLOEXEC)
    else:  # not on Linux: a file that is unlinked already
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, n_bytes)
    return fd


def view(memory: mmap.mmap, place: Shared) -> np.ndarray:
    """The array at a place; read-only where the memory is."""
    n = math.prod(place.shape)
    flat = np.frombuffer(memory, np.dtype(place.dtype), n, place.offset)
    return flat.reshape(place.shape)
