"""Documents from bluesky's 0MQ proxy.

Enter: what `bluesky.callbacks.zmq.Publisher` sends, with a serializer that is not pickle. Leave:
documents, into the inbox.

0MQ delivers to those who are connected, and keeps nothing: what was sent while this server or the
proxy was down is lost here. A run of which something is missing is published as partial, and made
whole from the catalog where that is watched, too.
"""

import ipaddress
import logging
import threading
from pathlib import Path

import zmq
import zmq.auth

from ..errors import ConfigurationError
from .inbox import Document, Inbox, keep_running
from .messages import MessageError, checked, unpack

logger = logging.getLogger(__name__)

_POLL_MS = 200

# A peer that is gone without a word (a cable, a power cut) is noticed within this time.
_HEARTBEAT_MS = 2000

# Between two attempts to connect to a proxy that is down.
_RECONNECT_MS, _RECONNECT_MAX_MS = 100, 2000


class ZmqSource:
    """Subscribes to a proxy.

    Parameters
    ----------
    address : str
        ``host:port``, a port of this machine, or ``ipc://path``: the proxy's out-address.
    prefix : str
        Take only messages with this prefix; "" takes all.
    curve : (Path, Path), optional
        Files of our secret key and of the proxy's public key, as ``zmq.auth`` writes them.
    max_message_bytes : int
        A peer that sends a longer message is disconnected.

    Raises
    ------
    ConfigurationError
        A proxy on another machine without keys; keys that cannot be read.
    """

    name = "zmq"

    def __init__(
        self,
        address: str,
        prefix: str = "",
        curve: tuple[Path, Path] | None = None,
        max_message_bytes: int = 2**28,
    ) -> None:
        self._address = full_address(address)
        if curve is None and not is_local(self._address):
            raise ConfigurationError(
                f"{self._address}: expected keys for a proxy on another machine, got none; "
                "whoever reaches its port could send documents: give --curve-secret and "
                "--curve-server, or use a tunnel to this machine"
            )
        self._keys = None if curve is None else _load(*curve)
        self._topic = f"{prefix} ".encode() if prefix else b""
        self._max_message_bytes = max_message_bytes
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self.connected = False

    def start(self, inbox: Inbox) -> None:
        self._thread = keep_running(lambda: self._receive(inbox), self._ending, self.name)

    def finished(self, raw_uid: str, done: bool) -> None:
        """Nothing is kept here."""

    def close(self) -> None:
        self._ending.set()
        if self._thread is not None:
            self._thread.join()

    def _receive(self, inbox: Inbox) -> None:
        context = zmq.Context()
        try:
            socket = context.socket(zmq.SUB)
            self._set_up(socket)
            monitor = socket.get_monitor_socket(
                zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
            )
            poller = zmq.Poller()
            poller.register(socket, zmq.POLLIN)
            poller.register(monitor, zmq.POLLIN)
            socket.connect(self._address)
            complain = _NowAndThen()
            while not self._ending.is_set():
                ready = dict(poller.poll(_POLL_MS))
                was_connected = self.connected
                if monitor in ready:
                    self._note(monitor.recv_multipart(zmq.NOBLOCK)[0])
                if socket in ready:
                    self._take(inbox, socket.recv(), complain)
                if was_connected and not self.connected:
                    while socket.poll(0):
                        self._take(inbox, socket.recv(), complain)
                    # Begin again: after a message that is too long, 0MQ does not connect any more.
                    return
        finally:
            context.destroy(linger=0)

    def _set_up(self, socket: "zmq.Socket[bytes]") -> None:
        socket.setsockopt(zmq.RCVHWM, 0)  # the inbox is what is bounded, and what says so
        socket.setsockopt(zmq.MAXMSGSIZE, self._max_message_bytes)
        socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS)
        socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 2 * _HEARTBEAT_MS)
        if self._keys is not None:
            public, secret, server = self._keys
            socket.setsockopt(zmq.CURVE_PUBLICKEY, public)
            socket.setsockopt(zmq.CURVE_SECRETKEY, secret)
            socket.setsockopt(zmq.CURVE_SERVERKEY, server)
        socket.setsockopt(zmq.SUBSCRIBE, self._topic)

    def _note(self, event: bytes) -> None:
        number = int.from_bytes(event[:2], "little")
        self.connected = number == zmq.EVENT_HANDSHAKE_SUCCEEDED
        if self.connected:
            logger.info("%s: connected", self._address)
        else:
            logger.warning(
                "%s: the connection is lost, and made again as soon as the proxy is there; a "
                "message of more than %d MiB does that, too",
                self._address,
                self._max_message_bytes >> 20,
            )

    def _take(self, inbox: Inbox, message: bytes, complain: "_NowAndThen") -> None:
        try:
            name, doc = _document(message)
        except MessageError as error:
            complain(f"{self._address}: a message is refused: {error}")
            return
        if not inbox.put(Document(self, name, doc), len(message), wait=False):
            complain(
                f"{self._address}: too much is waiting (--memory-gib), and a {name!r} document is "
                "dropped; its run will be partial until it is replayed"
            )


def _document(message: bytes) -> tuple[str, dict]:
    try:
        _, name, content = message.split(b" ", 2)
    except ValueError:
        raise MessageError(
            "expected a prefix, a name and a document with spaces between, got "
            f"{len(message)} bytes without these"
        ) from None
    text = name.decode(errors="replace")
    return text, checked(text, unpack(content))


class _NowAndThen:
    """Logs the first error and then every hundredth: a flood must not fill the disk."""

    def __init__(self) -> None:
        self._n = 0

    def __call__(self, text: str) -> None:
        self._n += 1
        if self._n % 100 == 1:
            logger.error("%s (the %d. of its kind)", text, self._n)


def full_address(text: str) -> str:
    """A 0MQ address; a port alone is one of this machine."""
    if text.isdecimal():
        return f"tcp://127.0.0.1:{text}"
    return text if "://" in text else f"tcp://{text}"


def is_local(address: str) -> bool:
    """Whether only processes of this machine can be behind an address."""
    transport, _, rest = address.partition("://")
    if transport in ("ipc", "inproc"):
        return True
    host = rest.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _load(secret_path: Path, server_path: Path) -> tuple[bytes, bytes, bytes]:
    try:
        public, secret = zmq.auth.load_certificate(secret_path)
        server, _ = zmq.auth.load_certificate(server_path)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"expected CURVE keys, got: {error}") from error
    if secret is None:
        raise ConfigurationError(
            f"{secret_path}: expected a secret key, got a file with a public one alone; it is the "
            "file that ends in .key_secret"
        )
    return public, secret, server
