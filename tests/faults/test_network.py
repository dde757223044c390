"""A network and a server that fail: nothing is lost, nothing is there twice, and it is said."""

import json
import stat
import threading

import httpx
import numpy as np
import pytest
import stamina
from processes import until
from proxy import Proxy
from scans import scan_documents, slice_events
from tiled.client import from_uri

from tomogan_bluesky import PublishingConfig, ReconstructionConfig, TomoGANCallback
from tomogan_bluesky.cli import main
from tomogan_bluesky.publish import connection, courier
from tomogan_bluesky.publish.catalog import attempts
from tomogan_bluesky.publish.courier import bring
from tomogan_bluesky.publish.outbox import Outbox
from tomogan_bluesky.publish.spool import Spool
from tomogan_bluesky.publish.tiled_publisher import TiledPublisher

# Everything that makes a server one that is away for now.
AWAY = ["refuse", "freeze", "garbage", 401, 403, 429, 500, 503]


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Give up at the first failure, instead of after 45 s; look again soon."""
    monkeypatch.setattr(courier, "LOOK_EVERY", 0.1)
    monkeypatch.setattr(connection, "_ANSWER_WITHIN", 3.0)
    with stamina.set_testing(True, attempts=1):
        yield


@pytest.fixture
def proxy(catalog):
    proxy = Proxy(catalog.uri)
    yield proxy
    proxy.close()


@pytest.fixture
def far_client(proxy, catalog):
    """A client that reaches the catalog through the proxy."""
    client = from_uri(
        proxy.uri, api_key=catalog.api_key, trust_env=False, timeout=httpx.Timeout(5.0)
    )
    yield client
    client.context.close()


@pytest.fixture
def publish(far_client, catalog, tmp_path):
    """A callback that publishes through the proxy, and lets us see each document before."""

    def make(before=lambda name, doc: None, files=True, **config):
        config = {"spool": tmp_path / "spool", **config}
        if files:
            config["directory"] = catalog.volumes
        return TomoGANCallback(
            [before, far_client],
            None,
            reconstruction=ReconstructionConfig(slab_rows=1),
            publishing=PublishingConfig(**config),
            worker="thread",
        )

    return make


def run_through(callback, docs):
    for name, doc in docs:
        callback(name, doc)
    (report,) = callback.wait(60)
    return report


def wait_for(name):
    """Until everything that a courier, or a postman, has at hand was brought."""
    until(lambda: f"tomogan-{name}" not in {thread.name for thread in threading.enumerate()})


def truth(docs):
    seen = []
    with TomoGANCallback(lambda *item: seen.append(item), None, worker="thread") as callback:
        run_through(callback, docs)
    return np.stack([doc["data"]["reconstruction"] for doc in slice_events(seen)])


def check_final(client, report, docs):
    """One final version, whole, to the bit, and nothing beside it."""
    start = client[report.derived_uid].metadata["start"]
    known = attempts(client, start["derivation"])
    assert [(a.uid, a.exit_status) for a in known] == [(report.derived_uid, "success")]
    stream = client[report.derived_uid]["primary"]
    np.testing.assert_array_equal(stream["reconstruction"].read(), truth(docs))
    assert stream["detector_row"].read().tolist() == [0, 1, 2]


def in_mid_run(proxy, mode, when="event_page", nth=1):
    """Changes the network when the nth document of a kind is on its way."""
    seen = []

    def change(name, doc):
        seen.append(name)
        if name == when and seen.count(when) == nth:
            wait_for("postman")  # the documents before it have arrived
            proxy.mode = mode

    return change


@pytest.mark.parametrize("mode", ["refuse", "freeze", 401])
def test_a_server_that_is_away_at_the_start_gets_the_run_later(
    mode, publish, proxy, client, tmp_path
):
    docs = scan_documents()
    with publish() as callback:
        proxy.mode = mode
        report = run_through(callback, docs)
        assert report.exit_status == "success"
        assert report.spooled
        assert "waits in the spool" in report.reason
        assert report.derived_uid not in client
        proxy.mode = "pass"
        wait_for("courier")
        check_final(client, report, docs)
        # And is used again as if nothing had been.
        after = run_through(callback, scan_documents())
        assert (after.exit_status, after.spooled) == ("success", False)
    assert Spool(tmp_path / "spool", 1).waiting() == []


@pytest.mark.parametrize("mode", AWAY)
def test_a_server_that_goes_away_in_mid_run_gets_the_run_later(
    mode, publish, proxy, client, tmp_path
):
    docs = scan_documents()
    with publish(in_mid_run(proxy, mode)) as callback:
        report = run_through(callback, docs)
        assert (report.exit_status, report.spooled) == ("success", True)
        assert (client[report.derived_uid].metadata.get("stop") or {}) == {}  # in part
        proxy.mode = "pass"
        wait_for("courier")
        check_final(client, report, docs)
    assert Spool(tmp_path / "spool", 1).waiting() == []


def test_peer_killed_and_the_callback_closed_before_it_was_back(
    publish, proxy, client, catalog, tmp_path, monkeypatch, capsys
):
    """What waits outlives the process; `spool` tells of it and brings it, and never twice."""
    spool = tmp_path / "spool"
    docs = [scan_documents(), scan_documents()]
    with publish(in_mid_run(proxy, "refuse")) as callback:
        reports = [run_through(callback, each) for each in docs]
    assert [report.spooled for report in reports] == [True, True]
    assert stat.S_IMODE((next(spool.iterdir())).stat().st_mode) == 0o700

    assert main(["spool", "list", "--spool", str(spool), "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(t["uid"], t["exit_status"]) for t in told] == [
        (report.derived_uid, "success") for report in reports
    ]
    assert all(t["target"] == f"{proxy.uri}/api/v1/metadata/" and t["why"] for t in told)
    assert main(["spool", "list", "--spool", str(spool)]) == 0
    assert f"of run {reports[0].raw_uid}" in capsys.readouterr().out

    monkeypatch.setenv("TILED_API_KEY", catalog.api_key)
    flush = ["spool", "flush", "--spool", str(spool), "--json"]
    assert main(flush) == 1
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(t["outcome"], "to answer" in t["why"]) for t in told] == [("left", True)] * 2
    proxy.mode = "pass"
    assert main(["spool", "flush", reports[1].derived_uid[:13], *flush[2:]]) == 0
    assert main(["spool", "flush", "--spool", str(spool), "--catalog", str(catalog.directory)]) == 0
    assert capsys.readouterr().out.splitlines()[1] == f"{reports[0].derived_uid}  published"
    assert main(flush) == 0
    for report, each in zip(reports, docs, strict=True):
        check_final(client, report, each)
    assert not list(spool.iterdir())


def test_what_waits_is_brought_when_the_server_is_used_again(publish, proxy, client):
    docs = scan_documents()
    with publish(in_mid_run(proxy, "refuse", "stop")) as callback:
        report = run_through(callback, docs)
        assert report.spooled
    proxy.mode = "pass"
    with publish() as callback:  # as after a restart
        after = run_through(callback, scan_documents())
        assert not after.spooled
        wait_for("courier")
    check_final(client, report, docs)


def test_a_replay_finds_what_waits_and_computes_nothing(publish, proxy):
    docs = scan_documents()
    with publish() as callback:
        proxy.mode = "refuse"
        first, second = run_through(callback, docs), run_through(callback, docs)
        assert second.already_done
        assert second.derived_uid == first.derived_uid
        proxy.mode = "pass"
        wait_for("courier")


def test_what_waits_yields_to_a_final_version_that_came_meanwhile(
    publish, proxy, client, catalog, tmp_path
):
    """Made by somebody who did not know: there is one final version, and one file."""
    docs = scan_documents()
    with publish() as callback:
        proxy.mode = "refuse"
        waits = run_through(callback, docs)
    with TomoGANCallback(
        client,
        None,
        reconstruction=ReconstructionConfig(slab_rows=1),
        publishing=PublishingConfig(directory=catalog.volumes),
        worker="thread",
    ) as callback:
        final = run_through(callback, docs)
    assert final.derived_uid != waits.derived_uid
    proxy.mode = "pass"
    (run,) = Spool(tmp_path / "spool", 1).waiting()
    assert bring(client, run) == "superseded"
    check_final(client, final, docs)
    assert not waits.volume_path.exists()
    assert Spool(tmp_path / "spool", 1).waiting() == []


def test_a_run_that_was_cut_off_while_it_waited_is_dropped(client, tmp_path, caplog):
    spool = Spool(tmp_path, 1)
    start = {"uid": "cut", "derivation": "d", "attempt": 1, "original_run_uid": "raw"}
    run = spool.open("server", start)
    run.append("start", start)
    assert bring(client, spool.waiting()[0]) == "in use"  # while its writer lives
    run.close()
    assert bring(client, spool.waiting()[0]) == "cut off"
    assert "replay its raw run raw" in caplog.text
    assert spool.waiting() == []


def test_a_spool_that_is_full_fails_the_derived_run_only(publish, proxy, client, tmp_path):
    """12 KiB of slices in the events do not fit into 10."""
    with publish(files=False, spool_gib=10 / 2**20) as callback:
        proxy.mode = "refuse"
        report = run_through(callback, scan_documents())
        assert report.exit_status == "fail"
        assert "expected room for" in report.reason
        assert "publishing.spool_gib" in report.reason
        assert Spool(tmp_path / "spool", 1).waiting() == []
        proxy.mode = "pass"
        wait_for("courier")
        docs = scan_documents()
        check_final(client, run_through(callback, docs), docs)  # it needs no room to be sent


def test_without_a_spool_a_server_that_is_away_fails_the_derived_run_only(publish, proxy, client):
    with publish(in_mid_run(proxy, "refuse"), spool_gib=0) as callback:
        report = run_through(callback, scan_documents())
        assert report.exit_status == "fail"
        assert "see that the server runs" in report.reason
        proxy.mode = "pass"
        docs = scan_documents()
        check_final(client, run_through(callback, docs), docs)


def test_slices_in_events_wait_to_the_bit(publish, proxy, client):
    docs = scan_documents()
    with publish(in_mid_run(proxy, 503, "event"), files=False) as callback:
        report = run_through(callback, docs)
        assert report.spooled
        proxy.mode = "pass"
        wait_for("courier")
    check_final(client, report, docs)


def test_an_answer_that_is_lost_leaves_no_row_twice(publish, proxy, client):
    """Tiled has the rows, we do not know it, and its client sends them again."""
    docs = scan_documents()
    with publish(in_mid_run(proxy, "lose an answer", nth=2)) as callback:
        stamina.set_testing(False)
        report = run_through(callback, docs)
    check_final(client, report, docs)


def test_an_outage_in_mid_run_that_ends_in_mid_run(publish, proxy, client):
    """The server has the first slab, misses the second, and is told of all with the third."""
    docs = scan_documents()
    slabs = []

    def break_for_the_second_slab(name, doc):
        slabs.append(name) if name == "event_page" else None
        if slabs == ["event_page"] and name == "event_page":
            wait_for("postman")
            proxy.mode = "refuse"
        elif name == "stop":
            proxy.mode = "pass"
            wait_for("courier")

    with publish(break_for_the_second_slab) as callback:
        report = run_through(callback, docs)
        assert not report.spooled
    check_final(client, report, docs)


def test_slow_consumer_does_not_delay_the_scan(publish, proxy, client):
    docs = scan_documents()
    all_taken = threading.Event()
    seen = []

    def slow(name, doc):
        assert all_taken.wait(60)
        seen.append(name)

    proxy.mode = "slow"
    with publish(slow) as callback:
        for name, doc in docs:
            callback(name, doc)
        all_taken.set()  # which would never come if documents waited for the consumer
        (report,) = callback.wait(60)
    assert seen[-1] == "stop"
    assert not report.spooled
    check_final(client, report, docs)


def test_slow_server_delays_neither_the_slabs_nor_another_consumer(publish, client, monkeypatch):
    """It gets the first document when the others have everything, and is told all the same."""
    docs = scan_documents()
    all_announced = threading.Event()
    names, sent = [], []
    deliver = Outbox.__call__

    def slow(self, name, doc):
        assert all_announced.wait(30)
        sent.append(name)
        deliver(self, name, doc)

    def prompt(name, doc):
        names.append(name)
        if names.count("event_page") == 3:
            all_announced.set()

    monkeypatch.setattr(Outbox, "__call__", slow)
    with publish(prompt) as callback:
        report = run_through(callback, docs)
    check_final(client, report, docs)
    assert sent.count("event_page") == 1  # what had to wait went together


@pytest.mark.parametrize("status", [400, 413, 422])
def test_oversized_message_or_one_that_is_refused_fails_the_derived_run_only(
    status, publish, proxy, client
):
    with publish(in_mid_run(proxy, status)) as callback:
        report = run_through(callback, scan_documents())
        assert (report.exit_status, report.spooled) == ("fail", False)
        assert str(status) in report.reason
        proxy.mode = "pass"
        docs = scan_documents()
        check_final(client, run_through(callback, docs), docs)


def test_409_a_run_that_is_there_is_never_written_over(publish, client):
    docs = scan_documents()

    def be_quicker(name, doc):
        if name == "start":
            TiledPublisher(client)("start", {**doc, "sample": "of somebody else"})

    with publish(be_quicker) as callback:
        report = run_through(callback, docs)
    assert report.exit_status == "fail"
    assert "in the catalog already" in report.reason
    assert client[report.derived_uid].metadata["start"]["sample"] == "of somebody else"


def test_expired_key_is_renewed_and_nothing_is_lost(catalog, client, tmp_path, monkeypatch):
    """By name of the server, as a worker connects: the key comes from the environment."""
    monkeypatch.setenv("TILED_API_KEY", "0123456789abcdef")
    docs = scan_documents()
    with TomoGANCallback(
        catalog.uri,
        None,
        publishing=PublishingConfig(directory=catalog.volumes, spool=tmp_path / "spool"),
        worker="thread",
    ) as callback:
        report = run_through(callback, docs)
        assert report.spooled
        assert "TILED_API_KEY" in report.reason
        assert "0123456789abcdef" not in report.reason
        monkeypatch.setenv("TILED_API_KEY", catalog.api_key)
        wait_for("courier")
    check_final(client, report, docs)
