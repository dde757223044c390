"""A proxy between a client and a real server, which can be told to be a bad network."""

import contextlib
import socket
import socketserver
import struct
import threading
import time
from urllib.parse import urlsplit

from processes import free_ports

_RESET = struct.pack("ii", 1, 0)  # a closed connection is torn down, not said goodbye to


class Proxy:
    """Forwards TCP connections on the loopback.

    `mode` says what happens to bytes from now on:

    - "pass": all is well;
    - "refuse": nobody listens any more, and connections are cut;
    - "freeze": connections stay open, and nothing goes through (a half-open TCP connection);
    - "lose an answer": the next request goes through, its answer is cut off, then all is well;
    - "slow": every answer takes a while;
    - "garbage": answers that are no HTTP;
    - an HTTP status, such as 503: every request is answered by that.

    A mode applies to connections that are open, too: "freeze", "lose an answer" and "slow" leave
    them as they are, and the others cut them.
    """

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        self._upstream = (parts.hostname, parts.port)
        self._mode: str | int = "pass"
        self._open: set[socket.socket] = set()
        self._thawed = threading.Event()
        self._thawed.set()
        self._lock = threading.Lock()
        self._server: socketserver.BaseServer | None = None
        (self._port,) = free_ports(1)
        self._listen()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def mode(self) -> str | int:
        return self._mode

    @mode.setter
    def mode(self, mode: str | int) -> None:
        if mode == "freeze":
            self._thawed.clear()
        self._mode = mode
        if mode == "refuse":
            self._deaf()
        elif self._server is None:
            self._listen()
        if mode != "freeze":
            self._thawed.set()
        if mode not in ("freeze", "lose an answer", "slow"):
            self._cut()

    def close(self) -> None:
        self._thawed.set()
        self._deaf()
        self._cut()

    def _listen(self) -> None:
        proxy = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                proxy._serve(self.request)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

        self._server = Server(("127.0.0.1", self._port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def _deaf(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _cut(self) -> None:
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    connection.shutdown(socket.SHUT_RDWR)

    def _serve(self, client: socket.socket) -> None:
        with self._lock:
            self._open.add(client)
        try:
            if isinstance(self._mode, int) or self._mode == "garbage":
                self._answer(client)
            else:
                self._forward(client)
        except OSError:
            pass
        finally:
            with self._lock:
                self._open.discard(client)

    def _answer(self, client: socket.socket) -> None:
        client.recv(65536)
        if self._mode == "garbage":
            client.sendall(bytes(range(256)) * 8)
        else:
            head = f"HTTP/1.1 {self._mode} No", "Content-Length: 0", "Connection: close", "", ""
            client.sendall("\r\n".join(head).encode())

    def _forward(self, client: socket.socket) -> None:
        with socket.create_connection(self._upstream) as server:
            back = threading.Thread(target=self._pump, args=(server, client, True), daemon=True)
            back.start()
            self._pump(client, server, False)
            back.join()

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        try:
            while data := source.recv(65536):
                self._thawed.wait()
                if answers and self._mode == "lose an answer":
                    self._mode = "pass"
                    break
                if answers and self._mode == "slow":
                    time.sleep(0.05)
                sink.sendall(data)
        except OSError:
            pass
        for connection in (source, sink):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
