"""One catalog for all tests that need a Tiled server, served by a process of its own."""

import subprocess
import sys

import pytest

from tomogan_bluesky.publish.server import serve_catalog

# Serves until its input is closed.
_SERVE = """
import sys
from tomogan_bluesky.publish.server import serve_catalog
with serve_catalog(sys.argv[1]) as server:
    assert server.is_ours
    print(server.uri, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="session")
def catalog(tmp_path_factory):
    """A running catalog. Starting one takes seconds, so tests share it: expect others' runs."""
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
