"""The way of one derived run to one Tiled server.

Enter: its documents. Leave: the same to the server, as long as that takes them; to the spool,
where it does not; and back to the server as soon as it is there again.
"""

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tiled.client.base import BaseClient

from ..errors import PublishError, ServerAwayError
from .catalog import final_version
from .courier import Courier, send_again
from .spool import Spool, SpooledRun

if TYPE_CHECKING:  # as in courier
    from .tiled_publisher import TiledPublisher

logger = logging.getLogger(__name__)


class Outbox:
    """Takes the documents of one derived run.

    Each document goes into the spool before it goes to the server: when that dies in mid-run,
    nobody can tell what it has taken, and it gets the whole run again. A run that has arrived
    leaves the spool.

    Parameters
    ----------
    target : str
        Name of the server.
    connect, forget : callable
        Give a client of the server; let go of it after an error.
    spool : Spool or None
        None: a server that is away is an error.
    courier : Courier

    Attributes
    ----------
    waiting : str or None
        Why the run waits in the spool; None where the server has it.
    """

    def __init__(
        self,
        target: str,
        connect: Callable[[], BaseClient],
        forget: Callable[[], None],
        spool: Spool | None,
        courier: Courier,
    ) -> None:
        self.waiting: str | None = None
        self._target = target
        self._connect = connect
        self._forget = forget
        self._spool = spool
        self._courier = courier
        self._kept: SpooledRun | None = None
        self._publish: TiledPublisher | None = None

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document.

        Raises
        ------
        PublishError
            The server refuses it; the server is away and the spool does not take it.
        """
        self._keep(name, doc)
        try:
            self._send(name, doc)
        except ServerAwayError as error:
            self._wait(error)
        except PublishError:
            if self._kept is not None:
                self._kept.discard()
            raise
        if name == "stop" and self._kept is not None:
            if self.waiting is None:
                self._kept.discard()
            else:
                self._kept.close()
                self._courier.bring(self._target)

    def _keep(self, name: str, doc: Mapping[str, Any]) -> None:
        try:
            if self._spool is not None and name == "start":
                self._kept = self._spool.open(self._target, doc)
            if self._kept is not None:
                self._kept.append(name, doc)
        except PublishError as error:
            if self._kept is not None:
                self._kept.discard()
                self._kept = None
            if self.waiting is not None:
                raise
            logger.warning("%s; a run on its way is lost if its server goes away now", error)

    def _send(self, name: str, doc: Mapping[str, Any]) -> None:
        away = self._kept is not None and self._courier.is_away(self._target)
        if self._publish is not None:
            self._publish(name, doc)
        elif away:
            self._explain(self._courier.why_away(self._target))
        elif name == "start":
            from .tiled_publisher import TiledPublisher

            self._publish = TiledPublisher(self._connect())
            self._publish(name, doc)
        elif self._kept is not None:
            self._catch_up(self._connect(), self._kept)
        if name == "stop" and self._publish is not None:
            self._check_once(doc["run_start"], self._publish)

    def _catch_up(self, client: BaseClient, kept: SpooledRun) -> None:
        """Go on with a server that is back, unless it has a final version by now."""
        if final_version(client, kept.derivation) is None:
            self._publish = send_again(client, kept)
            self.waiting = None

    def _check_once(self, uid: str, publish: "TiledPublisher") -> None:
        """Send a run again, once, where Tiled may have taken rows of it twice."""
        if self._kept is not None and publish.may_hold_rows_twice:
            logger.info("derived run %s: sent again, for the connection broke in between", uid)
            send_again(self._connect(), self._kept)

    def _wait(self, error: ServerAwayError) -> None:
        self._publish = None
        self._forget()
        if self._kept is None:
            raise error
        self._courier.report_away(self._target, error)
        self._explain(str(error))

    def _explain(self, why: str) -> None:
        if self.waiting is None and self._kept is not None:
            self.waiting = why
            self._kept.explain(why)
