"""Who may be listened to over 0MQ."""

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
