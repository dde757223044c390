"""`serve` from Kafka, against librdkafka's own broker: it speaks the protocol, and keeps in memory.

It can be neither killed nor restarted; that a broker comes back is not tested here. The server is.
"""

import os
import signal

import pytest
from processes import TESTS, light_profile, peers, until

confluent_kafka = pytest.importorskip("confluent_kafka")


@pytest.fixture
def broker():
    """Address of a broker that lives as long as a producer."""
    settings = {"bootstrap.servers": "none", "test.mock.num.brokers": 1}
    producer = confluent_kafka.Producer(settings)
    (metadata,) = producer.list_topics("scans", timeout=10).brokers.values()
    yield f"{metadata.host}:{metadata.port}"
    producer.flush()


def test_a_server_that_is_killed_in_mid_scan_reads_the_run_from_its_start(
    broker, catalog, tmp_path
):
    env = {**os.environ, "TILED_API_KEY": catalog.api_key, "OMP_NUM_THREADS": "1"}
    log = tmp_path / "server.log"
    with peers() as start:

        def server():
            options = ("--kafka", broker, "--kafka-topic", "scans", "--publish", catalog.uri)
            options += ("--profile", light_profile(tmp_path), "--json")
            return start("-m", "tomogan_bluesky", "-v", "serve", *options, env=env, log=log)

        beamline = start(TESTS / "beamline_process.py", "--kafka", broker, env=env)
        beamline.hear()
        beamline.tell("scan 9")
        first = beamline.hear()
        serving = server()
        report = serving.hear_json()
        assert (report["raw_uid"], report["frames"]["used"]) == (first, 9), report["reason"]

        beamline.tell("scan 9 hold")
        assert beamline.hear() == "held"
        serving.kill()
        serving = server()
        until(lambda: log.read_text().count(": connected") == 2)
        beamline.tell("go on")
        second = beamline.hear()
        report = serving.hear_json()
        if report["raw_uid"] == first:  # killed before it was committed
            assert report["already_done"]
            report = serving.hear_json()
        assert (report["raw_uid"], report["frames"]["used"]) == (second, 9), report["reason"]
        assert serving.end(signal.SIGTERM) == 0
    assert "Traceback" not in log.read_text()
