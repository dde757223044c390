"""Brings derived runs that wait to their servers, once these are back.

Enters: word that a server is away, or that something waits for it. Leave: the runs, from the spool
to the server, from a thread that is there only while something is to be done.
"""

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal

from tiled.client.base import BaseClient

from ..errors import PublishError, ServerAwayError
from ..intake.uris import path_of
from .catalog import final_version
from .connection import knock
from .explain import explain_request
from .leftovers import remove_unsuccessful
from .merging import merged
from .removal import remove_node
from .spool import Spool, SpooledRun
from .volume_file import owner_of

if TYPE_CHECKING:  # seconds of imports, which who publishes to callables alone is spared
    from .tiled_publisher import TiledPublisher

logger = logging.getLogger(__name__)

Outcome = Literal["published", "superseded", "cut off", "in use"]

# Seconds between two looks at a server that is away. One that is back is used within 5.
LOOK_EVERY = 2.0


class Courier:
    """Watches servers that are away, and empties the spool when they are back.

    Parameters
    ----------
    spool : Spool
    client_of : callable
        Context manager that gives a client of a target, made for this use.
    look_every : float
        Seconds.
    """

    def __init__(
        self,
        spool: Spool,
        client_of: Callable[[str], AbstractContextManager[BaseClient]],
        look_every: float | None = None,
    ) -> None:
        self._spool = spool
        self._client_of = client_of
        self._look_every = LOOK_EVERY if look_every is None else look_every
        self._away: dict[str, str] = {}
        self._todo: set[str] = set()
        self._refused: set[str] = set()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def is_away(self, target: str) -> bool:
        """Whether a server was away when it was last asked."""
        return target in self._away

    def why_away(self, target: str) -> str:
        """What was wrong with a server that is away."""
        return self._away.get(target, "")

    def report_away(self, target: str, error: Exception) -> None:
        """Somebody could not reach a server: watch it from now on."""
        if target not in self._away:
            logger.warning("%s; derived runs wait in %s", error, self._spool.folder)
        self._away[target] = str(error)
        self.bring(target)

    def bring(self, target: str) -> None:
        """Bring what waits for a target, as soon as it can be brought."""
        with self._lock:
            if self._closing.is_set():
                return
            self._todo.add(target)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="tomogan-courier", daemon=True
                )
                self._thread.start()

    def close(self) -> None:
        """End the thread; what waits is brought by the next one who publishes there."""
        with self._lock:
            self._closing.set()
            thread = self._thread
        if thread is not None:
            thread.join()

    # On the courier's thread -------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing.is_set():
            for target in sorted(self._todo):
                self._visit(target)
            with self._lock:
                if not self._todo:
                    self._thread = None
                    return
            self._closing.wait(self._look_every)

    def _visit(self, target: str) -> None:
        self._todo.discard(target)  # first: whoever comes meanwhile is to be served, too
        try:
            with self._client_of(target) as client:
                knock(client)
                if self._away.pop(target, None) is not None:
                    logger.warning("%s: the server is back", target)
                for run in self._spool.waiting(target):
                    if self._closing.is_set():
                        return
                    if run.uid not in self._refused:
                        self._bring(client, run)
        except ServerAwayError as error:
            self._away[target] = str(error)
            self._todo.add(target)
        except PublishError as error:
            logger.error("%s; what waits for it stays in %s", error, self._spool.folder)

    def _bring(self, client: BaseClient, run: SpooledRun) -> None:
        try:
            bring(client, run)
        except ServerAwayError:
            raise
        except PublishError as error:
            logger.error("%s; the run stays in %s", error, self._spool.folder)
            self._refused.add(run.uid)


def bring(client: BaseClient, run: SpooledRun) -> Outcome:
    """Bring one run from the spool to a catalog, if it is in nobody's hands.

    It leaves the spool when it is there, or when another attempt is the final version: then its
    file goes, too. A run without a stop document was cut off by the end of its process, and can't
    be completed: its raw run is to be replayed.

    Raises
    ------
    PublishError
        The catalog does not take it, now (`ServerAwayError`) or at all; it stays in the spool.
    """
    if not run.claim():
        return "in use"
    about = run.about or {}
    try:
        if about["exit_status"] is None:
            logger.warning(
                "derived run %s was cut off; replay its raw run %s", run.uid, about["raw_uid"]
            )
            run.discard()
            return "cut off"
        final = final_version(client, about["derivation"])
        if final is None:
            send_again(client, run)
            if about["exit_status"] == "success":
                remove_unsuccessful(client, about["derivation"], None)
        elif final != run.uid:
            _remove_files(run)
        run.discard()
    except PublishError as error:
        run.explain(str(error))
        raise
    finally:
        run.close()
    logger.info("derived run %s: brought to %s", run.uid, about["target"])
    return "published" if final in (None, run.uid) else "superseded"


def send_again(client: BaseClient, run: SpooledRun) -> "TiledPublisher":
    """Send all documents of a run; what the catalog has of it is removed first.

    Tiled cannot be told to go on where it was: rows that it took, and whose answer was lost, would
    be there twice.

    Returns
    -------
    TiledPublisher
        Which takes what is still to come, where the run is not at its end.

    Raises
    ------
    PublishError
    """
    from .tiled_publisher import TiledPublisher

    with explain_request("Tiled to say which runs it has"):
        there = run.uid in client
    if there:
        remove_node(client, run.uid)
    publish = TiledPublisher(client)
    for name, doc in merged(run.documents()):
        publish(name, doc)
    return publish


def _remove_files(run: SpooledRun) -> None:
    """Remove the slices of a run whose place another attempt has taken."""
    for name, doc in run.documents():
        path = path_of(doc["uri"]) if name == "stream_resource" else None
        if path is not None and owner_of(path) == run.uid:
            path.unlink()
            logger.info("derived run %s: superseded, %s is removed", run.uid, path)
