"""Fixtures for all tests: a catalog, shared data beside the checkout, a guard against leaks."""

import subprocess
import sys
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

# Serves until its input is closed.
_SERVE = """
import sys
from tomogan_bluesky.publish.server import serve_catalog
with serve_catalog(sys.argv[1]) as server:
    assert server.is_ours
    print(server.uri, flush=True)
    sys.stdin.read()
"""

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def shared_data():
    """Path of a file of real or reference data that is kept beside the checkout, or a skip."""

    def path_of(name: str) -> Path:
        path = SHARED_DATA / name
        if not path.exists():
            pytest.skip(f"{name} is kept beside the checkout, in ../shared/data, and is not there")
        return path

    return path_of


@pytest.fixture(autouse=True, scope="session")
def workers_that_do_not_give_way():
    """On a machine that is busy otherwise, tests would wait for minutes for a nice process."""
    from tomogan_bluesky.config import WorkerConfig

    WorkerConfig.model_fields["nice"].default = 0
    WorkerConfig.model_rebuild(force=True)


@pytest.fixture(autouse=True, scope="session")
def state_of_nobody(tmp_path_factory):
    """Let nothing of a test wait in the spool of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True)
def threads_as_before():
    """What a test sets is not the next one's: sums of other threads round otherwise."""
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def catalog(tmp_path_factory):
    """A running catalog. Starting one takes seconds, so tests share it: expect others' runs."""
    # Here, for tests of numerics run where there is no Tiled.
    from tomogan_bluesky.publish.server import serve_catalog

    folder = tmp_path_factory.mktemp("a catalog")  # mktemp keeps the space
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        uri = process.stdout.readline().strip()
        with serve_catalog(folder) as server:
            assert not server.is_ours
            assert server.uri == uri
            yield server
        process.stdin.close()
        assert process.wait() == 0


@pytest.fixture(scope="session")
def client(catalog):
    """A client of the shared catalog that may write."""
    return catalog.client()


def ours() -> Counter[str]:
    """How many threads of ours there are, by name, and how many worker processes."""
    found = Counter(t.name for t in threading.enumerate() if t.name.startswith("tomogan-"))
    for children in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # a thread or a process that has just ended
            for pid in children.read_text().split():
                if b"tomogan_bluesky.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found["worker process"] += 1
    return found


@pytest.fixture(autouse=True)
def nothing_survives():
    """Fail a test that leaves a thread or a process of ours behind."""
    before = ours()
    yield
    survivors = ours() - before
    assert not survivors, f"left behind: {dict(survivors)}; close() what started them"
