"""Inside the worker process: items come in, one after another, and results go out.

Enters: a socket, over which its owner says what to import, then sends items. Leave: messages,
results, log records and calls to the owner. When the owner is gone, what was received is worked
off within a time limit, and the process ends.
"""

import importlib
import logging
import mmap
import os
import queue
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from .arena import view
from .board import Board
from .journal import STEP
from .turns import take_long_turns
from .wire import Channel, Shared

logger = logging.getLogger(__name__)

_NAME = "tomogan-worker"  # Linux shows up to 15 characters
# Of 1000: when memory runs out, the worker goes before the program that it works for.
_OOM_SCORE = 500
_TURN_S = 0.1  # the longest that Linux grants


class OwnerGone(ConnectionError):
    """The process that this one works for has ended."""


class Handler(Protocol):
    """What handles the items of a worker process."""

    def __call__(self, group: str, item: Any) -> Any:
        """Handle an item. What it returns for the last item of a group is sent as its result."""

    def give_up(self, group: str, reason: str) -> None:
        """Items of a group were left out: it can't become whole. May come before its first item."""

    def close(self) -> None:
        """No more items will come."""


class Link:
    """What a handler has of its owner."""

    def __init__(self, channel: Channel, board: Board) -> None:
        self._channel = channel
        self._board = board
        self.group = ""  # of the item at hand
        self._calling = threading.Lock()
        self._answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def emit(self, message: Any) -> None:
        """Send a message. Dropped when the owner is gone."""
        self._board.beat()
        self.send({"kind": "message", "message": message})

    def call(self, method: str, *args: Any) -> Any:
        """Have the owner do something, and return what it returns.

        Raises
        ------
        OwnerGone
        RuntimeError
            What was raised there, in its words.
        """
        self._board.beat()
        with self._calling:
            message = {"kind": "call", "method": method, "args": list(args), "group": self.group}
            sent = self.send(message)
            answer = self._answers.get() if sent else None
            if answer is None:
                self._answers.put(None)  # for the next call
                raise OwnerGone("the program that this belongs to has ended")
        self._board.beat()
        if answer["error"] is not None:
            raise RuntimeError(answer["error"])
        return answer["value"]

    def beat(self) -> None:
        """Say that work gets on; without, it counts as hung after a while."""
        self._board.beat()

    def send(self, message: Any) -> bool:
        """Send to the owner; False where it is gone."""
        try:
            self._channel.send(message)
        except OSError:
            return False
        return True

    def answer(self, answer: dict[str, Any] | None) -> None:
        """An answer to a call has come; None: none will."""
        self._answers.put(answer)


class _ToOwner(logging.Handler):
    """Log records go to the owner, and to stderr when it is gone."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link
        self._here = logging.StreamHandler()
        self._here.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        message = {
            "kind": "log",
            "name": record.name,
            "level": record.levelno,
            "text": self.format(record),
        }
        if not self._link.send(message):
            self._here.emit(record)


class Host:
    """Runs a handler in this process.

    Parameters
    ----------
    sock : socket
        The other end is the owner's.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._segments: dict[int, mmap.mmap] = {}
        self._inbox: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._dropped = threading.Event()
        self._channel = Channel(sock, self._find, self._other)
        self._decode: Callable[[Any], Any] | None = None

    def run(self) -> int:
        """Handle items until the owner says that it was the last, or is gone; the exit status."""
        hello, (fd,) = self._channel.receive()
        self._board = Board(fd)
        os.close(fd)
        self._link = Link(self._channel, self._board)
        _settle_down(hello["nice"])
        _log_to(_ToOwner(self._link), hello["log_levels"])
        try:
            module, _, name = hello["factory"].partition(":")
            make = getattr(importlib.import_module(module), name)
            handler = make(self._link, **hello["arguments"])
        except Exception as error:
            self._link.send({"kind": "unable", "text": f"{type(error).__name__}: {error}"})
            return 1
        self._decode = getattr(handler, "decode", None)
        self._link.send({"kind": "ready"})
        threading.Thread(
            target=self._read, args=(hello["linger_s"],), name="tomogan-reader", daemon=True
        ).start()
        while (message := self._inbox.get())["kind"] != "end":
            self._handle(handler, message)
            del message
        handler.close()
        return 0

    def _handle(self, handler: Handler, message: dict[str, Any]) -> None:
        kind = message["kind"]
        if kind == "barrier":
            self._link.send(message)
            return
        group = self._link.group = message["group"]
        if kind == "give_up":
            calls = [partial(handler.give_up, group, message["reason"])]
        else:
            calls = [partial(handler, group, item) for item in message["items"]]
        for i, call in enumerate(calls):
            if self._dropped.is_set():
                return
            self._board.begun = message["number"] + STEP * i
            result = None
            try:
                result = call()
            except Exception:
                logger.exception("an item of %s could not be handled", group)
            if message.get("last") and i == len(calls) - 1:
                self._link.send({"kind": "done", "group": group, "result": result})
            self._board.handled = message["number"] + STEP * i

    def _read(self, linger_s: float) -> None:
        """On a thread of its own, so that the owner never waits for room in the socket."""
        while True:
            try:
                message, fds = self._channel.receive()
            except (EOFError, OSError):
                break
            kind = message["kind"]
            if kind == "segment":
                self._segments[message["number"]] = mmap.mmap(
                    fds[0], message["size"], access=mmap.ACCESS_READ
                )
                os.close(fds[0])
            elif kind == "unmap":
                for number in message["numbers"]:
                    self._segments.pop(number, None)
            elif kind == "answer":
                self._link.answer(message)
            elif kind == "drop":
                self._dropped.set()
            else:
                self._inbox.put(message)
        self._link.answer(None)
        self._inbox.put({"kind": "end"})
        limit = threading.Timer(linger_s, os._exit, (1,))
        limit.daemon = True
        limit.start()

    def _find(self, place: Shared) -> Any:
        return view(self._segments[place.segment], place)

    def _other(self, value: Any) -> Any:
        if self._decode is None:
            raise ValueError(f"expected plain values, got {value!r}")
        return self._decode(value)


def _settle_down(nice: int) -> None:
    """Be the process that gives way: on the processor, and when memory runs out."""
    # Linux shares processors out among sessions first (sched(7), "autogroup"): a worker in a
    # session of its own would get as much as the scan's program, however nice its process is.
    words = {"comm": _NAME, "oom_score_adj": str(_OOM_SCORE), "autogroup": str(os.nice(nice))}
    for path, text in words.items():
        file = Path("/proc/self") / path
        if file.exists():  # on Linux
            try:
                file.write_text(text)
            except OSError as error:  # some containers do not let their processes say so
                logger.warning("this worker could not set %s to %s: %s", file, text, error)
    if nice and not take_long_turns(_TURN_S):
        logger.debug("this worker could not ask for long turns on the processor")


def _log_to(handler: logging.Handler, levels: dict[str, int]) -> None:
    logging.getLogger().addHandler(handler)
    for name, level in levels.items():
        logging.getLogger(name or None).setLevel(level)
    logging.captureWarnings(True)


def main() -> None:
    """The process: its argument is the number of its socket."""
    status = Host(socket.socket(fileno=int(sys.argv[1]))).run()
    logging.shutdown()
    os._exit(status)  # taking large libraries down in order takes seconds
