"""Documents leave on a thread of their own, so that the next slab is made meanwhile.

Enter: the documents of one derived run, and who takes them. Leave: the documents, in their order.
Those that come while others are on their way go together, so a server that is slower than we are
gets fewer and larger requests instead of a queue that grows.
"""

import threading
from collections.abc import Mapping
from typing import Any

from .merging import MOST_BYTES, Named, merged, size_of
from .outbox import Outbox


class Postman:
    """Brings the documents of one derived run to an outbox.

    Its thread is there only while something is on its way. Whoever brings more than `MOST_BYTES`
    waits until some of that has gone. The stop document returns when it, and all before it, has
    arrived.

    Parameters
    ----------
    outbox : Outbox
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._bag: list[Named] = []
        self._n_bytes = 0  # in the bag and on their way
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()

    @property
    def waiting(self) -> str | None:
        """Why the run waits in the spool; None where its server has it, or gets it now."""
        return self._outbox.waiting

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document.

        Raises
        ------
        PublishError
            This one, or one before it, was not taken; nothing goes on its way after that.
        """
        size = size_of(doc)
        with self._changed:
            self._changed.wait_for(lambda: self._has_room(size) or self._error is not None)
            self._check()
            self._bag.append((name, doc))
            self._n_bytes += size
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="tomogan-postman", daemon=True
                )
                self._thread.start()
        if name == "stop":
            self.finish()

    def finish(self) -> None:
        """Wait until everything has arrived.

        Raises
        ------
        PublishError
            Something was not taken.
        """
        self.join()
        with self._changed:
            self._check()

    def join(self) -> None:
        """Wait until nothing is on its way, arrived or not."""
        with self._changed:
            self._changed.wait_for(lambda: self._thread is None)

    def _has_room(self, size: int) -> bool:
        return self._n_bytes == 0 or self._n_bytes + size <= MOST_BYTES

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    # On the postman's thread -------------------------------------------------------------------

    def _run(self) -> None:
        while bag := self._next_bag():
            try:
                for name, doc in merged(bag):
                    self._outbox(name, doc)
            except Exception as error:
                self._give_up(error)

    def _next_bag(self) -> list[Named]:
        with self._changed:
            self._n_bytes = sum(size_of(doc) for _, doc in self._bag)
            bag, self._bag = self._bag, []
            if not bag:
                self._thread = None
            self._changed.notify_all()
            return bag

    def _give_up(self, error: Exception) -> None:
        with self._changed:
            self._error = error
            self._bag = []
