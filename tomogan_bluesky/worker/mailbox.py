"""Where threads leave things for another one, at next to no cost for themselves.

Enter: items, from any thread. Leave: the same, in their order, to one thread.

A thread that waits for each item is woken by each item: that costs whoever leaves it several times
what leaving it costs, and then the two of them stand in line for the interpreter. So while items
come, the reader looks for them now and then, and is woken only where somebody waits for it.
"""

import threading
from collections import deque
from contextlib import suppress
from typing import Generic, TypeVar

Item = TypeVar("Item")

# Seconds from one look to the next: what comes meanwhile is handled in one go.
LOOK_EVERY_S = 0.1
# After so many looks at nothing the reader sleeps until an item wakes it.
_LOOKS = 10


class Mailbox(Generic[Item]):
    """A queue whose reader gathers what comes."""

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._bell = threading.Lock()  # held by nobody once it was rung
        self._bell.acquire()
        self._asleep = False  # written by the reader alone

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: Item) -> None:
        """Leave an item, without waiting."""
        self._items.append(item)
        if self._asleep:
            self.ring()

    def ring(self) -> None:
        """Have the reader look at once: somebody waits for what comes of it."""
        with suppress(RuntimeError):  # it rings already
            self._bell.release()

    def get(self) -> Item:
        """The next item; waits until there is one. For one thread alone."""
        while True:
            with suppress(IndexError):
                return self._items.popleft()
            self._wait()

    def peek(self) -> Item | None:
        """What `get` would return now, left where it is; None where nothing is there.

        For the thread that reads.
        """
        return self._items[0] if self._items else None

    def clear(self) -> list[Item]:
        """Take out all that waits."""
        taken = []
        with suppress(IndexError):
            while True:
                taken.append(self._items.popleft())
        return taken

    def _wait(self) -> None:
        for _ in range(_LOOKS):
            self._bell.acquire(timeout=LOOK_EVERY_S)
            if self._items:
                return
        self._asleep = True  # an item that comes from now on rings
        while not self._items:
            self._bell.acquire()
        self._asleep = False
