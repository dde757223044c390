"""A thread that handles items in the order in which they were put, and never blocks the putter.

Knows nothing of what the items are. Enter: items, from any thread. Leaves: calls of `handle`, all
from one thread named ``tomogan-*``.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from .mailbox import Mailbox

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
_CLOSE = object()


class ThreadWorker(Generic[Item]):
    """An owned worker thread behind a queue.

    Parameters
    ----------
    handle : callable
        Called with each item. It must not raise: an exception is logged with its traceback, and
        the next item is handled.
    name : str
        Name of the thread; "tomogan-" is put before it.
    limit : int
        How many items `put` accepts beyond those that are handled.
    at_end : callable, optional
        Called by the thread when it is closed, after the last item.
    """

    def __init__(
        self,
        handle: Callable[[Item], None],
        name: str,
        limit: int,
        at_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._handle = handle
        self._at_end = at_end
        self._name = f"tomogan-{name}"
        self._limit = limit
        self._mailbox: Mailbox[object] = Mailbox()
        self._changed = threading.Condition()
        self._put = 0
        self._handled = 0
        self._thread: threading.Thread | None = None
        self._closed = False

    def put(self, item: Item, *, must: bool = False, last: bool = False) -> bool:
        """Hand an item over, without waiting; it is seen soon, and at once where it is the `last`.

        Returns False, and takes nothing, when `limit` items are waiting (unless `must`) or the
        worker is closed.
        """
        if self._closed or (not must and self.waiting >= self._limit):
            return False
        if self._thread is None:
            self._start()
        self._put += 1
        self._mailbox.put(item)
        if last:
            self._mailbox.ring()
        return True

    def join(self, timeout: float | None = None) -> bool:
        """Wait until every item that was put is handled; False when `timeout` seconds pass."""
        self._mailbox.ring()
        with self._changed:
            return self._changed.wait_for(lambda: self._handled >= self._put, timeout)

    @property
    def waiting(self) -> int:
        """Items that were put and are not handled."""
        return self._put - self._handled

    def close(self, timeout: float | None = None) -> bool:
        """Handle what is waiting, then end the thread; False when `timeout` seconds pass.

        After a time-out nothing more is handled but the item at hand.
        """
        self._closed = True
        if self._thread is None:
            return True
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self.join(timeout):
            self._drop_waiting()
        self._mailbox.put(_CLOSE)
        self._mailbox.ring()
        self._thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return not self._thread.is_alive()

    def _drop_waiting(self) -> None:
        with self._changed:
            self._handled += sum(item is not _CLOSE for item in self._mailbox.clear())

    def _start(self) -> None:
        # A daemon: a scan's process must be able to end even while a slab is being reconstructed.
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (item := self._mailbox.get()) is not _CLOSE:
            try:
                self._handle(item)  # type: ignore[arg-type]
            except Exception:
                logger.exception("%s: an item could not be handled", self._name)
            finally:
                del item  # an idle worker holds no pixels
                with self._changed:
                    self._handled += 1
                    self._changed.notify_all()
        try:
            self._at_end()
        except Exception:
            logger.exception("%s: could not be ended in order", self._name)
