"""Documents as bytes, and bytes as documents again: msgpack or JSON, never pickle.

Enter, at a beamline: documents. Enter, at a server: bytes that anybody may have sent. Leave: only
documents that keep event-model's schemas; everything else is a `MessageError`.
"""

import json
from collections.abc import Mapping
from typing import Any

import event_model
import msgpack
import numpy as np
from jsonschema import ValidationError

from ..errors import TomoGANError

# Of numpy's kinds of dtype, those that are plain numbers or text: nothing that holds objects.
_PLAIN = "biufcUS"

_NAMES = {
    name: event_model.schema_validators[event_model.DocumentNames[name]]
    for name in (
        *("start", "stop", "descriptor", "event", "event_page"),
        *("resource", "datum", "datum_page", "stream_resource", "stream_datum"),
    )
}


class MessageError(TomoGANError, ValueError):
    """A message holds no document."""


def pack(doc: Mapping[str, Any]) -> bytes:
    """A document as msgpack, arrays included.

    For bluesky's publishers, whose default is pickle, which no server may read::

        from bluesky.callbacks.zmq import Publisher
        RE.subscribe(Publisher("localhost:5577", serializer=pack))

    Arrays are laid out as the package msgpack-numpy does, and bluesky-kafka with it.
    """
    return bytes(msgpack.packb(doc, default=_encode))


def unpack(content: bytes) -> Any:
    """What is in a message: msgpack, or JSON where it starts with a bracket.

    Raises
    ------
    MessageError
        Neither of the two, or an array of something else than numbers and text.
    """
    try:
        if content[:1] in (b"{", b"["):  # in msgpack: the numbers 123 and 91, which are no document
            return json.loads(content)
        return msgpack.unpackb(content, object_hook=_decode, strict_map_key=True)
    except MessageError:
        raise
    # Whatever a parser makes of hostile bytes: nested too deep, not UTF-8, cut off, of no type.
    except (ValueError, TypeError, RecursionError, MemoryError, msgpack.UnpackException) as error:
        raise MessageError(
            f"expected a document in msgpack or JSON, got {len(content)} bytes that are neither "
            f"({type(error).__name__}: {str(error)[:100]}); give the publisher a serializer: "
            "tomogan_bluesky.serving.messages.pack"
        ) from error


def checked(name: str, doc: Any) -> dict[str, Any]:
    """A document of this name that keeps event-model's schema.

    Raises
    ------
    MessageError
    """
    if name not in _NAMES:
        raise MessageError(
            f"expected the name of a document ({', '.join(_NAMES)}), got {name[:40]!r}"
        )
    if not isinstance(doc, dict):
        raise MessageError(f"expected a {name!r} document, got a {type(doc).__name__}")
    try:
        _NAMES[name].validate(doc)
    except (ValidationError, RecursionError) as error:
        said = error.message if isinstance(error, ValidationError) else "nested too deep"
        raise MessageError(
            f"expected a {name!r} document as event-model has it, got: {said[:200]}"
        ) from error
    return doc


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.kind in _PLAIN:
        return {
            b"nd": True,
            b"type": value.dtype.str,
            b"kind": b"",
            b"shape": value.shape,
            b"data": np.ascontiguousarray(value).tobytes(),
        }
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"expected what msgpack can hold, or an array, got {type(value).__name__}")


def _decode(value: dict[Any, Any]) -> Any:
    if b"nd" not in value:
        return value
    try:
        text = value[b"type"]
        dtype = np.dtype(text.decode() if isinstance(text, bytes) else text)
        if dtype.kind not in _PLAIN or value.get(b"kind", b"") not in (b"", ""):
            raise TypeError(f"an array of {dtype}")
        flat = np.frombuffer(value[b"data"], dtype)
        return flat.reshape([int(n) for n in value[b"shape"]]) if value[b"nd"] else flat[0]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise MessageError(f"expected an array of numbers or text, got: {error}") from error
