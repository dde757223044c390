"""`serve` from NATS: RunEngine, broker, server, Tiled in a process each; broker and server die."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess

import pytest
from processes import TESTS, free_ports, light_profile, peers, until

nats = pytest.importorskip("nats")
BROKER = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin")


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def broker(tmp_path):
    """Starts the broker (again) at one address with one folder; returns its process."""
    if BROKER is None:
        pytest.skip("nats-server is not installed; it is a package of Debian")
    (port,) = free_ports(1)
    started = []

    def start():
        options = ("-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(tmp_path / "nats"))
        with (tmp_path / "nats.log").open("a") as log:
            started.append(subprocess.Popen([BROKER, *options], stderr=log))
        until(lambda: listens(port))
        return started[-1]

    start.url = f"nats://127.0.0.1:{port}"
    yield start
    for process in started:
        process.kill()
        process.wait()


async def make_stream(url):
    client = await nats.connect(url)
    await client.jetstream().add_stream(name="bluesky", subjects=["events.>"])
    await client.close()


async def unfinished(url):
    """How many runs nobody has acknowledged."""
    client = await nats.connect(url)
    info = await client.jetstream().consumer_info("bluesky", "tomogan")
    await client.close()
    return info.num_pending + info.num_ack_pending


def test_a_broker_and_a_server_that_are_killed_in_mid_scan(broker, catalog, tmp_path):
    process, log = broker(), tmp_path / "server.log"
    asyncio.run(make_stream(broker.url))
    env = {**os.environ, "TILED_API_KEY": catalog.api_key, "OMP_NUM_THREADS": "1"}
    with peers() as start:

        def server():
            options = (
                "--nats",
                broker.url,
                "--publish",
                catalog.uri,
                "--profile",
                light_profile(tmp_path),
                "--json",
            )
            return start("-m", "tomogan_bluesky", "-v", "serve", *options, env=env, log=log)

        beamline = start(TESTS / "beamline_process.py", "--nats", broker.url, env=env)
        beamline.hear()
        beamline.tell("scan 9")
        first = beamline.hear()
        serving = server()  # what was published before it
        report = serving.hear_json()
        assert (report["raw_uid"], report["frames"]["used"]) == (first, 9), report["reason"]

        beamline.tell("scan 9 hold")
        assert beamline.hear() == "held"
        process.kill()
        process.wait()
        broker()
        until(lambda: log.read_text().count(": connected") == 2)
        serving.kill()
        beamline.tell("go on")
        second = beamline.hear()
        serving = server()
        report = serving.hear_json()
        if report["raw_uid"] == first:  # the word that it is done died with the broker
            assert report["already_done"]
            report = serving.hear_json()
        assert (report["raw_uid"], report["frames"]["used"]) == (second, 9), report["reason"]
        assert report["exit_status"] == "success"
        assert serving.end(signal.SIGTERM) == 0
    assert asyncio.run(unfinished(broker.url)) == 0
    assert "Traceback" not in log.read_text()
