"""The line on a terminal, and none in a file."""

import io
from types import SimpleNamespace

import pytest

from tomogan_bluesky.report import RunReport
from tomogan_bluesky.serving.status import StatusLine
from tomogan_bluesky.worker.state import WorkerState

SERVER = SimpleNamespace(
    sources=(
        SimpleNamespace(name="zmq", connected=False),
        SimpleNamespace(name="tiled", connected=1),
    ),
    open_runs=("a",),
    inbox=SimpleNamespace(n_items=7, n_bytes=2**20),
    worker_state=WorkerState(waiting_items=2, waiting_bytes=2**19, restarts=3),
)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_terminal_shows_what_is_going_on(is_terminal):
    stream = io.StringIO()
    stream.isatty = lambda: is_terminal
    line = StatusLine(stream)
    line.count(RunReport("a", "b", "success"))
    line.show(SERVER)
    written = stream.getvalue()
    line.show(SERVER)  # again, at once
    assert stream.getvalue() == written
    line.end()
    expected = "zmq (not connected), tiled; runs: 1 open, 1 success; "
    expected += "9 documents wait (1.5 MiB); worker restarted 3x"
    assert (expected in written) == is_terminal
    assert bool(stream.getvalue()) == is_terminal
