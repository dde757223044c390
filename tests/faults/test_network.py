"""A network and a server that fail: nothing is lost, nothing is there twice, and it is said."""

import threading

import httpx
import numpy as np
import pytest
import stamina
from proxy import Proxy
from scans import scan_documents
from tiled.client import from_uri

from tomogan_bluesky import PublishingConfig, ReconstructionConfig, TomoGANCallback
from tomogan_bluesky.publish import catalog as catalog_module
from tomogan_bluesky.publish import courier
from tomogan_bluesky.publish.catalog import attempts
from tomogan_bluesky.publish.spool import Spool

# Everything that makes a server one that is away for now.
AWAY = ["refuse", "freeze", "garbage", 401, 403, 429, 500, 503]


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Give up at the first failure, instead of after 45 s; look again soon."""
    monkeypatch.setattr(courier, "LOOK_EVERY", 0.1)
    monkeypatch.setattr(catalog_module, "_ANSWER_WITHIN", 0.5)
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
        proxy.uri, api_key=catalog.api_key, trust_env=False, timeout=httpx.Timeout(1.0)
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
        )

    return make


def run_through(callback, docs):
    for name, doc in docs:
        callback(name, doc)
    (report,) = callback.wait(60)
    return report


def wait_for_courier():
    """Until everything that waited has been brought."""
    for thread in threading.enumerate():
        if thread.name == "tomogan-courier":
            thread.join(30)
            assert not thread.is_alive(), "what waits was not brought"


def truth(docs):
    seen = []
    with TomoGANCallback(lambda *item: seen.append(item), None) as callback:
        run_through(callback, docs)
    return np.stack([doc["data"]["reconstruction"] for name, doc in seen if name == "event"])


def check_final(client, report, docs):
    """One final version, whole, to the bit, and nothing beside it."""
    start = client[report.derived_uid].metadata["start"]
    known = attempts(client, start["derivation"])
    assert [(a.uid, a.exit_status) for a in known] == [(report.derived_uid, "success")]
    stream = client[report.derived_uid]["primary"]
    np.testing.assert_array_equal(stream["reconstruction"].read(), truth(docs))
    assert stream["detector_row"].read().tolist() == [0, 1, 2]


def in_mid_run(proxy, mode, when="event_page"):
    """Changes the network when the first document of a kind is on its way."""
    done = []

    def change(name, doc):
        if name == when and not done:
            done.append(True)
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
        wait_for_courier()
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
        wait_for_courier()
        check_final(client, report, docs)
    assert Spool(tmp_path / "spool", 1).waiting() == []
