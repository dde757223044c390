"""Messages over a socket: plain values and arrays, with no code in them.

Enters and leaves: what documents are made of (mappings, lists, text, numbers, bytes, None, arrays
and scalars of numpy). A message is msgpack; the arrays travel behind it as they lie in memory, so
that nobody holds the interpreter while pixels are copied. Values keep their types and bits; only
tuples become lists, and float64 scalars become floats. There is no pickle anywhere.
"""

import socket
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np

_HEAD = struct.Struct("<QI")  # bytes of the message, number of buffers behind it
_MOST_FDS = 8

# Codes of msgpack's extension types.
_ARRAY, _SHARED, _OTHER = 1, 2, 3

Replace = Callable[[Any], Any]


@dataclass(frozen=True)
class Shared:
    """An array in memory that both sides have: where it is."""

    segment: int
    offset: int
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Other:
    """Something that is not a plain value, by a name that its owner understands."""

    value: Any


@dataclass(frozen=True)
class Packed:
    """A message, ready to be sent any number of times."""

    body: bytes
    buffers: tuple[memoryview, ...] = ()

    @property
    def start(self) -> bytes:
        """All that comes before the buffers on a socket."""
        sizes = (buffer.nbytes for buffer in self.buffers)
        head = _HEAD.pack(len(self.body), len(self.buffers))
        return head + struct.pack(f"<{len(self.buffers)}Q", *sizes) + self.body


def pack(message: Any, replace: Replace | None = None) -> Packed:
    """Make a message.

    Parameters
    ----------
    message
    replace : callable, optional
        Called with every array and with everything that is no plain value; returns what takes its
        place: a `Shared`, an `Other`, an array, or a plain value.

    Raises
    ------
    TypeError
        Something that can't travel.
    """
    buffers: list[memoryview] = []

    def extend(value: Any) -> Any:
        if replace is not None:
            value = replace(value)
        if isinstance(value, Shared):
            place = [value.segment, value.offset, value.dtype, list(value.shape)]
            return msgpack.ExtType(_SHARED, msgpack.packb(place))
        if isinstance(value, Other):
            return msgpack.ExtType(_OTHER, msgpack.packb(value.value))
        if isinstance(value, np.ndarray | np.generic):
            return msgpack.ExtType(_ARRAY, _describe(value, buffers))
        if isinstance(value, str | int | float | list | dict | None):
            return value
        raise TypeError(
            "expected documents of plain values and arrays, got something of type "
            f"{type(value).__module__}.{type(value).__qualname__}"
        )

    try:
        body = msgpack.packb(message, default=extend)
    except OverflowError as error:
        raise TypeError(f"expected integers of at most 64 bits: {error}") from error
    return Packed(body, tuple(buffers))


def _describe(array: np.ndarray | np.generic, buffers: list[memoryview]) -> bytes:
    if array.dtype.hasobject or array.dtype.names is not None:
        raise TypeError(f"expected arrays of numbers or text, got one of dtype {array.dtype}")
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    buffers.append(flat.data)
    scalar = isinstance(array, np.generic)
    return bytes(msgpack.packb([len(buffers) - 1, array.dtype.str, list(array.shape), int(scalar)]))


def unpack(
    body: bytes | bytearray,
    buffers: Sequence[np.ndarray] = (),
    find: Callable[[Shared], Any] | None = None,
    other: Callable[[Any], Any] | None = None,
) -> Any:
    """Read a message.

    Parameters
    ----------
    body, buffers
        As received; arrays are views of the buffers.
    find : callable, optional
        Returns the array that a `Shared` stands for.
    other : callable, optional
        Returns what the value of an `Other` stands for.
    """

    def extended(code: int, data: bytes) -> Any:
        said = msgpack.unpackb(data)
        if code == _ARRAY:
            index, dtype, shape, scalar = said
            array = buffers[index].view(dtype).reshape(shape)
            return array[()] if scalar else array
        if code == _SHARED and find is not None:
            return find(Shared(said[0], said[1], said[2], tuple(said[3])))
        if code == _OTHER and other is not None:
            return other(said)
        raise ValueError(f"expected an array, got an extension of kind {code}")

    return msgpack.unpackb(body, ext_hook=extended, strict_map_key=False)


class Channel:
    """Both directions of a stream socket. Any thread may send; one may receive.

    Parameters
    ----------
    sock : socket
        Closed by `close`.
    find, other
        See `unpack`.
    """

    def __init__(
        self,
        sock: socket.socket,
        find: Callable[[Shared], Any] | None = None,
        other: Callable[[Any], Any] | None = None,
    ) -> None:
        self._socket = sock
        self._sending = threading.Lock()
        self._posted: list[bytes | memoryview] = []
        self._find, self._other = find, other

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, message: Any, fds: Sequence[int] = ()) -> None:
        """Send a message, with file descriptors; waits while the other side does not read.

        Raises
        ------
        OSError
            The other side is gone.
        """
        packed = message if isinstance(message, Packed) else pack(message)
        start = packed.start
        with self._sending:
            self._send_posted()
            if fds:
                # File descriptors go with the first byte, and so with the head.
                sent = socket.send_fds(self._socket, [start], list(fds))
                start = start[sent:]
            self._socket.sendall(start)
            for buffer in packed.buffers:
                self._socket.sendall(buffer)

    def post(self, packed: Packed) -> None:
        """Have a message sent with the next one, or by `flush`: many cost little more than one."""
        with self._sending:
            self._posted += [packed.start, *packed.buffers]

    def flush(self) -> None:
        """Send what was posted.

        Raises
        ------
        OSError
            The other side is gone.
        """
        with self._sending:
            self._send_posted()

    def _send_posted(self) -> None:
        if self._posted:
            posted, self._posted = self._posted, []
            self._socket.sendall(b"".join(posted))

    def receive(self) -> tuple[Any, list[int]]:
        """The next message and the file descriptors that came with it.

        Raises
        ------
        EOFError, OSError
            The other side is gone.
        """
        head, fds, _, _ = socket.recv_fds(self._socket, _HEAD.size, _MOST_FDS)
        if not head:
            raise EOFError("the other side has closed")
        head += self._exactly(_HEAD.size - len(head))
        length, n_buffers = _HEAD.unpack(head)
        sizes = struct.unpack(f"<{n_buffers}Q", self._exactly(8 * n_buffers))
        body = self._exactly(length)
        buffers = []
        for size in sizes:
            buffer = np.empty(size, np.uint8)
            self._fill(buffer.data)
            buffers.append(buffer)
        return unpack(body, buffers, self._find, self._other), fds

    def close(self) -> None:
        """Not while somebody is sending: the number of a closed socket may be given away again."""
        with self._sending:
            self._socket.close()

    def _exactly(self, n: int) -> bytearray:
        data = bytearray(n)
        self._fill(memoryview(data))
        return data

    def _fill(self, view: memoryview) -> None:
        while view:
            n = self._socket.recv_into(view)
            if n == 0:
                raise EOFError("the other side has closed in the middle of a message")
            view = view[n:]
