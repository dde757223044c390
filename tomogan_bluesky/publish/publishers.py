"""The places that derived runs are published to.

Enter: what a user gives as `publish` (a Tiled client, an address, a profile name, a callable, or a
list of these), later documents. Leave: the documents, to each of them. One that fails does not
keep the others from theirs.
"""

import hashlib
import logging
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakSet

from tiled.client.base import BaseClient

from ..config import PublishingConfig
from ..errors import InUseError, PublishError, ServerAwayError
from .broadcast import Broadcast
from .catalog import Attempt, attempts, is_complete
from .claims import Claim
from .clients import Clients
from .connection import knock
from .courier import Courier, bring
from .explain import explain_request
from .identity import derived_uid, volume_path
from .leftovers import remove_files, remove_unsuccessful
from .outbox import Outbox
from .postman import Postman
from .spool import Spool, SpooledRun, default_folder
from .targets import Elsewhere, Publish, Target, as_targets, is_callable, name_of

logger = logging.getLogger(__name__)


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
        if not all(is_callable(target) for target in self._targets):
            # Here, where nothing waits for it: the first derived run comes in the middle of a scan.
            from . import tiled_publisher  # noqa: F401
        self._clients = Clients(self._targets)
        spool = Spool(default_folder(), 0.0)
        if config is not None:
            spool = Spool(config.spool or default_folder(), config.spool_gib)
        self._spool = spool if config is not None and config.spool_gib > 0 else None
        self._postmen: WeakSet[Postman] = WeakSet()
        self._courier = Courier(spool, self._clients.fresh)
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
            elif not is_callable(target):
                known += self._attempts(target, derivation)
        return known

    def _attempts(self, target: BaseClient | str, derivation: str) -> list[Attempt]:
        name = name_of(target)
        if self._spool is None:
            with self._clients.forgotten_on_error(target):
                return attempts(self._clients.of(target), derivation)
        waiting = self._waiting(name)
        own = [run for run in waiting if run.derivation == derivation]
        if not self._courier.is_away(name):
            try:
                with self._clients.forgotten_on_error(target):
                    client = self._clients.of(target)
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
            elif not is_callable(target):
                with (
                    self._clients.forgotten_on_error(target),
                    explain_request("Tiled to say if it has a run"),
                ):
                    client = self._clients.of(target)
                    if uid in client:
                        return client[uid]
        return None

    def broadcast(self) -> Broadcast:
        """A fresh `Broadcast` for one derived run."""
        return Broadcast([self._sink(target) for target in self._targets], self._ended)

    def close(self) -> None:
        """Close the clients that were made here; those that were given are their owner's.

        What waits in the spool stays there, for the next one who publishes to its server.
        """
        for postman in self._postmen:
            postman.join()
        self._courier.close()
        for derivation in list(self._claims):
            self._release(derivation)
        self._clients.close()

    def _sink(self, target: Target) -> Publish:
        if isinstance(target, Elsewhere):
            return target.sink()
        if is_callable(target):
            return target
        outbox = Outbox(
            name_of(target),
            partial(self._clients.of, target),
            partial(self._clients.forget, target),
            self._spool,
            self._courier,
        )
        postman = Postman(outbox)
        self._postmen.add(postman)
        return postman

    # One attempt at a time, and one final version ---------------------------------------------

    def _claim(self, derivation: str, directory: Path | None) -> bool:
        """Whether nobody else is at this derivation; it is ours then, until `_release`."""
        if derivation in self._claims:
            return True
        names = sorted(name_of(t) for t in self._targets if not is_callable(t))
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
        """An attempt has ended: let others go on; if it is complete, remove those that are not."""
        derivation, attempt = start_doc.get("derivation", ""), start_doc.get("attempt", 1)
        _, directory = self._claims.get(derivation, (None, None))
        try:
            if attempt > 1 and is_complete(stop_doc):
                self._remove_unsuccessful(derivation, attempt, directory)
        except PublishError as error:
            logger.warning("derived run %s is done, but: %s", start_doc["uid"], error)
        finally:
            self._release(derivation)

    def _remove_unsuccessful(self, derivation: str, attempt: int, directory: Path | None) -> None:
        for target in self._targets:
            if not is_callable(target) and not self._courier.is_away(name_of(target)):
                with self._clients.forgotten_on_error(target):
                    remove_unsuccessful(self._clients.of(target), derivation, directory)
        if directory is not None:
            # We hold the claim: one before ours that has no end, here or in the spool, is dead.
            complete = {a.uid for a in self.attempts(derivation) if a.is_complete}
            remove_files(derivation, attempt - 1, directory, complete)
