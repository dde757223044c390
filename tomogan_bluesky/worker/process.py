"""A process that handles items in the order in which they were put, and never blocks the putter.

Knows nothing of what the items are, but that they come in groups, each of which has a last one.
Enter: items, from any thread. Leave: to the owner, the results of groups, messages, and calls that
the process makes. A process that dies or hangs is replaced, and the new one is given all items of
the groups that were not finished.
"""

import os
import threading
import time
from typing import Any

import numpy as np

from .arena import Arena
from .owner import Owner
from .state import WorkerState
from .supervisor import Supervisor
from .wire import Shared

# What an item costs in memory beside its arrays: a document of some 20 numbers, as Python objects.
_ITEM_BYTES = 2048


class ProcessWorker:
    """An owned worker process behind a queue.

    Parameters
    ----------
    factory : str
        "module:name" of a callable; with a `host.Link` and the arguments, it returns a
        `host.Handler`.
    arguments : dict
        Plain values.
    owner : Owner
    limit_bytes : int
        How much memory the items of unfinished groups may take; beyond, `put` refuses.
    hang_s : float
        Seconds without getting on after which the process is killed.
    nice : int
    linger_s : float
        Seconds for which the process goes on with what it has when this one has ended.
    environment : dict
    share : bool
        Whether `place` will be called: then memory for it is prepared.
    """

    def __init__(
        self,
        factory: str,
        arguments: dict[str, Any],
        owner: Owner,
        *,
        limit_bytes: int,
        hang_s: float,
        nice: int,
        linger_s: float,
        environment: dict[str, str],
        share: bool = False,
    ) -> None:
        hello = {"factory": factory, "arguments": arguments, "nice": nice, "linger_s": linger_s}
        self._arena = Arena()
        self._supervisor = Supervisor(hello, environment, hang_s, owner, self._arena, share)
        self._limit = limit_bytes
        self._pid = os.getpid()
        self._putting = threading.Lock()
        self._taken_bytes = 0  # written by `put` alone
        self._closed = False

    def put(
        self, group: str, item: Any, *, n_bytes: int = 0, must: bool = False, last: bool = False
    ) -> bool:
        """Hand an item over, without waiting.

        Parameters
        ----------
        group : str
        item
            Plain values and arrays, which are read later: they must not change.
        n_bytes : int
            Of the arrays.
        must : bool
            Take it in any case, and keep it of a group that is given up.
        last : bool
            The group has no more items.

        Returns
        -------
        bool
            False, and nothing is taken, when too much is waiting or the worker is closed.
        """
        if self._closed or os.getpid() != self._pid:
            return False
        n_bytes += _ITEM_BYTES
        supervisor = self._supervisor
        with self._putting:
            if not must and self._used_bytes + n_bytes > self._limit:
                return False
            self._taken_bytes += n_bytes
            do = supervisor.do_now if last else supervisor.do
            do(supervisor.send_item, group, item, n_bytes, must, last)
        return True

    def place(self, group: str, array: np.ndarray) -> Shared:
        """Copy an array into shared memory at once, to be put in its place into an item."""
        return self._arena.place(group, array)

    def give_up(self, group: str, reason: str) -> None:
        """Say that items of a group were refused."""
        if not self._closed:
            self._supervisor.do(self._supervisor.give_up, group, reason)

    def join(self, timeout: float | None = None) -> bool:
        """Wait until every item that was put is handled; False when `timeout` seconds pass."""
        supervisor = self._supervisor
        if not supervisor.is_started or supervisor.ended.is_set():
            return True
        reached = threading.Event()
        supervisor.do_now(supervisor.set_when_handled, reached)
        return reached.wait(timeout)

    def close(self, timeout: float | None = None) -> bool:
        """Handle what is waiting, then end the process; False when `timeout` seconds pass.

        After a time-out nothing more is handled but the item at hand.
        """
        self._closed = True
        supervisor = self._supervisor
        if not supervisor.is_started:
            self._arena.close()
            return True
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self.join(timeout):
            supervisor.do_now(supervisor.drop)
        supervisor.do_now(supervisor.close)
        left_s = None if deadline is None else max(0, deadline - time.monotonic())
        if not supervisor.ended.wait(left_s):
            return False
        supervisor.join()
        return True

    def abandon(self, timeout: float) -> None:
        """Send what is waiting, and let the process end when it is done: this one may end first."""
        supervisor = self._supervisor
        if not supervisor.is_started or self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        sent = threading.Event()
        supervisor.do(supervisor.close)
        supervisor.do_now(sent.set)
        sent.wait(timeout)

    @property
    def pid(self) -> int | None:
        """Of the process; None where there is none."""
        return self._supervisor.pid

    @property
    def state(self) -> WorkerState:
        """Of this moment. From any thread."""
        supervisor = self._supervisor
        return WorkerState(supervisor.n_waiting, self._used_bytes, supervisor.restarts)

    @property
    def _used_bytes(self) -> int:
        """What the items of unfinished groups take."""
        return self._taken_bytes - self._supervisor.released_bytes
