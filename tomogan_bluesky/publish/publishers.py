"""The places that derived runs are published to.

Enter: what a user gives as `publish` (a Tiled client, an address, a profile name, a callable, or a
list of these), later documents. Leave: the documents, to each of them. One that fails does not
keep the others from theirs.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeGuard

from tiled.client.base import BaseClient

from ..errors import ConfigurationError, PublishError
from .catalog import TiledPublisher, attempts, connect
from .documents import derived_uid, volume_path
from .explain import explain_request

logger = logging.getLogger(__name__)

Publish = Callable[[str, Mapping[str, Any]], Any]
Target: TypeAlias = BaseClient | str | Publish


class Publishers:
    """Where derived runs go.

    A client is made at the first use of an address or profile, and made anew after an error: a
    server that was down is used again once it is back.

    Raises
    ------
    ConfigurationError
        A target that is neither a Tiled client, nor a string, nor callable.
    """

    def __init__(self, targets: Target | Iterable[Target]) -> None:
        if isinstance(targets, BaseClient | str) or callable(targets):
            targets = [targets]
        self._targets = list(targets)
        self._clients: dict[str, BaseClient] = {}
        for target in self._targets:
            if not (isinstance(target, BaseClient | str) or callable(target)):
                raise ConfigurationError(
                    "publish: expected a Tiled client, an address, a profile name or a callable "
                    f"that takes (name, doc), got {type(target).__name__}"
                )

    def next_attempt(self, derivation: str, directory: Path | None) -> tuple[int, str | None]:
        """The number of the next attempt, and the uid of the final version where there is one.

        A number whose file is in `directory` is taken, whatever became of that attempt.

        Raises
        ------
        PublishError
            A catalog can't be reached.
        """
        known = []
        for target in self._targets:
            if not _is_callable(target):
                with self._forgotten_on_error(target):
                    known += attempts(self._connect(target), derivation)
        final = next((a.uid for a in known if a.exit_status == "success"), None)
        number = max((a.attempt for a in known), default=0) + 1
        while directory and volume_path(directory, derived_uid(derivation, number)).exists():
            number += 1
        return number, final

    def find_run(self, uid: str) -> Any:
        """The archived run of a uid, from the first catalog that has it; None where none has.

        Raises
        ------
        PublishError
            A catalog can't be reached.
        """
        for target in self._targets:
            if not _is_callable(target):
                with (
                    self._forgotten_on_error(target),
                    explain_request("Tiled to say if it has a run"),
                ):
                    client = self._connect(target)
                    if uid in client:
                        return client[uid]
        return None

    def broadcast(self) -> "Broadcast":
        """A fresh `Broadcast` for one derived run."""
        return Broadcast([partial(self._sink, target) for target in self._targets])

    def close(self) -> None:
        """Close the clients that were made here; those that were given are their owner's."""
        for name in list(self._clients):
            self._forget(name)

    def _sink(self, target: Target) -> Publish:
        if _is_callable(target):
            return target
        publisher = TiledPublisher(self._connect(target))

        def sink(name: str, doc: Mapping[str, Any]) -> None:
            with self._forgotten_on_error(target):
                publisher(name, doc)

        return sink

    def _connect(self, target: BaseClient | str) -> BaseClient:
        if not isinstance(target, str):
            return target
        if target not in self._clients:
            self._clients[target] = connect(target)
        return self._clients[target]

    @contextmanager
    def _forgotten_on_error(self, target: Target) -> Iterator[None]:
        try:
            yield
        except PublishError:
            if isinstance(target, str):
                self._forget(target)
            raise

    def _forget(self, name: str) -> None:
        client = self._clients.pop(name, None)
        if client is not None:
            client.context.close()


class Broadcast:
    """Sends the documents of one derived run to every target.

    A target that raises gets no more documents of this run; `check` tells.

    Parameters
    ----------
    openers : iterable of callables
        Each returns a callable(name, doc) for the run, or raises PublishError.
    """

    def __init__(self, openers: Iterable[Callable[[], Publish]]) -> None:
        self._errors: list[Exception] = []
        self._sinks: list[Publish] = []
        for opener in openers:
            try:
                self._sinks.append(opener())
            except PublishError as error:
                self._errors.append(error)

    @property
    def reached_any(self) -> bool:
        """Whether at least one target has taken every document so far."""
        return bool(self._sinks)

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        for sink in list(self._sinks):
            try:
                sink(name, doc)
            except Exception as error:
                logger.error("publishing a %r document failed: %s", name, error)
                self._errors.append(error)
                self._sinks.remove(sink)

    def check(self) -> None:
        """Raise the first error of any target.

        Raises
        ------
        PublishError
        """
        if self._errors:
            first = self._errors[0]
            if isinstance(first, PublishError):
                raise first
            raise PublishError(
                f"expected every publisher to take the derived run, got from one of them: "
                f"{type(first).__name__}: {first}"
            ) from first


def _is_callable(target: Target) -> TypeGuard[Publish]:
    return callable(target) and not isinstance(target, BaseClient)
