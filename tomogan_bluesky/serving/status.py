"""One line on a terminal that says what a server is doing.

Enter: the server, again and again, and its reports. Leaves: a line, where somebody can read it.
"""

import time
from collections import Counter
from typing import Any, TextIO

from tqdm import tqdm

from ..report import RunReport
from .server import Server

_EVERY_S = 0.2


class StatusLine:
    """Shows the state of a server on a terminal, and nothing in a file.

    Parameters
    ----------
    stream : file
    """

    def __init__(self, stream: TextIO) -> None:
        self._line: Any = tqdm(file=stream, bar_format="{desc}", disable=None, leave=False)
        self._shown = 0.0
        self._done: Counter[str] = Counter()

    def count(self, report: RunReport) -> None:
        """A scan was worked off."""
        self._done["there already" if report.already_done else report.exit_status] += 1

    def show(self, server: Server) -> None:
        """Write the line anew, unless that was done just now."""
        if self._line.disable or time.monotonic() - self._shown < _EVERY_S:
            return
        self._shown = time.monotonic()
        connections = ", ".join(
            source.name if source.connected else f"{source.name} (not connected)"
            for source in server.sources
        )
        done = ", ".join(f"{n} {status}" for status, n in self._done.items()) or "none so far"
        self._line.set_description_str(
            f"{connections}; runs: {len(server.open_runs)} open, {done}; {_waiting(server)}"
        )

    def end(self) -> None:
        """Take the line away."""
        self._line.close()


def _waiting(server: Server) -> str:
    worker = server.worker_state
    mib = (server.inbox.n_bytes + worker.waiting_bytes) / 2**20
    text = f"{server.inbox.n_items + worker.waiting_items} documents wait ({mib:.1f} MiB)"
    return text + (f"; worker restarted {worker.restarts}x" if worker.restarts else "")
