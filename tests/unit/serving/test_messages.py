"""Documents through bytes; and bytes that hold none."""

import json
import pickle
from contextlib import suppress

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scans import scan_documents

from tomogan_bluesky.serving.messages import MessageError, checked, pack, unpack


def test_documents_come_back_as_they_were():
    for name, doc in scan_documents():
        found = checked(name, unpack(pack(doc)))
        assert found.keys() == doc.keys()
        if name == "event":
            image = found["data"]["camera"]
            assert image.dtype == np.uint16
            np.testing.assert_array_equal(image, doc["data"]["camera"])


def test_json_is_understood_too():
    name, start = scan_documents()[0]
    assert checked(name, unpack(json.dumps(start).encode())) == start


@given(st.binary(max_size=300))
def test_bytes_are_a_document_or_a_message_error(content):
    with suppress(MessageError):
        checked("event", unpack(content))


@given(st.recursive(st.none() | st.integers(-9, 9) | st.text(max_size=3), st.lists), st.text())
def test_so_is_whatever_msgpack_can_hold(value, name):
    with pytest.raises(MessageError):
        checked(name, unpack(msgpack.packb({"uid": value, "nd": value})))


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(Trap()),
        msgpack.packb({b"nd": True, b"type": "O", b"kind": b"O", b"data": pickle.dumps(Trap())}),
        msgpack.packb({b"nd": True, b"type": "V8", b"data": bytes(8), b"shape": [1]}),
        msgpack.packb({b"nd": True, b"type": "M8[s]", b"data": bytes(8), b"shape": [1]}),
        msgpack.packb(
            {b"nd": True, b"type": "<f8", b"kind": b"O", b"data": bytes(8), b"shape": [1]}
        ),
        msgpack.packb({b"nd": True, b"type": "<f8", b"data": b"123", b"shape": [1]}),
        msgpack.packb({b"nd": True, b"type": "<f8", b"data": bytes(8), b"shape": [2**40]}),
        msgpack.packb({b"nd": False, b"type": "<f8", b"data": b""}),
        b"\x91" * 100_000,
        b"[" * 100_000,
    ],
)
def test_traps_are_refused(content):
    with pytest.raises(MessageError):
        unpack(content)
