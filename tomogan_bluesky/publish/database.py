"""The database of a new catalog.

Enters: the path of a file that is not there. Leaves: an SQLite database with Tiled's tables in it.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from tiled.catalog.alembic_constants import ALEMBIC_DIR
from tiled.catalog.core import REQUIRED_REVISION, initialize_database


def make_database(path: Path) -> None:
    """Make the database of a catalog, as ``tiled catalog init`` does.

    Tiled would start a process for it, which takes longer than all else at the start of a server.
    It is made under another name: whoever is killed meanwhile leaves no half of one.

    Parameters
    ----------
    path : Path
        Absolute; its folder exists.
    """
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.unlink(missing_ok=True)
    # A thread of its own, for there may be an event loop in this one: a notebook has one.
    with ThreadPoolExecutor(1, thread_name_prefix="tomogan-database") as thread:
        thread.submit(asyncio.run, _fill(unfinished)).result()
    unfinished.rename(path)


async def _fill(path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
    try:
        await initialize_database(engine)
        async with engine.begin() as connection:
            await connection.run_sync(_stamp)
    finally:
        await engine.dispose()


def _stamp(connection: Connection) -> None:
    """Say which version of Tiled's tables these are."""
    MigrationContext.configure(connection).stamp(ScriptDirectory(ALEMBIC_DIR), REQUIRED_REVISION)
