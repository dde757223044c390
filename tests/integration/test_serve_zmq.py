"""`serve` from 0MQ: RunEngine, proxy, server and Tiled in a process each; peers are killed."""

import os
import pickle
import signal
import time
from urllib.request import urlopen

import msgpack
import numpy as np
import pytest
import zmq
from processes import TESTS, free_ports, peers, until

PROXY = """
import sys
from bluesky.callbacks.zmq import Proxy
proxy = Proxy(("127.0.0.1", int(sys.argv[1])), ("127.0.0.1", int(sys.argv[2])))
print("ready", flush=True)
proxy.start()
"""


@pytest.fixture
def ports():
    """Free ones: the proxy's two, and one for the server's metrics."""
    return free_ports(3)


@pytest.fixture
def network(catalog, ports, tmp_path):
    """Functions that start a proxy, a beamline and a server, and the log of the server."""
    into, out, metrics_port = ports
    env = {
        **os.environ,
        "XDG_STATE_HOME": str(tmp_path),
        "TILED_API_KEY": catalog.api_key,
        "OMP_NUM_THREADS": "1",
    }
    with peers() as start:

        class Network:
            log = tmp_path / "server.log"
            metrics = metrics_port

            def proxy(self):
                peer = start("-c", PROXY, into, out)
                peer.hear()
                return peer

            def beamline(self):
                script = TESTS / "beamline_process.py"
                peer = start(script, "--zmq", f"127.0.0.1:{into}", "--tiled", catalog.uri, env=env)
                peer.hear()
                return peer

            def server(self, *more):
                # Others' runs are in that catalog, too.
                options = ("--zmq", out, "--tiled", catalog.uri, "--model", "none", "--json")
                # Others' runs are in that catalog, too.
                options += ("--since-hours", "0", "--metrics-port", self.metrics)
                return start(
                    *("-m", "tomogan_bluesky", "-v", "serve", *options, *more),
                    env=env,
                    log=self.log,
                )

            def until_connected(self, times):
                """Wait until the server has connected to a proxy for the so many-th time."""
                until(lambda: self.log.read_text().count(": connected") >= times)

        yield Network()


def garbage(port):
    """What nobody should send, through the proxy."""
    pack = msgpack.packb
    start = {"uid": "x" * 36, "time": 0.0}
    with zmq.Context() as context, context.socket(zmq.PUB) as socket:
        socket.connect(f"tcp://127.0.0.1:{port}")
        time.sleep(0.5)  # 0MQ drops what is sent before it has connected
        for message in (
            *(b"", b" ", b"  ", b"\xff\xfe \xff \xff", b" start ", b" start {", b" nothing {}"),
            b" start " + pickle.dumps(start),
            b" start " + b"[" * 100_000,
            b" start " + b"\x91" * 100_000,
            b" event " + pack({"data": {b"nd": True, b"type": "O", b"data": b"", b"shape": [0]}}),
            b" stop " + pack({"run_start": 7}),
            b" start " + pack({**start, "time": "now"}),
            b" event " + os.urandom(1000),
        ):
            socket.send(message)
        socket.close(linger=5000)


def test_a_proxy_that_is_killed_in_mid_scan(network, catalog, client, ports):
    proxy, server, beamline = network.proxy(), network.server(), network.beamline()
    network.until_connected(1)
    garbage(ports[0])
    beamline.tell("scan 9")
    report = server.hear_json()
    assert report["raw_uid"] == beamline.hear()
    assert report["exit_status"] == "success", report["reason"]
    assert np.isfinite(client[report["derived_uid"]]["primary"]["reconstruction"].read()).all()

    beamline.tell("scan 9 hold")
    assert beamline.hear() == "held"
    proxy.kill()
    beamline.tell("go on")
    lost = beamline.hear()
    first, second = server.hear_json(), server.hear_json()
    assert first["raw_uid"] == second["raw_uid"] == lost
    assert first["exit_status"] != "success"
    assert first["frames"]["used"] < 5
    assert (second["exit_status"], second["frames"]["used"]) == ("success", 9)  # from Tiled

    with urlopen(f"http://127.0.0.1:{network.metrics}/metrics") as page:
        numbers = page.read().decode()
    for line in (
        'tomogan_runs_total{status="success"} 2.0',
        'tomogan_connected{source="zmq"} 0.0',
        'tomogan_connected{source="tiled"} 1.0',
        "tomogan_lag_seconds_count 3.0",
        "tomogan_waiting_documents 0.0",
        "tomogan_spool_runs 0.0",
    ):
        assert f"\n{line}\n" in numbers

    network.proxy()
    network.until_connected(2)
    beamline.tell("scan 9")
    reports = [server.hear_json()]
    if reports[0]["exit_status"] != "success":  # the beamline took longer to connect again
        reports.append(server.hear_json())
    assert reports[-1]["raw_uid"] == beamline.hear()
    assert reports[-1]["frames"]["used"] == 9
    assert server.end(signal.SIGTERM) == 0
    assert "Traceback" not in network.log.read_text()
