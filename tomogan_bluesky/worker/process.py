"""A process that handles items in the order in which they were put, and never blocks the putter.

Knows nothing of what the items are, but that they come in groups, each of which has a last one.
Enter: items, from any thread. Leave: to the owner, the results of groups, messages, and calls that
the process makes. A process that dies or hangs is replaced, and the new one is given all items of
the groups that were not finished.
"""

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

import numpy as np

from .arena import Arena
from .journal import Entry, Journal
from .spawn import WorkerProcess
from .wire import Shared, pack

logger = logging.getLogger(__name__)

# What an item costs in memory beside its arrays: a document of some 20 numbers, as Python objects.
_ITEM_BYTES = 2048
# Arrays from this size on travel in shared memory.
_SHARED_BYTES = 1 << 14
# A group that three workers died at is given up; one that a fourth dies at is dropped.
_CRASHES = 3
# Workers that ended before they could be given anything, one after another.
_STARTS = 3
# For so long, and so often, the sender looks for another item before it waits to be woken.
_LOOK_AGAIN_S, _LOOKS = 0.002, 50
_PACKAGE = __name__.partition(".")[0]


class Owner(Protocol):
    """What a `ProcessWorker` tells and asks; each method is called on a thread of its own."""

    def result(self, group: str, result: Any) -> None:
        """All items of a group are handled."""

    def lost(self, group: str, reason: str) -> None:
        """A group will not be handled."""

    def interrupted(self, groups: list[str]) -> None:
        """The process died; unfinished groups will be handled again from their first item.

        Comes between the calls of that process and those of the next one.
        """

    def message(self, message: Any) -> None:
        """The handler sent a message."""

    def call(self, method: str, args: list[Any]) -> Any:
        """The handler wants something done. What is raised is raised there."""

    def replace(self, group: str, value: Any) -> Any:
        """What takes the place of something that can't travel as it is; see `wire.pack`."""


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
        self._hello = {
            "factory": factory,
            "arguments": arguments,
            "nice": nice,
            "linger_s": linger_s,
        }
        self._owner = owner
        self._limit = limit_bytes
        self._hang_s = hang_s
        self._environment = environment
        self._share = share
        self._pid = os.getpid()
        # Tokens: a method of this class and its arguments, for the sender's thread.
        self._queue: queue.SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]]] = (
            queue.SimpleQueue()
        )
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._n_asked = 0  # written by the receiver's thread alone
        self._n_answered = 0  # written by the caller's thread alone
        self._putting, self._starting = threading.Lock(), threading.Lock()
        self._sender: threading.Thread | None = None
        self._caller: threading.Thread | None = None
        self._taken = 0  # bytes; written by `put` alone
        self._released = 0  # bytes; written by the sender's thread alone
        self._closed = False
        self._ended = threading.Event()
        # From here on: the sender's thread alone.
        self._arena = Arena()
        self._journal = Journal()
        self._process: WorkerProcess | None = None
        self._lost: set[str] = set()  # groups whose further items are left out
        self._failed_starts = 0
        self._closing = False
        self._barriers: dict[int, threading.Event] = {}
        self._n_barriers = 0

    # From any thread ---------------------------------------------------------------------------

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
        with self._putting:
            if not must and self._taken + n_bytes - self._released > self._limit:
                return False
            self._taken += n_bytes
            self._do(self._send_item, group, item, n_bytes, must, last)
        return True

    def place(self, group: str, array: np.ndarray) -> Shared:
        """Copy an array into shared memory at once, to be put in its place into an item."""
        return self._arena.place(group, array)

    def give_up(self, group: str, reason: str) -> None:
        """Say that items of a group were refused."""
        if not self._closed:
            self._do(self._give_up, group, reason)

    def join(self, timeout: float | None = None) -> bool:
        """Wait until every item that was put is handled; False when `timeout` seconds pass."""
        if self._sender is None or self._ended.is_set():
            return True
        reached = threading.Event()
        self._do(self._send_barrier, reached)
        return reached.wait(timeout)

    def close(self, timeout: float | None = None) -> bool:
        """Handle what is waiting, then end the process; False when `timeout` seconds pass.

        After a time-out nothing more is handled but the item at hand.
        """
        self._closed = True
        if self._sender is None:
            self._arena.close()
            return True
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self.join(timeout):
            self._do(self._drop)
        self._do(self._close)
        if not self._ended.wait(None if deadline is None else max(0, deadline - time.monotonic())):
            return False
        for thread in (self._sender, self._caller):
            if thread is not None:
                thread.join()
        return True

    def abandon(self, timeout: float) -> None:
        """Send what is waiting, and let the process end when it is done: this one may end first."""
        if self._sender is None or self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        sent = threading.Event()
        self._do(self._close)
        self._do(sent.set)
        sent.wait(timeout)

    @property
    def pid(self) -> int | None:
        """Of the process; None where there is none."""
        process = self._process
        return None if process is None else process.pid

    def _do(self, method: Callable[..., None], *args: Any) -> None:
        """Have something done on the sender's thread."""
        if self._sender is None:
            with self._starting:
                if self._sender is None:
                    # A daemon: a scan's process must be able to end while its worker is busy.
                    thread = threading.Thread(target=self._run, name="tomogan-sender", daemon=True)
                    thread.start()
                    self._sender = thread
        self._queue.put((method, args))

    # On the sender's thread: items -------------------------------------------------------------

    def _run(self) -> None:
        while not self._ended.is_set():
            method, args = self._next()
            try:
                method(*args)
            except Exception:
                logger.exception("the worker process could not be told something")
            del method, args  # an idle thread holds no pixels

    def _next(self) -> tuple[Callable[..., None], tuple[Any, ...]]:
        """What is to be done next; waits for it.

        To wake a waiting thread costs whoever puts an item several times what the queue costs. So
        while items come one upon the other, this one looks for them now and then instead.
        """
        for _ in range(_LOOKS):
            with suppress(queue.Empty):
                return self._queue.get_nowait()
            time.sleep(_LOOK_AGAIN_S)
        return self._queue.get()

    def _send_item(self, name: str, item: Any, n_bytes: int, must: bool, last: bool) -> None:
        if name in self._lost:
            self._released += n_bytes
            if last:
                self._lost.discard(name)
            return
        group = self._journal.open(name)
        group.n_bytes += n_bytes
        if group.given_up and not must:
            return
        segments: set[int] = set()

        def replace(value: Any) -> Any:
            value = self._owner.replace(name, value)
            if isinstance(value, np.ndarray) and not value.dtype.hasobject:
                if value.nbytes < _SHARED_BYTES:
                    return value.copy()
                value = self._arena.place(name, value)
            if isinstance(value, Shared):
                segments.add(value.segment)
            return value

        number = self._journal.next_number()
        message = {"kind": "item", "number": number, "group": name, "item": item, "last": last}
        try:
            packed = pack(message, replace)
        except TypeError as error:
            if must:
                self._lose(name, str(error))
                self._lost.add(name)
            else:
                self._give_up(name, str(error))
            return
        self._send(name, Entry(number, packed, tuple(sorted(segments)), must))
        if self._share:
            self._arena.prepare()

    def _give_up(self, name: str, reason: str) -> None:
        if name not in self._lost:
            self._send(name, self._note(self._journal.next_number(), name, reason))

    def _note(self, number: int, name: str, reason: str) -> Entry:
        message = {"kind": "give_up", "number": number, "group": name, "reason": reason}
        return Entry(number, pack(message), (), True)

    def _send(self, name: str, entry: Entry) -> None:
        self._journal.open(name).entries.append(entry)
        if self._process is None:
            self._start()  # which sends the journal, and this entry with it
        else:
            self._process.send_item(entry, self._arena)

    def _send_barrier(self, reached: threading.Event) -> None:
        if self._process is None:
            reached.set()
            return
        self._n_barriers += 1
        self._barriers[self._n_barriers] = reached
        self._process.send({"kind": "barrier", "number": self._n_barriers})

    def _reached(self, number: int) -> None:
        self._barriers.pop(number).set()

    def _done(self, name: str) -> None:
        """A group is finished: give its memory back."""
        group = self._journal.groups.pop(name, None)
        if group is not None:
            self._released += group.n_bytes
        gone = self._arena.free(name)
        if self._process is not None:
            self._process.unmap(gone)

    def _lose(self, name: str, reason: str) -> None:
        self._done(name)
        self._owner.lost(name, reason)

    # On the sender's thread: processes ---------------------------------------------------------

    def _start(self) -> None:
        """Start a process, and give it what the one before it did not finish."""
        levels = {"": logging.WARNING, _PACKAGE: logging.getLogger(_PACKAGE).getEffectiveLevel()}
        try:
            process = WorkerProcess(
                {**self._hello, "log_levels": levels},
                self._environment,
                self._hang_s,
                self._receive,
                lambda process: self._do(self._died, process),
                self._is_busy,
            )
        except OSError as error:
            for name in list(self._journal.groups):
                self._lose(name, f"no worker process can be started: {error}")
                self._lost.add(name)
            self._without_process()
            return
        self._process = process
        for entry in self._journal.entries():
            process.send_item(entry, self._arena)
        for number in self._barriers:
            process.send({"kind": "barrier", "number": number})
        if self._closing:
            process.send({"kind": "end"})

    def _died(self, process: WorkerProcess) -> None:
        process.close()
        self._process = None
        groups = list(self._journal.groups)
        if self._closing and not groups:
            self._without_process()
            return
        why = process.describe_end()
        logger.error(
            "worker process %d: %s; %s",
            process.pid,
            why,
            f"taken up again: {', '.join(groups)}" if groups else "it was idle",
        )
        if self._caller is not None:  # after what it asked for
            self._calls.put(partial(self._owner.interrupted, groups))
        at_hand = self._journal.at_hand(process.board.begun, process.board.handled)
        if at_hand is not None:
            self._blame(at_hand, why)
        self._failed_starts = 0 if process.ready else self._failed_starts + 1
        if self._failed_starts >= _STARTS:
            self._failed_starts = 0
            for name in list(self._journal.groups):
                self._lose(name, f"no worker process can be started: {why}")
                self._lost.add(name)
        if self._journal.groups:
            self._start()
        else:
            self._without_process()

    def _blame(self, name: str, why: str) -> None:
        """A process died at a group: give it up before it takes the others down."""
        group = self._journal.groups[name]
        group.crashes += 1
        reason = f"{group.crashes} worker processes ended while they were at it; the last: {why}"
        if group.given_up:
            self._lose(name, reason)
            self._lost.add(name)
        elif group.crashes >= _CRASHES:
            number = self._journal.reduce(name)
            group.entries.insert(0, self._note(number, name, reason))

    def _without_process(self) -> None:
        """There is nothing to do, and nobody to do it."""
        for number in list(self._barriers):
            self._reached(number)
        if self._closing:
            self._ended.set()
            self._arena.close()
            self._calls.put(None)

    def _drop(self) -> None:
        for name in list(self._journal.groups):
            self._done(name)
        if self._process is not None:
            self._process.send({"kind": "drop"})

    def _close(self) -> None:
        self._closing = True
        if self._process is None:
            self._without_process()
        else:
            self._process.send({"kind": "end"})

    # On the receiver's thread ------------------------------------------------------------------

    def _receive(self, process: WorkerProcess, message: dict[str, Any]) -> None:
        kind = message["kind"]
        if kind == "done":
            self._owner.result(message["group"], message["result"])
            self._do(self._done, message["group"])
        elif kind == "barrier":
            self._do(self._reached, message["number"])
        elif kind == "message":
            self._owner.message(message["message"])
        elif kind == "log":
            log = logging.getLogger(message["name"])
            log.log(message["level"], "%s", message["text"])
        elif kind == "call":
            self._n_asked += 1
            if self._caller is None:
                self._caller = threading.Thread(
                    target=self._serve_calls, name="tomogan-publisher", daemon=True
                )
                self._caller.start()
            self._calls.put(partial(self._answer, process, message))

    def _is_busy(self, process: WorkerProcess) -> bool:
        """Whether a process has something to do, and does not wait for us."""
        return process.last_number > process.board.handled and self._n_asked == self._n_answered

    # On the caller's thread --------------------------------------------------------------------

    def _serve_calls(self) -> None:
        while (call := self._calls.get()) is not None:
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
