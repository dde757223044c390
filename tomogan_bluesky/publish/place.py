"""A catalog by the name that people give it.

Enters: a folder, an address or a Tiled profile. Leaves: a client, as long as it is wanted.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tiled.profiles import load_profiles

from .connection import connect
from .server import serve_catalog


def is_folder(place: str) -> bool:
    """Whether a name is that of a folder: it is no address, and no Tiled profile is called so."""
    if place.startswith(("http://", "https://")):
        return False
    return Path(place).is_dir() or place not in load_profiles()


@contextmanager
def opened(place: str, must_exist: bool = True) -> Iterator[tuple[Any, Path | None]]:
    """A client of a catalog, and the folder for slices that it can read, if that is known.

    Parameters
    ----------
    place : str
        The folder of a catalog, or the address or profile of a Tiled server, whose key is in
        ``TILED_API_KEY``.
    must_exist : bool
        Whether a folder without a catalog is an error; else a catalog is made in it.

    Raises
    ------
    PublishError
        There is no such catalog, it does not answer, or it does not let us in.
    """
    if is_folder(place):
        with serve_catalog(place, must_exist=must_exist) as server:
            yield server.client(), server.volumes
        return
    client = connect(place)
    try:
        yield client, None
    finally:
        client.context.close()
