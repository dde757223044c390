"""Documents on their way from the threads that receive them to the one that hands them on.

Enter: documents and runs, from any thread. Leave: the same, in their order, to one thread.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

logger = logging.getLogger(__name__)


class Source(Protocol):
    """Where documents come from: a proxy, a broker, a catalog.

    A source receives in a thread of its own, reconnects by itself, and never raises out of it.
    """

    name: str
    connected: bool

    def start(self, inbox: "Inbox") -> None:
        """Begin to receive."""

    def finished(self, raw_uid: str, done: bool) -> None:
        """A run is out of our hands.

        Parameters
        ----------
        raw_uid : str
        done : bool
            It was worked off, or is none of ours, and may be forgotten. False: it has to come
            again, here or elsewhere.
        """

    def close(self) -> None:
        """Stop receiving. What is not finished is handed over to whoever comes next."""


@dataclass(frozen=True)
class Document:
    """A document that a source received."""

    source: Source
    name: str
    doc: dict[str, Any]


@dataclass(frozen=True)
class ArchivedRun:
    """A whole run that a source has found in a catalog."""

    source: Source
    raw_uid: str
    run: Any


Item = Document | ArchivedRun

# What a document without pixels counts for: they must not pile up without end either.
_LEAST_BYTES = 1000

_AGAIN_S = 1.0


class Inbox:
    """A queue that is bounded in bytes.

    Parameters
    ----------
    limit_bytes : int
        Of the messages that wait.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._items: deque[tuple[Item, int]] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._closed = False

    def put(self, item: Item, n_bytes: int = 0, *, wait: bool) -> bool:
        """Hand an item over; False where there is no room for it.

        Parameters
        ----------
        item : Document or ArchivedRun
        n_bytes : int
            Size of its message.
        wait : bool
            Wait until there is room: for sources that keep what is not fetched. An inbox that was
            closed takes nothing.
        """
        n_bytes = max(n_bytes, _LEAST_BYTES)
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._closed or self._has_room(n_bytes))
            if self._closed or not self._has_room(n_bytes):
                return False
            self._items.append((item, n_bytes))
            self._bytes += n_bytes
            self._changed.notify_all()
            return True

    def get(self, timeout: float) -> Item | None:
        """The next item; None where none comes within `timeout` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: bool(self._items), timeout):
                return None
            item, n_bytes = self._items.popleft()
            self._bytes -= n_bytes
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Take nothing more, and let go of those who wait for room."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def n_items(self) -> int:
        return len(self._items)

    @property
    def n_bytes(self) -> int:
        return self._bytes

    def _has_room(self, n_bytes: int) -> bool:
        return not self._items or self._bytes + n_bytes <= self._limit


def keep_running(
    receive: Callable[[], None], ending: threading.Event, name: str
) -> threading.Thread:
    """Start a thread that receives until `ending` is set, whatever goes wrong in it."""

    def run() -> None:
        while not ending.is_set():
            try:
                receive()
            except Exception:  # a server that is deaf and says nothing would be worse
                logger.exception("%s: receiving failed, and begins again", name)
                ending.wait(_AGAIN_S)

    thread = threading.Thread(target=run, name=f"tomogan-{name}", daemon=True)
    thread.start()
    return thread
