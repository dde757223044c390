"""Clients of Tiled servers, made at the first use and made anew after an error.

Enter: targets. Leave: clients. Those that were made here are closed here; those that were given are
their owner's.
"""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from tiled.client.base import BaseClient

from ..errors import PublishError
from .connection import address_of, connect
from .targets import Target


class Clients:
    """The clients of some targets; any thread may ask.

    Parameters
    ----------
    targets : iterable of Target
    """

    def __init__(self, targets: Iterable[Target]) -> None:
        self._given = {address_of(t): t for t in targets if isinstance(t, BaseClient)}
        self._made: dict[str, BaseClient] = {}
        # Closed at the end, for another thread may be in the middle of a request.
        self._forgotten: list[BaseClient] = []
        self._lock = threading.Lock()

    def of(self, target: BaseClient | str) -> BaseClient:
        """A client of a target.

        Raises
        ------
        PublishError
            It can't be reached.
        """
        if not isinstance(target, str):
            return target
        with self._lock:
            if target not in self._made:
                self._made[target] = connect(target)
            return self._made[target]

    def forget(self, target: Target) -> None:
        """Make another client the next time."""
        if isinstance(target, str):
            with self._lock:
                if (client := self._made.pop(target, None)) is not None:
                    self._forgotten.append(client)

    @contextmanager
    def forgotten_on_error(self, target: Target) -> Iterator[None]:
        """Where a request fails, the client is not used again."""
        try:
            yield
        except PublishError:
            self.forget(target)
            raise

    @contextmanager
    def fresh(self, name: str) -> Iterator[BaseClient]:
        """A client that is made for this use, unless it was given."""
        if name in self._given:
            yield self._given[name]
            return
        client = connect(name)
        try:
            yield client
        finally:
            client.context.close()

    def close(self) -> None:
        """Close the clients that were made here."""
        with self._lock:
            clients = [*self._made.values(), *self._forgotten]
            self._made.clear()
            self._forgotten.clear()
        for client in clients:
            client.context.close()
