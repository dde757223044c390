"""Documents from NATS JetStream, as the package bluesky-nats publishes them.

Enter: the messages of a stream, one a document, whose subject ends in the document's name. Leave:
documents, into the inbox, run by run.

The start documents are a queue of work that any number of servers share: whoever is given one
reads the documents of its run from the stream, and acknowledges it when the run is worked off. A
server that is gone does not, and the run is given to another, which reads it from its start.
"""

import asyncio
import logging
import threading
from pathlib import Path
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig
from nats.js.errors import NotFoundError

from ..errors import ConfigurationError
from ..intake.routing import Routing
from .inbox import Document, Inbox, keep_running
from .messages import MessageError, checked, unpack

logger = logging.getLogger(__name__)

# A server that has said nothing of a run for this long is gone, and the run is another's.
_GONE_S = 6.0
_HEARTBEAT_S = 1.5

# A run that so many servers were given and none has finished is left alone.
_TRIES = 10

_RECONNECT_S = 0.5

# Where the next document of a run is not there yet, it is asked for again.
_POLL_S, _POLL_MAX_S = 0.05, 0.5


class NatsSource:
    """Takes part in the work on a stream's runs.

    Parameters
    ----------
    url : str
        Of the server: ``nats://host:4222`` or ``tls://…``.
    subject : str
        What bluesky-nats publishes to; a dot and the document's name follow it.
    group : str
        Servers of one group share the runs; each group is given all of them.
    credentials : Path, optional
        A NATS credentials file.
    """

    name = "nats"

    def __init__(
        self, url: str, subject: str, group: str = "tomogan", credentials: Path | None = None
    ) -> None:
        if "@" in url:
            raise ConfigurationError(
                f"{url.rpartition('@')[2]}: expected an address without a password, which ends up "
                "in logs; give a credentials file: --nats-credentials"
            )
        self._url, self._subject, self._group = url, subject, group
        self._credentials = None if credentials is None else str(credentials)
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._held: dict[str, _Held] = {}
        self._is_known_down = False
        self.connected = False

    def start(self, inbox: Inbox) -> None:
        self._thread = keep_running(
            lambda: asyncio.run(self._take_part(inbox)), self._ending, self.name
        )

    def finished(self, raw_uid: str, done: bool) -> None:
        if (held := self._held.get(raw_uid)) is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(held.settle, done)

    def close(self) -> None:
        self._ending.set()
        if self._loop is not None and self._stop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)
        if self._thread is not None:
            self._thread.join()

    # On the thread of the source ---------------------------------------------------------------

    async def _take_part(self, inbox: Inbox) -> None:
        """As long as the client lives; it reconnects by itself once it was connected."""
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        if self._ending.is_set():
            return
        client = Client()
        try:
            await self._connect(client)
            stream = client.jetstream()
            name = await self._name_of(stream)
            starts = await stream.pull_subscribe(
                f"{self._subject}.start",
                durable=self._group,
                stream=name,
                config=ConsumerConfig(ack_wait=_GONE_S, max_deliver=_TRIES),
            )
            tasks: set[asyncio.Task[None]] = set()
            while not self._stop.is_set():
                # One at a time is worked on; those that are still acquired do not count.
                if any(held.ended for held in self._held.values()):
                    await self._wait(_POLL_S)
                    continue
                try:
                    (message,) = await starts.fetch(1, timeout=1.0)
                except (TimeoutError, NatsError):
                    continue
                task = asyncio.create_task(self._run(stream, name, message, inbox))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            await asyncio.gather(*tasks)
        except ConfigurationError as error:
            await self._complain(str(error))
        except (NatsError, OSError) as error:
            await self._complain(
                f"{self._url}: expected a NATS server with JetStream, got: {error}"
            )
        finally:
            self.connected = False
            if not client.is_closed:
                await client.close()

    async def _complain(self, text: str) -> None:
        """Say it once, then wait before the next attempt."""
        logger.log(logging.DEBUG if self._is_known_down else logging.WARNING, "%s", text)
        self._is_known_down = True
        await self._wait(1.0)

    async def _connect(self, client: Client) -> None:
        async def lost() -> None:
            self.connected = False
            if not self._ending.is_set():
                logger.warning("%s: the connection is lost", self._url)

        async def again() -> None:
            self.connected = True
            logger.info("%s: connected", self._url)

        async def failed(error: Exception) -> None:
            logger.debug("%s: %s", self._url, error)

        await client.connect(
            self._url,
            name="tomogan_bluesky",
            user_credentials=self._credentials,
            connect_timeout=2,
            reconnect_time_wait=_RECONNECT_S,  # type: ignore[arg-type]  # a float will do
            max_reconnect_attempts=1,  # this first time: who waits here can't be told to end
            ping_interval=2,  # a peer that is gone without a word is noticed
            max_outstanding_pings=2,
            disconnected_cb=lost,
            reconnected_cb=again,
            error_cb=failed,
        )
        client.options["max_reconnect_attempts"] = -1
        await again()
        self._is_known_down = False

    async def _name_of(self, stream: JetStreamContext) -> str:
        try:
            return await stream.find_stream_name_by_subject(f"{self._subject}.start")
        except NotFoundError as error:
            raise ConfigurationError(
                f"{self._url}: expected a stream that keeps the subject {self._subject}.>, got "
                f"none; make one: nats stream add bluesky --subjects '{self._subject}.>' "
                "--storage file --defaults"
            ) from error

    async def _run(self, stream: JetStreamContext, name: str, message: Msg, inbox: Inbox) -> None:
        """One run, from its start document until it is worked off."""
        try:
            start = checked("start", unpack(message.data))
        except MessageError as error:
            logger.error("%s: a message is refused: %s", self._url, error)
            await _tell(message.term)
            return
        uid = start["uid"]
        if uid in self._held:  # given again, because the server did not hear that it is here
            self._held[uid].message = message
            return
        held = self._held[uid] = _Held(message)
        assert self._stop is not None
        reading = asyncio.create_task(
            self._read(stream, name, start, message.metadata.sequence.stream, held, inbox)
        )
        stopping = asyncio.create_task(self._stop.wait())
        settling = asyncio.create_task(held.settled.wait())
        try:
            while not (settling.done() or stopping.done()):
                await _tell(held.message.in_progress)
                await asyncio.wait(
                    (settling, stopping),
                    timeout=_HEARTBEAT_S,
                    return_when=asyncio.FIRST_COMPLETED,
                )
        finally:
            for task in (reading, stopping, settling):
                task.cancel()
            del self._held[uid]
            if held.done:
                await _tell(held.message.ack)
            elif self._stop.is_set():
                await _tell(held.message.nak)  # to another server, at once
            else:
                await _tell(lambda: held.message.nak(delay=_GONE_S))

    async def _read(
        self,
        stream: JetStreamContext,
        name: str,
        start: dict[str, Any],
        number: int,
        held: "_Held",
        inbox: Inbox,
    ) -> None:
        """Hand on the documents of a run as they come into the stream, from message `number` on."""
        uid, routing, pause = start["uid"], Routing(), _POLL_S
        await self._put(inbox, "start", start, 0)
        while not held.ended:
            try:
                message = await stream.get_msg(
                    name, seq=number + 1, subject=f"{self._subject}.*", next=True
                )
            except (NotFoundError, TimeoutError, NatsError, OSError):
                await asyncio.sleep(pause)
                pause = min(2 * pause, _POLL_MAX_S)
                continue
            number, pause = message.seq or number + 1, _POLL_S
            kind, content = (message.subject or "").rpartition(".")[2], message.data or b""
            try:
                doc = checked(kind, unpack(content))
            except MessageError as error:
                logger.error("%s: message %d is refused: %s", self._url, number, error)
                continue
            if kind != "start" and routing.run_of(kind, doc) == uid:
                held.ended = kind == "stop"
                await self._put(inbox, kind, doc, len(content))

    async def _put(self, inbox: Inbox, name: str, doc: dict[str, Any], n_bytes: int) -> None:
        item = Document(self, name, doc)
        if not inbox.put(item, n_bytes, wait=False):
            await asyncio.to_thread(inbox.put, item, n_bytes, wait=True)

    async def _wait(self, seconds: float) -> None:
        assert self._stop is not None
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return


class _Held:
    """A run that this server was given."""

    def __init__(self, message: Msg) -> None:
        self.message = message
        self.ended = False  # its stop document was handed on
        self.done = False
        self.settled = asyncio.Event()

    def settle(self, done: bool) -> None:
        self.done = done
        self.settled.set()


async def _tell(method: Any) -> None:
    """Tell the server something about a message; it asks again where it did not hear."""
    try:
        await method()
    except (NatsError, OSError) as error:
        logger.debug("NATS did not hear: %s", error)
