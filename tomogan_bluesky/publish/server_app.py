"""The application and the thread of the embedded Tiled server.

Enter: a folder and a key. Leaves: a Tiled server with all that Bluesky needs, on a socket of this
machine. Importing this needs Tiled's server side; `server` is the way in.
"""

import json
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import APIRouter, HTTPException, Request, Security
from tiled.config import Config
from tiled.server.app import build_app_from_config
from tiled.server.authentication import check_scopes
from tiled.server.settings import get_settings
from tiled.storage import FileStorage

from ..errors import PublishError
from .database import make_database
from .routes import READABLE_PATH

# Tiled prints its version at each start, through a handler of its own.
logging.getLogger("tiled.server.app").setLevel(logging.WARNING)

# Seconds that a request waits for another to be through with the database of the catalog.
_LOCKED_WITHIN = 60.0

# Seconds for open requests to end when the server stops.
_GRACE = 5


def make_app(
    directory: Path, api_key: str, readable: list[Path], memory: Path, anonymous: bool
) -> Any:
    """A Tiled application that keeps everything under `directory`.

    Parameters
    ----------
    directory : Path
        Absolute. Holds the databases and the data that travel inside documents.
    api_key : str
        The one key, which may do everything.
    readable : list of Path
        Further folders whose files may be registered and read.
    memory : Path
        JSON file that remembers folders made readable while the server runs.
    anonymous : bool
        Let everybody who reaches the server read.
    """
    database = directory / "catalog.db"
    if not database.exists():
        make_database(database)
    config = {
        "authentication": {"allow_anonymous_access": anonymous, "single_user_api_key": api_key},
        "trees": [
            {
                "path": "/",
                "tree": "catalog",
                "args": {
                    "uri": f"sqlite:///{database}?timeout={_LOCKED_WITHIN:g}",
                    # SQLite for the tables, too: DuckDB lets no other process even look.
                    "writable_storage": [
                        str(directory / "data"),
                        f"sqlite:///{directory / 'tables.db'}",
                    ],
                    "readable_storage": [str(folder) for folder in readable],
                    "specs": [{"name": "CatalogOfBlueskyRuns", "version": "3.0"}],
                },
            }
        ],
        # Without this, run.documents() is answered by 406.
        "media_types": {
            "BlueskyRun": {
                "application/json-seq": "bluesky_tiled_plugins.exporters:json_seq_exporter"
            }
        },
        "routers": ["bluesky_tiled_plugins.routers.validator:router"],
        "streaming_cache": {"uri": "memory"},
    }
    parsed = Config.model_validate(config)
    # Tiled's connections to the tables fail at once, with "database is locked", where another has
    # them: a single one, for which requests wait, finds no lock. Set here, for what is parsed takes
    # no overflow for the usual one.
    (tree,) = parsed.trees
    tree.args |= {"storage_pool_size": 1, "storage_max_overflow": 0}
    app = build_app_from_config(parsed)
    # Tiled's applications of one process share one object of settings, and with it the last one's
    # key, unless each takes its settings from a fresh one.
    get_settings.cache_clear()
    app.dependency_overrides[get_settings]()
    app.include_router(_readable_router(memory))
    return app


def _readable_router(memory: Path) -> APIRouter:
    router = APIRouter()

    may_write = Security(check_scopes, scopes=["write:data", "write:metadata"])

    @router.post(READABLE_PATH, dependencies=[may_write])
    async def make_readable(request: Request) -> None:
        folder = Path((await request.json())["folder"])
        if not (folder.is_absolute() and folder.is_dir()):
            raise HTTPException(400, f"expected the absolute path of a folder, got {folder}")
        storage = FileStorage(str(folder))
        request.app.state.root_tree.context.readable_storage[storage.uri] = storage
        known = read_folders(memory)
        if folder not in known:
            memory.write_text(json.dumps([str(path) for path in [*known, folder]], indent=1))

    return router


def read_folders(memory: Path) -> list[Path]:
    """The folders that a catalog remembers as readable."""
    return [Path(path) for path in json.loads(memory.read_text())] if memory.exists() else []


class _Server(uvicorn.Server):
    """Tells when it accepts connections, instead of being asked again and again."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.settled = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.settled.set()


@contextmanager
def serving(app: Any, host: str, port: int) -> Iterator[str]:
    """Serve an application from a thread of its own.

    Yields
    ------
    str
        The address, ``http://host:port``.

    Raises
    ------
    PublishError
        The port is taken, or the application does not start.
    """
    # Bound here, because uvicorn ends the process where a port is taken.
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise PublishError(
            f"expected to serve at {host}:{port}, got: {error.strerror}; name another port, or 0 "
            "for any that is free"
        ) from error
    server = _Server(
        uvicorn.Config(
            app,
            loop="asyncio",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=_GRACE,
        )
    )

    def run() -> None:
        try:
            server.run(sockets=[listening])
        finally:
            server.settled.set()

    # A daemon: nobody who forgets to close it is kept from leaving.
    thread = threading.Thread(target=run, name="tomogan-catalog", daemon=True)
    thread.start()
    try:
        server.settled.wait()
        if not server.started:
            raise PublishError("expected the Tiled server to start, and it did not; see its log")
        name = f"[{host}]" if ":" in host else host
        yield f"http://{name}:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
