"""Who may be listened to over 0MQ, and what of it is taken."""

from contextlib import contextmanager
from queue import Queue

import pytest
import zmq
import zmq.auth
from scans import scan_documents

from tomogan_bluesky.errors import ConfigurationError
from tomogan_bluesky.serving.inbox import Inbox
from tomogan_bluesky.serving.messages import pack
from tomogan_bluesky.serving.zmq import ZmqSource


@pytest.mark.parametrize(
    "address", ["5578", "localhost:5578", "127.0.0.1:5578", "[::1]:5578", "ipc:///tmp/proxy"]
)
def test_a_proxy_of_this_machine_needs_no_keys(address):
    ZmqSource(address)


@pytest.mark.parametrize("address", ["daq:5578", "tcp://10.0.0.1:5578", "0.0.0.0:5578", "*:5578"])
def test_one_elsewhere_does(address):
    with pytest.raises(ConfigurationError, match="expected keys for a proxy on another machine"):
        ZmqSource(address)


def test_with_keys_both_sides_know_each_other(tmp_path):
    name, start = scan_documents()[0]
    proxy, proxy_secret = zmq.auth.create_certificates(tmp_path, "proxy")
    _, our_secret = zmq.auth.create_certificates(tmp_path, "server")
    public, secret = zmq.auth.load_certificate(proxy_secret)
    with zmq.Context() as context, context.socket(zmq.XPUB) as publisher:
        publisher.curve_server = True
        publisher.curve_publickey, publisher.curve_secretkey = public, secret
        port = publisher.bind_to_random_port("tcp://127.0.0.1")
        source, inbox = ZmqSource(str(port), "bl1", (our_secret, proxy)), Inbox(10**6)
        source.start(inbox)
        try:
            assert publisher.recv() == b"\x01bl1 "  # it has subscribed
            for prefix in (b"bl2", b"bl1"):
                publisher.send(
                    b" ".join((prefix, name.encode(), pack(start | {"hint": prefix.decode()})))
                )
            assert inbox.get(10).doc == start | {"hint": "bl1"}
        finally:
            source.close()
    with pytest.raises(ConfigurationError, match="public one alone"):
        ZmqSource("daq:5578", curve=(proxy, proxy))


class WatchedInbox(Inbox):
    """Tells of each document whether it had room."""

    def __init__(self, limit_bytes):
        super().__init__(limit_bytes)
        self.taken = Queue()

    def put(self, *args, **kwargs):
        taken = super().put(*args, **kwargs)
        self.taken.put(taken)
        return taken


@contextmanager
def subscribed(inbox, **options):
    """A publisher whose only subscriber fills the inbox, and what sends over it."""
    with zmq.Context() as context, context.socket(zmq.XPUB) as publisher:
        publisher.rcvtimeo = 30_000
        source = ZmqSource(str(publisher.bind_to_random_port("tcp://127.0.0.1")), **options)
        source.start(inbox)
        try:
            assert publisher.recv() == b"\x01"
            yield publisher
        finally:
            source.close()


def message(number, **more):
    name, start = scan_documents()[0]
    return b" ".join((b"", name.encode(), pack(start | {"number": number} | more)))


@pytest.mark.parametrize(
    "junk", [b"", b"start", b" start \xc1", b" start {}", b" stop \x90", b" rm -rf"]
)
def test_a_message_that_is_no_document_costs_itself_alone(junk, caplog):
    inbox = Inbox(10**6)
    with subscribed(inbox) as publisher:
        publisher.send(junk)
        publisher.send(message(1))
        assert inbox.get(30).doc["number"] == 1
    assert "a message is refused" in caplog.text
    assert "Traceback" not in caplog.text


def test_an_oversized_message_is_not_taken_and_the_next_one_is():
    inbox = Inbox(10**8)
    with subscribed(inbox, max_message_bytes=20_000) as publisher:
        publisher.send(message(1, sample="x" * 10_000))
        assert inbox.get(30).doc["number"] == 1
        publisher.send(message(2, sample="x" * 30_000))
        # What is sent before the connection is back is lost, and when it is back nobody tells.
        for number in range(3, 63):
            publisher.send(message(number))
            if item := inbox.get(0.5):
                break
        assert item is not None
        assert 3 <= item.doc["number"] <= number


def test_what_a_slow_server_has_no_room_for_is_dropped_and_said(caplog):
    inbox = WatchedInbox(1)
    with subscribed(inbox) as publisher:
        for number in (1, 2):
            publisher.send(message(number))
        assert [inbox.taken.get(timeout=30) for _ in range(2)] == [True, False]
        assert inbox.get(0).doc["number"] == 1
        publisher.send(message(3))
        assert inbox.get(30).doc["number"] == 3
    assert "too much is waiting" in caplog.text
    assert "will be partial" in caplog.text
