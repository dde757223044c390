"""What a worker process asks of its owner, done in order on a thread of its own.

Enter: calls, as they were received. Leave: answers. The thread is started by the first call.
"""

import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from .owner import Owner
from .spawn import WorkerProcess
from .wire import pack


class Calls:
    """Answers the calls of one worker process after another.

    Parameters
    ----------
    owner : Owner
        Does what is asked.
    """

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._n_asked = 0  # written by whoever receives calls, one thread at a time
        self._n_answered = 0  # written by our thread alone

    def ask(self, process: WorkerProcess, message: dict[str, Any]) -> None:
        """A call has come."""
        self._n_asked += 1
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="tomogan-publisher", daemon=True)
            self._thread.start()
        self._queue.put(partial(self._answer, process, message))

    def interrupt(self, groups: list[str]) -> None:
        """A process has ended: its owner is told after what that one asked for, if it ever did."""
        if self._thread is not None:
            self._queue.put(partial(self._owner.interrupted, groups))

    @property
    def pending(self) -> bool:
        """Whether a process waits for an answer."""
        return self._n_asked != self._n_answered

    def end(self) -> None:
        """No more calls will come."""
        self._queue.put(None)

    def join(self) -> None:
        """Wait for the thread, where there is one."""
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while (call := self._queue.get()) is not None:
            call()
            del call

    def _answer(self, process: WorkerProcess, message: dict[str, Any]) -> None:
        replace = partial(self._owner.replace, message["group"])
        try:
            value = self._owner.call(message["method"], message["args"])
            answer = pack({"kind": "answer", "value": value, "error": None}, replace)
        except Exception as error:
            text = str(error) or type(error).__name__
            answer = pack({"kind": "answer", "value": None, "error": text})
        process.send(answer)
        self._n_answered += 1
