"""Gives items to a worker process, and another process in its place when it dies or hangs.

Enter: items, by group, and what is to be done with them, from any thread. Leave: to the process,
packed items; to the owner, results, messages and calls. All but `do` and the properties happens on
one thread, the sender's; what comes from the process, on the receiver's.
"""

import logging
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from .arena import Arena
from .calls import Calls
from .journal import Entry, Journal
from .mailbox import Mailbox
from .owner import Owner
from .spawn import WorkerProcess
from .wire import Shared, pack

logger = logging.getLogger(__name__)

# Arrays from this size on travel in shared memory.
_SHARED_BYTES = 1 << 14
# Items that wait are packed and sent together, until they take so much: a hundred documents, during
# whose packing nobody else has the interpreter, for a fraction of a millisecond.
_TOGETHER_BYTES = 1 << 18
# A group that three workers died at is given up; one that a fourth dies at is dropped.
_CRASHES = 3
# Workers that ended before they could be given anything, one after another.
_STARTS = 3
_PACKAGE = __name__.partition(".")[0]


class Supervisor:
    """The sender's thread, and what it keeps.

    Parameters
    ----------
    hello, environment, hang_s
        See `spawn.WorkerProcess`.
    owner : Owner
    arena : Arena
        Closed when all has ended.
    share : bool
        Whether somebody will place arrays in the arena, so that memory has to be prepared.

    Attributes
    ----------
    ended : Event
        Everything was handled, and there is no process any more.
    released_bytes : int
        Of the items of groups that are finished.
    restarts : int
        How many processes died or were killed.
    """

    def __init__(
        self,
        hello: dict[str, Any],
        environment: dict[str, str],
        hang_s: float,
        owner: Owner,
        arena: Arena,
        share: bool,
    ) -> None:
        self.ended = threading.Event()
        self.released_bytes = 0
        self.restarts = 0
        self._hello, self._environment, self._hang_s = hello, environment, hang_s
        self._owner, self._calls = owner, Calls(owner)
        self._arena, self._share = arena, share
        self._mailbox: Mailbox[tuple[Callable[..., None], tuple[Any, ...]]] = Mailbox()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        # From here on: the sender's thread alone.
        self._journal = Journal()
        self._process: WorkerProcess | None = None
        self._lost: set[str] = set()  # groups whose further items are left out
        self._failed_starts = 0
        self._closing = False
        self._barriers: dict[int, threading.Event] = {}
        self._n_barriers = 0

    # From any thread ---------------------------------------------------------------------------

    def do(self, method: Callable[..., None], *args: Any) -> None:
        """Have something done on the sender's thread, when it looks next."""
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    # A daemon: a scan's process must be able to end while its worker is busy.
                    thread = threading.Thread(target=self._run, name="tomogan-sender", daemon=True)
                    thread.start()
                    self._thread = thread
        self._mailbox.put((method, args))

    def do_now(self, method: Callable[..., None], *args: Any) -> None:
        """The same, and somebody waits for it."""
        self.do(method, *args)
        self._mailbox.ring()

    def join(self) -> None:
        """Wait for the threads to end."""
        if self._thread is not None:
            self._thread.join()
        self._calls.join()

    @property
    def is_started(self) -> bool:
        """Whether anything was ever to be done."""
        return self._thread is not None

    @property
    def pid(self) -> int | None:
        """Of the process; None where there is none."""
        process = self._process
        return None if process is None else process.pid

    @property
    def n_waiting(self) -> int:
        """How many items are not handled."""
        process = self._process
        handled = 0 if process is None else process.board.handled
        return len(self._mailbox) + self._journal.count_after(handled)

    # Items -------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self.ended.is_set():
            if not self._mailbox and self._process is not None:
                self._process.flush()
            method, args = self._mailbox.get()
            try:
                method(*args)
            except Exception:
                logger.exception("the worker process could not be told something")
            del method, args  # an idle thread holds no pixels

    def send_item(self, name: str, item: Any, n_bytes: int, must: bool, last: bool) -> None:
        """Give the process an item, which counts `n_bytes` until its group is finished.

        Items of the group that wait right behind it go along.
        """
        items = [item]
        while n_bytes < _TOGETHER_BYTES and not last:
            method, args = self._mailbox.peek() or (None, ())
            if method != self.send_item or (args[0], args[3]) != (name, must):
                break
            self._mailbox.get()
            _, item, more_bytes, _, last = args
            items.append(item)
            n_bytes += more_bytes
        if name in self._lost:
            self.released_bytes += n_bytes
        else:
            self._journal.open(name).n_bytes += n_bytes
        self._send_items(name, items, must, last)

    def _send_items(self, name: str, items: list[Any], must: bool, last: bool) -> None:
        if name in self._lost:
            if last:
                self._lost.discard(name)
            return
        if self._journal.open(name).given_up and not must:
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

        number = self._journal.next_number(len(items))
        message = {"kind": "items", "number": number, "group": name, "items": items, "last": last}
        try:
            packed = pack(message, replace)
        except TypeError as error:
            if len(items) > 1:  # one of them
                for i, item in enumerate(items, 1):
                    self._send_items(name, [item], must, last and i == len(items))
            elif must:
                self._lose(name, str(error))
                if not last:
                    self._lost.add(name)
            else:
                self.give_up(name, str(error))
            return
        self._send(name, Entry(number, packed, tuple(sorted(segments)), must, len(items)))
        if self._share:
            self._arena.prepare()

    def give_up(self, name: str, reason: str) -> None:
        """Tell the process that items of a group were left out."""
        if name not in self._lost:
            self._send(name, self._note(self._journal.next_number(), name, reason))

    def drop(self) -> None:
        """Let nothing more be handled but the item at hand."""
        for name in list(self._journal.groups):
            self._done(name)
        if self._process is not None:
            self._process.send({"kind": "drop"})

    def close(self) -> None:
        """Let the process end when it has handled what it has."""
        self._closing = True
        if self._process is None:
            self._without_process()
        else:
            self._process.send({"kind": "end"})

    def set_when_handled(self, reached: threading.Event) -> None:
        """Set an event when all items that were given before it are handled."""
        if self._process is None:
            reached.set()
            return
        self._n_barriers += 1
        self._barriers[self._n_barriers] = reached
        self._process.send({"kind": "barrier", "number": self._n_barriers})

    def _note(self, number: int, name: str, reason: str) -> Entry:
        message = {"kind": "give_up", "number": number, "group": name, "reason": reason}
        return Entry(number, pack(message), (), True)

    def _send(self, name: str, entry: Entry) -> None:
        self._journal.open(name).entries.append(entry)
        if self._process is None:
            self._start()  # which sends the journal, and this entry with it
        else:
            self._process.post_entry(entry, self._arena)

    def _reached(self, number: int) -> None:
        self._barriers.pop(number).set()

    def _done(self, name: str) -> None:
        """A group is finished: give its memory back."""
        group = self._journal.groups.pop(name, None)
        if group is not None:
            self.released_bytes += group.n_bytes
        gone = self._arena.free(name)
        if self._process is not None:
            self._process.unmap(gone)

    def _lose(self, name: str, reason: str) -> None:
        self._done(name)
        self._owner.lost(name, reason)

    # Processes ---------------------------------------------------------------------------------

    def _start(self) -> None:
        """Start a process, and give it what the one before it did not finish."""
        levels = {"": logging.WARNING, _PACKAGE: logging.getLogger(_PACKAGE).getEffectiveLevel()}
        try:
            process = WorkerProcess(
                {**self._hello, "log_levels": levels},
                self._environment,
                self._hang_s,
                self._receive,
                lambda process: self.do_now(self._died, process),
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
            process.post_entry(entry, self._arena)
        for number in self._barriers:
            process.send({"kind": "barrier", "number": number})
        if self._closing:
            process.send({"kind": "end"})

    def _died(self, process: WorkerProcess) -> None:
        process.close()
        self._process = None
        groups = list(self._journal.groups)
        if self._closing and not self._journal.count_after(process.board.handled):
            # As it was told to; groups that are left have no end, and will not get one.
            self._calls.interrupt(groups)
            for name in groups:
                self._done(name)
            self._without_process()
            return
        self.restarts += 1
        why = process.describe_end()
        logger.error(
            "worker process %d: %s; %s",
            process.pid,
            why,
            f"taken up again: {', '.join(groups)}" if groups else "it was idle",
        )
        self._calls.interrupt(groups)
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
            self.ended.set()
            self._arena.close()
            self._calls.end()

    # On the receiver's thread ------------------------------------------------------------------

    def _receive(self, process: WorkerProcess, message: dict[str, Any]) -> None:
        kind = message["kind"]
        if kind == "done":
            self._owner.result(message["group"], message["result"])
            self.do_now(self._done, message["group"])
        elif kind == "barrier":
            self.do_now(self._reached, message["number"])
        elif kind == "message":
            self._owner.message(message["message"])
        elif kind == "log":
            log = logging.getLogger(message["name"])
            log.log(message["level"], "%s", message["text"])
        elif kind == "call":
            self._calls.ask(process, message)

    def _is_busy(self, process: WorkerProcess) -> bool:
        """Whether a process has something to do, and does not wait for us."""
        return process.last_number > process.board.handled and not self._calls.pending
