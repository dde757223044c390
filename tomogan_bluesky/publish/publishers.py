"""The places that derived runs are published to.

Enter: what a user gives as `publish` (a Tiled client, an address, a profile name, a callable, or a
list of these), later documents. Leave: the documents, to each of them. One that fails does not
keep the others from theirs.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeGuard, runtime_checkable

from tiled.client.base import BaseClient

from ..config import PublishingConfig
from ..errors import ConfigurationError, InUseError, PublishError, ServerAwayError
from .catalog import Attempt, address_of, attempts, connect, knock
from .claims import Claim
from .courier import Courier, bring
from .documents import derived_uid, volume_path
from .explain import explain_request
from .leftovers import remove_files, remove_unsuccessful
from .outbox import Outbox
from .spool import Spool, SpooledRun, default_folder

logger = logging.getLogger(__name__)

Publish = Callable[[str, Mapping[str, Any]], Any]
Target: TypeAlias = BaseClient | str | Publish


@runtime_checkable
class Elsewhere(Protocol):
    """A target that is not reached from here; somebody else knows it, and its runs."""

    def __call__(self, name: str, doc: Mapping[str, Any], /) -> Any: ...

    def sink(self) -> Publish:
        """A callable for the documents of one run; it may have `waiting`, as an `Outbox` has."""

    def attempts(self, derivation: str) -> list[Attempt]:
        """The attempts that are known there."""

    def find_run(self, uid: str) -> Any:
        """An archived run that is there, or None."""


def as_targets(targets: Target | Iterable[Target]) -> list[Target]:
    """One target or several as a list.

    Raises
    ------
    ConfigurationError
        A target that is neither a Tiled client, nor a string, nor callable.
    """
    single = isinstance(targets, BaseClient | str) or not isinstance(targets, Iterable)
    targets = [targets] if single or callable(targets) else list(targets)
    for target in targets:
        if not (isinstance(target, BaseClient | str) or callable(target)):
            raise ConfigurationError(
                "publish: expected a Tiled client, an address, a profile name or a callable "
                f"that takes (name, doc), got {type(target).__name__}"
            )
    return targets


class Publishers:
    """Where derived runs go.

    A client is made at the first use of an address or profile, and made anew after an error. While
    a server is away, derived runs wait in the spool, and are brought to it once it is back.

    Parameters
    ----------
    targets : Tiled client, str, callable, or a list of these
    config : PublishingConfig, optional
        Says where runs wait. None: nowhere.

    Raises
    ------
    ConfigurationError
        A target that is neither a Tiled client, nor a string, nor callable.
    """

    def __init__(
        self, targets: Target | Iterable[Target], config: PublishingConfig | None = None
    ) -> None:
        self._targets = as_targets(targets)
        self._clients: dict[str, BaseClient] = {}
        spool = Spool(default_folder(), 0.0)
        if config is not None:
            spool = Spool(config.spool or default_folder(), config.spool_gib)
        self._spool = spool if config is not None and config.spool_gib > 0 else None
        self._courier = Courier(spool, self._fresh_client)
        self._claims: dict[str, tuple[Claim, Path | None]] = {}  # by derivation

    def next_attempt(self, derivation: str, directory: Path | None) -> tuple[int, str | None]:
        """The number of the next attempt, and the uid of the final version where there is one.

        A number whose file is in `directory` is taken, whatever became of that attempt. A final
        version may be waiting in the spool. A server that is away is not waited for: when it is
        back and has a final version already, what waits for it is dropped.

        Where there is no final version, the derivation is ours from now on until the stop document
        of the attempt.

        Raises
        ------
        InUseError
            Another process makes an attempt now.
        PublishError
            A catalog can't be asked, and there is no spool.
        """
        is_ours = self._claim(derivation, directory)
        known = self.attempts(derivation)
        final = next((a.uid for a in known if a.exit_status == "success"), None)
        if final is not None:
            self._release(derivation)
        elif not is_ours:
            raise InUseError(
                "expected to be the only one who makes this derived run, but another process "
                "makes it now; wait for that one, or replay the run when it has ended"
            )
        number = max((a.attempt for a in known), default=0) + 1
        while directory and volume_path(directory, derived_uid(derivation, number)).exists():
            number += 1
        return number, final

    def attempts(self, derivation: str) -> list[Attempt]:
        """The attempts that are known, in the catalogs and in the spool.

        Raises
        ------
        PublishError
            As in `next_attempt`.
        """
        known: list[Attempt] = []
        for target in self._targets:
            if isinstance(target, Elsewhere):
                known += target.attempts(derivation)
            elif not _is_callable(target):
                known += self._attempts(target, derivation)
        return known

    def _attempts(self, target: BaseClient | str, derivation: str) -> list[Attempt]:
        name = _name_of(target)
        if self._spool is None:
            with self._forgotten_on_error(target):
                return attempts(self._connect(target), derivation)
        waiting = self._waiting(name)
        own = [run for run in waiting if run.derivation == derivation]
        if not self._courier.is_away(name):
            try:
                with self._forgotten_on_error(target):
                    client = self._connect(target)
                    knock(client)
                    for run in own:
                        bring(client, run)
                    found = attempts(client, derivation)
                if waiting:
                    self._courier.bring(name)
                return found
            except ServerAwayError as error:
                self._courier.report_away(name, error)
        return [run.attempt for run in own]

    def _waiting(self, name: str) -> list[SpooledRun]:
        try:
            return [] if self._spool is None else self._spool.waiting(name)
        except PublishError as error:
            logger.warning("%s; nothing can wait there", error)
            return []

    def find_run(self, uid: str) -> Any:
        """The archived run of a uid, from the first catalog that has it; None where none has.

        Raises
        ------
        PublishError
            A catalog can't be reached.
        """
        for target in self._targets:
            if isinstance(target, Elsewhere):
                run = target.find_run(uid)
                if run is not None:
                    return run
            elif not _is_callable(target):
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
        return Broadcast([self._sink(target) for target in self._targets], self._ended)

    def close(self) -> None:
        """Close the clients that were made here; those that were given are their owner's.

        What waits in the spool stays there, for the next one who publishes to its server.
        """
        self._courier.close()
        for derivation in list(self._claims):
            self._release(derivation)
        for name in list(self._clients):
            self._forget(name)

    def _sink(self, target: Target) -> Publish:
        if isinstance(target, Elsewhere):
            return target.sink()
        if _is_callable(target):
            return target
        return Outbox(
            _name_of(target),
            partial(self._connect, target),
            partial(self._forget, target),
            self._spool,
            self._courier,
        )

    @contextmanager
    def _fresh_client(self, name: str) -> Iterator[BaseClient]:
        """A client for the courier's thread, which shares none that is made here."""
        for target in self._targets:
            if isinstance(target, BaseClient) and address_of(target) == name:
                yield target
                return
        client = connect(name)
        try:
            yield client
        finally:
            client.context.close()

    # One attempt at a time, and one final version ---------------------------------------------

    def _claim(self, derivation: str, directory: Path | None) -> bool:
        """Whether nobody else is at this derivation; it is ours then, until `_release`."""
        if derivation in self._claims:
            return True
        names = sorted(_name_of(t) for t in self._targets if not _is_callable(t))
        if directory is not None:
            path = directory / f".{derivation}.claim"
        elif names:
            targets = hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
            path = default_folder().parent / "claims" / f"{derivation}.{targets}"
        else:
            return True  # nothing that two could get at
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            claim = Claim.take(path)
        except OSError as error:
            logger.debug("%s: no claim can be made (%s)", path, error.strerror)
            return True  # who can't make a file can't make a volume there, either, and is told
        if claim is not None:
            self._claims[derivation] = (claim, directory)
        return claim is not None

    def _release(self, derivation: str) -> None:
        claim, _ = self._claims.pop(derivation, (None, None))
        if claim is not None:
            claim.release()

    def _ended(self, start_doc: Mapping[str, Any], stop_doc: Mapping[str, Any]) -> None:
        """An attempt has ended: let others go on; if it did not fail, remove those that did before.

        The best that can be made of a scan that ended early is "abort".
        """
        derivation, attempt = start_doc.get("derivation", ""), start_doc.get("attempt", 1)
        _, directory = self._claims.get(derivation, (None, None))
        try:
            if stop_doc["exit_status"] != "fail" and attempt > 1:
                self._remove_unsuccessful(derivation, attempt, directory)
        except PublishError as error:
            logger.warning("derived run %s is done, but: %s", start_doc["uid"], error)
        finally:
            self._release(derivation)

    def _remove_unsuccessful(self, derivation: str, attempt: int, directory: Path | None) -> None:
        for target in self._targets:
            if not _is_callable(target) and not self._courier.is_away(_name_of(target)):
                with self._forgotten_on_error(target):
                    remove_unsuccessful(self._connect(target), derivation, directory)
        if directory is not None:
            known = {a.uid for a in self.attempts(derivation)}
            remove_files(derivation, attempt - 1, directory, known)

    # Clients -----------------------------------------------------------------------------------

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
            self._forget(target)
            raise

    def _forget(self, target: Target) -> None:
        client = self._clients.pop(target, None) if isinstance(target, str) else None
        if client is not None:
            client.context.close()


class Broadcast:
    """Sends the documents of one derived run to every target.

    A target that raises gets no more documents of this run; `check` tells.

    Parameters
    ----------
    sinks : iterable of callable(name, doc)
    ended : callable(start_doc, stop_doc), optional
        Called after the stop document.
    """

    def __init__(
        self,
        sinks: Iterable[Publish],
        ended: Callable[[Mapping[str, Any], Mapping[str, Any]], None] | None = None,
    ) -> None:
        self._errors: list[Exception] = []
        self._sinks = list(sinks)
        self._ended = ended
        self._start_doc: Mapping[str, Any] = {}

    @property
    def waiting(self) -> list[str]:
        """Why the run waits in the spool, for each target that is away."""
        return [why for sink in self._sinks if (why := getattr(sink, "waiting", None))]

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
        if name == "start":
            self._start_doc = doc
        elif name == "stop" and self._ended is not None:
            self._ended(self._start_doc, doc)

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


def _name_of(target: BaseClient | str) -> str:
    return target if isinstance(target, str) else address_of(target)


def _is_callable(target: Target) -> TypeGuard[Publish]:
    return callable(target) and not isinstance(target, BaseClient)
