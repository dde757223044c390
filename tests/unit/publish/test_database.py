"""The database of a new catalog is the one that Tiled would make, from wherever it is made."""

import asyncio
import sqlite3
from contextlib import closing

import pytest

pytest.importorskip("tiled.catalog.core", reason="the server side of Tiled is not installed")

from tiled.commandline._catalog import init

from tomogan_bluesky.publish.database import make_database

# Of Tiled's own settings of alembic.
pytestmark = pytest.mark.filterwarnings("ignore:No path_separator found:DeprecationWarning")

_OF_A_MOMENT = ("time_created", "time_updated")


def content_of(path):
    """The schema and the rows of all tables, but for times."""
    with closing(sqlite3.connect(path)) as database:
        schema = sorted(database.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"))
        rows = {}
        for kind, table, *_ in schema:
            if kind == "table":
                found = database.execute(f'SELECT * FROM "{table}"')
                names = [column[0] for column in found.description]
                rows[table] = [
                    {n: v for n, v in zip(names, row, strict=True) if n not in _OF_A_MOMENT}
                    for row in found
                ]
    return schema, rows


@pytest.fixture
def expected(tmp_path):
    init(str(tmp_path / "tiled.db"), if_not_exists=False)
    return content_of(tmp_path / "tiled.db")


def test_it_is_as_tiled_makes_it(expected, tmp_path):
    make_database(tmp_path / "catalog.db")
    assert content_of(tmp_path / "catalog.db") == expected
    assert len(expected[1]["alembic_version"]) == 1


def test_half_of_one_that_somebody_left_is_made_anew_under_an_event_loop(expected, tmp_path):
    async def in_a_notebook():
        make_database(tmp_path / "catalog.db")

    (tmp_path / "catalog.db.new").write_text("the half of one")
    asyncio.run(in_a_notebook())
    assert content_of(tmp_path / "catalog.db") == expected
    assert not list(tmp_path.glob("*.new*"))
