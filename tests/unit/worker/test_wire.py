"""Messages arrive as they were sent: values, types and bits; nothing else can be in them."""

import datetime
import os
import socket
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tomogan_bluesky.worker.wire import Channel, Other, pack, unpack

DTYPES = st.one_of(
    hnp.integer_dtypes(), hnp.unsigned_integer_dtypes(), hnp.floating_dtypes(), hnp.boolean_dtypes()
)
PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)),
    DTYPES.flatmap(lambda dtype: hnp.from_dtype(dtype, allow_nan=False)),
)
MESSAGES = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray | np.generic) and not isinstance(one, np.float64):
        one, other = np.asarray(one), np.asarray(other)
        return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    # float64 is a float to Python, and arrives as one.
    return (type(one) is type(other) or isinstance(other, np.float64)) and one == other


@given(MESSAGES)
@settings(deadline=None, max_examples=50)
def test_a_message_comes_back_as_it_went(message):
    packed = pack(message)
    buffers = [np.frombuffer(buffer, np.uint8) for buffer in packed.buffers]
    assert same(unpack(packed.body, buffers), message)


def test_arrays_are_not_copied_into_the_message():
    array = np.zeros(10**6, np.uint16)
    packed = pack({"image": array})
    assert len(packed.body) < 100
    assert np.shares_memory(np.frombuffer(packed.buffers[0], np.uint8), array)


@pytest.mark.parametrize("value", [object(), {1, 2}, datetime.date(2026, 1, 1), 2**64, pytest])
def test_what_is_no_plain_value_is_refused(value):
    with pytest.raises(TypeError, match="expected"):
        pack({"a": [value]})
    with pytest.raises(TypeError, match="dtype object"):
        pack(np.array([object()]))


def test_others_are_replaced_on_one_side_and_found_on_the_other():
    packed = pack([object()], lambda value: Other([1, "two"]))
    assert unpack(packed.body, other=lambda value: {"found": value}) == [{"found": [1, "two"]}]
    with pytest.raises(ValueError, match="expected an array"):
        unpack(packed.body)


def test_a_channel_carries_messages_and_files_from_many_threads():
    ours, theirs = (Channel(sock) for sock in socket.socketpair())
    image = np.arange(300_000, dtype=np.uint16)

    def send(n):
        read, write = os.pipe()
        ours.send({"n": n, "image": image}, [read])
        os.write(write, bytes([n]))
        os.close(read)
        os.close(write)

    threads = [threading.Thread(target=send, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for _ in threads:
        message, (fd,) = theirs.receive()
        assert os.read(fd, 1) == bytes([message["n"]])
        os.close(fd)
        np.testing.assert_array_equal(message["image"], image)
    for thread in threads:
        thread.join()
    ours.close()
    with pytest.raises(EOFError):
        theirs.receive()
    theirs.close()
