"""One worker process: started, spoken to, ended.

Enters: what it is to import. Leave: messages from it, on a thread of their own.
"""

import logging
import os
import select
import signal
import site
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .arena import Arena, anonymous_file
from .board import N_BYTES, Board
from .journal import Entry
from .wire import Channel

logger = logging.getLogger(__name__)

_ROOT = Path(__file__).resolve().parents[2]
# Seconds for the imports of a worker, whatever it counts as a hang later: disks can be slow.
_START_S = 120.0
# Seconds between two looks whether the worker has got on, at most.
_LOOK_S = 30.0
# Seconds of processor time below which a process has not computed anything.
_BLOCKED_S = 0.05
# Seconds from the closing of its socket to the end of a worker, which is the last thing it does.
_END_S = 10.0


class WorkerProcess:
    """A process that runs `worker.host`.

    It is a session of its own, so that Ctrl-C in a terminal does not reach it, and it imports what
    it is told and nothing else: neither the user's script nor a startup file is executed again.

    Parameters
    ----------
    hello : dict
        What it is to import, and how it is to behave; see `host.Host.run`.
    environment : dict
        Environment variables beside those of this process.
    hang_s : float
        Seconds without getting on, while there is work, after which it is killed: by the clock
        where it does nothing, of processor time where it computes.
    receive : callable
        Called with this object and each message, on a thread.
    ended : callable
        Called with this object on the same thread, at last.
    busy : callable
        Returns whether the process has something to do that is not waiting for us.

    Attributes
    ----------
    ready : bool
        Whether it has imported what it is to.
    last_number : int
        Number of the last item that it was sent.
    """

    def __init__(
        self,
        hello: dict[str, Any],
        environment: dict[str, str],
        hang_s: float,
        receive: Callable[["WorkerProcess", dict[str, Any]], None],
        ended: Callable[["WorkerProcess"], None],
        busy: Callable[["WorkerProcess"], bool],
    ) -> None:
        self.ready = False
        self.why = ""
        self.hung = False
        self.last_number = 0
        self._hang_s = hang_s
        self._receive, self._ended, self._busy = receive, ended, busy
        self._known: set[int] = set()
        ours, theirs = socket.socketpair()
        board = anonymous_file("tomogan-board", N_BYTES)
        try:
            self.board = Board(board)
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-X", "faulthandler"),
                    *("-m", "tomogan_bluesky.worker", str(theirs.fileno())),
                ],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what prints there is a message, and standard output is not ours
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env={**os.environ, **_importable(), **environment},
            )
            self.channel = Channel(ours)
            self.send(hello, [board])
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(board)
        self._thread = threading.Thread(target=self._run, name="tomogan-receiver", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: Any, fds: Sequence[int] = ()) -> None:
        """Send a message; one that is dead does not get it, which `ended` tells."""
        try:
            self.channel.send(message, fds)
        except OSError:
            logger.debug("worker process %d: a message was not taken", self.pid)

    def flush(self) -> None:
        """Send the items that were posted."""
        try:
            self.channel.flush()
        except OSError:
            logger.debug("worker process %d: items were not taken", self.pid)

    def post_entry(self, entry: Entry, arena: Arena) -> None:
        """Have items sent by `flush`, or before the next message.

        The shared memory that they are the first ones to use is sent at once.
        """
        for number in entry.segments:
            if number not in self._known:
                self._known.add(number)
                segment = arena.segment(number)
                message = {"kind": "segment", "number": number, "size": segment.size}
                self.send(message, [segment.fd])
        self.last_number = entry.last_number
        self.channel.post(entry.packed)

    def unmap(self, segments: Sequence[int]) -> None:
        """Say that shared memory is no more."""
        gone = self._known & set(segments)
        self._known -= gone
        if gone:
            self.send({"kind": "unmap", "numbers": sorted(gone)})

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        """Let go of one that has ended."""
        self._thread.join()
        self.channel.close()

    def describe_end(self) -> str:
        """How the process ended, in words."""
        code = self._process.returncode
        if self.hung:
            return f"it did not get on for {self._hang_s:g} s and was killed"
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return f"it was killed by {name}" + (
                ", which is what happens when memory runs out" if name == "SIGKILL" else ""
            )
        return f"it ended with status {code}" + (f": {self.why}" if self.why else "")

    def _run(self) -> None:
        """Receive until the end."""
        marker, since, cpu_s = -1, time.monotonic(), 0.0
        look = min(self._hang_s / 4, _LOOK_S)
        while True:
            if not select.select([self.channel], [], [], look)[0]:
                now, seen = time.monotonic(), self.board.beats
                if seen != marker or not self._busy(self):
                    marker, since, cpu_s = seen, now, _cpu_seconds(self.pid)
                limit = self._hang_s if self.ready else max(self._hang_s, _START_S)
                used_s = _cpu_seconds(self.pid) - cpu_s
                # One that computes, but is hardly ever let onto a processor, is slow and not hung.
                if now - since > limit and not _BLOCKED_S < used_s < limit:
                    self.hung = True
                    self.kill()
                continue
            try:
                message, _ = self.channel.receive()
            except (EOFError, OSError, ValueError):
                break
            if message["kind"] == "ready":
                self.ready = True
            elif message["kind"] == "unable":
                self.why = message["text"]
            else:
                try:
                    self._receive(self, message)
                except Exception:
                    logger.exception("a message of the worker could not be handled")
        # It may have closed its socket and live: a worker that can't be heard is of no use.
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
        self._ended(self)


def _cpu_seconds(pid: int) -> float:
    """Processor time that a process has used; 0 where that is not told."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _importable() -> dict[str, str]:
    """Where this package is, for a process that starts without the user's paths."""
    installed = {Path(p).resolve() for p in [*site.getsitepackages(), site.getusersitepackages()]}
    if _ROOT in installed:
        return {}
    others = os.environ.get("PYTHONPATH", "")
    return {"PYTHONPATH": f"{_ROOT}{os.pathsep}{others}" if others else str(_ROOT)}
