"""A catalog in a folder: an embedded Tiled server for machines that have none.

Enters: a folder. Leaves: the address of a server that keeps everything under it. Processes that
open the same folder share one server: the first one runs it, and the others find it.
"""

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
from tiled.client import from_uri
from tiled.client.base import BaseClient
from tiled.client.utils import handle_error

from ..errors import BackendUnavailableError, PublishError
from ..intake.uris import file_uri
from .explain import explain_connection, explain_request
from .routes import READABLE_PATH

# Seconds that another process, which has locked the folder, is given to start its server.
_START_WITHIN = 60.0
_DATABASE = "catalog.db"  # there as soon as a server has begun


class CatalogServer:
    """A running Tiled server of a catalog folder.

    Attributes
    ----------
    uri : str
        Its address, without the key.
    directory : Path
        The folder.
    volumes : Path
        Folder for the HDF5 files of derived runs; readable for the server.
    api_key : str
        The key for writing; kept from others in a file of the folder.
    is_ours : bool
        Whether this process runs it.
    """

    def __init__(self, uri: str, directory: Path, api_key: str, is_ours: bool) -> None:
        self.uri = uri
        self.directory = directory
        self.volumes = directory / "volumes"
        self.api_key = api_key
        self.is_ours = is_ours
        self._clients = ExitStack()

    def client(self) -> BaseClient:
        """A Tiled client that may write. It ends with the `serve_catalog` block."""
        with explain_connection(self.uri):
            # No proxy stands between us and a server of this machine.
            client = from_uri(self.uri, api_key=self.api_key, trust_env=False)
        self._clients.callback(client.context.close)
        return client

    def make_readable(self, folder: Path) -> None:
        """Let the server read the files of a folder, now and whenever it is started again.

        Raises
        ------
        PublishError
            There is no such folder.
        """
        with explain_request(f"{folder} to be a folder that the catalog can read from"):
            answer = httpx.post(
                self.uri + READABLE_PATH,
                json={"folder": str(folder.absolute())},
                headers={"Authorization": f"Apikey {self.api_key}"},
                trust_env=False,
            )
            handle_error(answer)

    def _close(self) -> None:
        self._clients.close()


@contextmanager
def serve_catalog(
    directory: Path | str,
    host: str = "127.0.0.1",
    port: int = 0,
    readable: Iterable[Path] = (),
    anonymous: bool = True,
    must_exist: bool = False,
) -> Iterator[CatalogServer]:
    """Serve the catalog in a folder, or find the process that serves it already.

    Parameters
    ----------
    directory : Path
        Made if need be. Everything is under it: databases, data, volumes, the key.
    host : str
        Address to listen at. With another than the loopback, whoever reaches it may read.
    port : int
        0: any that is free. Of no account where another process serves already.
    readable : iterable of Path
        Folders of raw data that the server may read from. They are remembered.
    anonymous : bool
        Whether one may read without a key.
    must_exist : bool
        For who only reads: a folder without a catalog is an error, and is left as it is.

    Yields
    ------
    CatalogServer

    Raises
    ------
    PublishError
        The folder cannot be made, or must exist and holds no catalog; the port is taken; or the
        process that holds the folder does not answer.
    BackendUnavailableError
        Tiled's server side is not installed.
    """
    directory = Path(directory).absolute()
    file_uri(directory)  # refuses a name that Tiled could not find again
    if must_exist and not (directory / _DATABASE).exists():
        raise PublishError(
            f"{directory}: expected the folder of a catalog, got none there; see that the name is "
            "right, or fill one with tomogan-bluesky ingest"
        )
    with ExitStack() as stack:
        try:
            for folder in (directory, directory / "data", directory / "volumes"):
                folder.mkdir(parents=True, exist_ok=True)
            is_ours = stack.enter_context(_claim(directory))
            if is_ours:
                _make_key(directory)
        except OSError as error:
            raise PublishError(
                f"{directory}: expected a folder for a catalog, got: {error.strerror}; name a "
                "folder that can be made and written"
            ) from error
        if is_ours:
            uri = stack.enter_context(_started(directory, host, port, anonymous))
        else:
            uri = _uri_of_other(directory)
        server = CatalogServer(uri, directory, _key_of(directory), is_ours)
        stack.callback(server._close)
        for folder in readable:
            server.make_readable(Path(folder))
        yield server


def array_address(uri: str, run_uid: str, quantity: str, stream: str = "primary") -> str:
    """Address of the web page that shows the slices of an array, for a browser."""
    base = uri.partition("/api")[0].rstrip("/")
    return f"{base}/ui/browse/{run_uid}/{stream}/{quantity}"


@contextmanager
def _started(directory: Path, host: str, port: int, anonymous: bool) -> Iterator[str]:
    try:
        from .server_app import make_app, read_folders, serving
    except ImportError as error:
        raise BackendUnavailableError(
            f"expected the server side of Tiled to be installed, got: {error}; install it with: "
            "pip install 'tiled[all]'"
        ) from error
    memory, address = directory / "readable.json", directory / "server.json"
    readable = [directory / "volumes", *read_folders(memory)]
    app = make_app(directory, _key_of(directory), readable, memory, anonymous)
    with serving(app, host, port) as uri:
        address.write_text(json.dumps({"uri": uri, "pid": os.getpid()}))
        try:
            yield uri
        finally:
            address.unlink(missing_ok=True)


@contextmanager
def _claim(directory: Path) -> Iterator[bool]:
    """Whether the folder is ours to serve. The lock goes with the process, however that ends."""
    with (directory / "server.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        (directory / "server.json").unlink(missing_ok=True)  # of a process that was killed
        yield True


def _uri_of_other(directory: Path) -> str:
    """Address of the server of the process that has locked the folder."""
    deadline = time.monotonic() + _START_WITHIN
    address = directory / "server.json"
    while time.monotonic() < deadline:
        try:
            uri: str = json.loads(address.read_text())["uri"]
            httpx.get(f"{uri}/healthz", timeout=5.0, trust_env=False).raise_for_status()
        except (FileNotFoundError, json.JSONDecodeError, httpx.HTTPError):
            time.sleep(0.1)  # it is starting
        else:
            return uri
    raise PublishError(
        f"{directory}: expected the process that serves this catalog to answer within "
        f"{_START_WITHIN:g} s, and it does not; end it, or wait until it has started"
    )


def _make_key(directory: Path) -> None:
    """Make the key of the catalog at the first use, in a file that only its owner reads."""
    path = directory / "api_key"
    if path.exists() and path.read_text():
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))


def _key_of(directory: Path) -> str:
    return (directory / "api_key").read_text()
