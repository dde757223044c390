"""When a scan is previewed.

Enters: how many projections have arrived, and when the work began and ended. Leaves: whether a
preview is due. Previews are what is left out first when the work does not keep up with the scan.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..config import LiveConfig


class PreviewSchedule:
    """Every so many projections or seconds, but only in time that the scan leaves over.

    Whoever works off documents is idle between them, unless they wait already. A preview is made
    when the idle time since the last one is at least what that one took.

    Parameters
    ----------
    config : LiveConfig
    clock : callable
        Seconds, monotonic.
    """

    def __init__(self, config: LiveConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._every, self._every_s = config.preview_every, config.preview_every_s
        self._clock = clock
        self._last = self._work_ended = clock()
        self._last_arrived = 0
        self._cost = self._idle = 0.0

    @contextmanager
    def work(self) -> Iterator[None]:
        """Time in which a document is worked off."""
        self._idle += self._clock() - self._work_ended
        try:
            yield
        finally:
            self._work_ended = self._clock()

    def due(self, n_arrived: int) -> bool:
        """Whether a preview of so many projections is to be made now."""
        n_new = n_arrived - self._last_arrived
        if n_arrived < 2 or n_new == 0 or self._idle < self._cost:
            return False
        late = self._every_s is not None and self._clock() - self._last >= self._every_s
        return late or (self._every is not None and n_new >= self._every)

    @contextmanager
    def preview(self, n_arrived: int) -> Iterator[None]:
        """Time in which a preview is made, whether or not it succeeds."""
        started = self._clock()
        try:
            yield
        finally:
            self._last = self._clock()
            self._cost = self._last - started
            self._last_arrived, self._idle = n_arrived, 0.0
