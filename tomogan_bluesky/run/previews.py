"""Previews of a scan that goes on.

Enter: how many projections have arrived, and when the work began and ended. Leave: previews, in the
derived run that the first of them begins. They are what is left out first when the work does not
keep up with the scan.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..config import LiveConfig
from .derivation import Derivation
from .live import LiveScan

logger = logging.getLogger(__name__)


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


class Previews:
    """Makes and publishes those of one run. One that fails is the last: the slices come anyway.

    Parameters
    ----------
    schedule : PreviewSchedule
    live : LiveScan
        What is reconstructed so far.
    derivation : Derivation
        Its derived run begins with the first preview.
    metadata : callable
        What the start document of the derived run is to say, as far as it is known.

    Attributes
    ----------
    n_published : int
    has_started : bool
        Whether the derived run has begun.
    started_with : dict
        The metadata that it has begun with.
    """

    def __init__(
        self,
        schedule: PreviewSchedule,
        live: LiveScan,
        derivation: Derivation,
        metadata: Callable[[], dict[str, Any]],
    ) -> None:
        self._schedule = schedule
        self._live = live
        self._derivation = derivation
        self._metadata = metadata
        self._wanted = True
        self.n_published = 0
        self.has_started = False
        self.started_with: dict[str, Any] = {}

    def advance(self, has_references: bool) -> None:
        """Publish one, if one is due.

        Parameters
        ----------
        has_references : bool
            Whether the run has darks and flats itself.
        """
        n_arrived = self._live.n_arrived
        if not (self._wanted and self._schedule.due(n_arrived)):
            return
        try:
            with self._schedule.preview(n_arrived):
                if not self.has_started:
                    self._start(has_references)
                if self._wanted:
                    self._publish(n_arrived)
        except Exception as error:
            logger.warning("run %s: no more previews: %s", self._derivation.raw_uid, error)
            self._wanted = False

    def forget(self) -> None:
        """Their derived run was ended: what follows is another one."""
        self._wanted = self.has_started = False
        self.started_with = {}

    def _start(self, has_references: bool) -> None:
        derivation = self._derivation
        derivation.load()
        derivation.look_up(has_references)
        if derivation.final_uid is not None:
            self._wanted = False
            return
        metadata = self._metadata()
        rows = [*map(self._live.recorded_row, self._live.preview_rows)]
        derivation.make({**metadata, "preview_rows": rows}).start()
        self.has_started, self.started_with = True, metadata

    def _publish(self, n_arrived: int) -> None:
        run, emit, denoiser = self._derivation.run, self._derivation.emit, self._derivation.denoiser
        assert run is not None
        assert emit is not None
        slices, centre = self._live.preview()
        arrays = {"reconstruction": slices.cpu().numpy()}
        if denoiser is not None:  # each as the only slice: they are not neighbours
            denoise = self._derivation.refiltered(denoiser)
            arrays["denoised"] = torch.cat([*map(denoise, slices.split(1))]).cpu().numpy()
        run.preview(arrays, {"n_projections": n_arrived, "rotation_centre": centre})
        emit.finish()  # its time counts: what takes long comes less often
        self.n_published += 1
