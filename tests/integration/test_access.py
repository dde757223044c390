"""A derived run is never more public than its raw run: a real server with users and access tags."""

import subprocess
import sys

import httpx
import pytest
from scans import scan_documents
from tiled.client import from_uri

from tomogan_bluesky import TomoGANCallback, replay
from tomogan_bluesky.publish.tiled_publisher import TiledPublisher

# Two beamlines' people, one of whom ("instrument") publishes for both. Nobody sees without a tag.
_SERVE = """
import asyncio, sys
from pathlib import Path
from tiled.access_control.access_tags import AccessTagsCompiler
from tiled.access_control.scopes import ALL_SCOPES
from tiled.server.app import build_app_from_config
from tiled.server.settings import DatabaseSettings
from tomogan_bluesky.publish.database import make_database
from tomogan_bluesky.publish.server_app import serving

folder = Path(sys.argv[1])
make_database(folder / "catalog.db")
catalog = f"sqlite:///{folder / 'catalog.db'}"
app = build_app_from_config({
    "authentication": {
        "providers": [{
            "provider": "toy",
            "authenticator": "tiled.authenticators:DictionaryAuthenticator",
            "args": {"users_to_passwords": {n: n for n in ("instrument", "alice", "bob")}},
        }],
        "allow_anonymous_access": True,
        "secret_keys": ["a" * 64],
    },
    "database": {"uri": f"sqlite:///{folder / 'users.db'}", "init_if_not_exists": True},
    "access_control": {
        "access_policy": "tiled.access_control.access_policies:TagBasedAccessPolicy",
        "args": {
            "provider": "toy",
            "access_tags_parser": "tiled.access_control.access_tags:AccessTagsParser",
        },
    },
    "trees": [{
        "path": "/", "tree": "catalog",
        "args": {
            "uri": catalog,
            "writable_storage": [str(folder / "data"), f"sqlite:///{folder / 'tables.db'}"],
            "readable_storage": [str(folder)],
            "specs": [{"name": "CatalogOfBlueskyRuns", "version": "3.0"}],
            "top_level_access_tags": ["beamline"],
        },
    }],
    "media_types": {"BlueskyRun": {
        "application/json-seq": "bluesky_tiled_plugins.exporters:json_seq_exporter"}},
})
everything = [scope.value for scope in ALL_SCOPES if "apikeys" not in scope.value]
see = ["read:metadata", "read:data"]
def role(user, scopes):
    return {"name": user, "scopes": scopes}
tags = {
    "beamline": {"users": [role("instrument", everything), role("alice", see), role("bob", see)]},
    "proposal-1": {"users": [role("instrument", everything), role("alice", see)]},
}
compiler = AccessTagsCompiler(
    {scope.value: {} for scope in ALL_SCOPES},
    {"tags": tags, "tag_owners": {tag: {"users": [{"name": "instrument"}]} for tag in tags}},
    DatabaseSettings(uri=catalog), lambda group: [],
)
with serving(app, "127.0.0.1", 0) as uri:
    compiler.load_tag_config()
    asyncio.run(compiler.compile())
    print(uri, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Address and folder of a server that knows users, in a process of its own."""
    folder = tmp_path_factory.mktemp("access")
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        yield process.stdout.readline().strip(), folder
        process.stdin.close()


def key_of(uri, user):
    login = httpx.post(
        f"{uri}/api/v1/auth/provider/toy/token", data={"username": user, "password": user}
    ).raise_for_status()
    made = httpx.post(
        f"{uri}/api/v1/auth/apikey",
        json={"expires_in": 3600, "scopes": ["inherit"]},
        headers={"Authorization": f"Bearer {login.json()['access_token']}"},
    ).raise_for_status()
    return made.json()["secret"]


@pytest.fixture(scope="module")
def as_user(server):
    """Clients of the users, by name."""
    clients = {
        user: from_uri(server[0], api_key=key_of(server[0], user))
        for user in ("instrument", "alice", "bob")
    }
    yield clients
    for client in clients.values():
        client.context.close()


def publish_raw(client, **md):
    docs = scan_documents(md=md)
    publish = TiledPublisher(client)
    for name, doc in docs:
        publish(name, dict(doc))
    return docs


def derive(client, docs):
    """With the slices in the events: users of this server have no right to register files."""
    with TomoGANCallback(client, None, worker="thread") as callback:
        (report,) = replay(docs, callback)
    assert not report.spooled, report.reason
    return report


def who_sees(clients, uid):
    return {name for name, client in clients.items() if uid in client}


def test_a_derived_run_is_seen_by_those_who_see_the_raw_one(as_user, caplog):
    """Live, and although the tags are no longer in the documents that come out of Tiled."""
    instrument = as_user["instrument"]
    docs = publish_raw(instrument, tiled_access_tags=["proposal-1"])
    raw_uid = docs[0][1]["uid"]
    assert who_sees(as_user, raw_uid) == {"instrument", "alice"}
    stored = instrument[raw_uid]
    assert "tiled_access_tags" not in stored.metadata["start"]

    live = derive(instrument, docs)
    assert live.exit_status == "success", live.reason
    assert who_sees(as_user, live.derived_uid) == {"instrument", "alice"}
    assert as_user["alice"][live.derived_uid]["primary"]["reconstruction"].shape == (3, 32, 32)

    replayed = derive(instrument, stored)
    assert replayed.already_done
    for secret in (instrument.context.api_key, "Apikey"):
        assert secret not in caplog.text
        assert secret not in repr(instrument[live.derived_uid].metadata)


def test_who_may_see_the_raw_run_later_decides_on_replay(as_user):
    """The tags of the node count, and not those that were once in the start document."""
    instrument = as_user["instrument"]
    docs = publish_raw(instrument, tiled_access_tags=["beamline"])
    raw = instrument[docs[0][1]["uid"]]
    raw.replace_metadata(access_tags=["proposal-1"])  # an embargo
    report = derive(instrument, docs)  # the documents still say "beamline"
    assert report.exit_status == "success", report.reason
    assert who_sees(as_user, report.derived_uid) == {"instrument", "alice"}


def test_a_raw_run_of_ours_alone_stays_so(as_user):
    docs = publish_raw(as_user["instrument"])
    report = derive(as_user["instrument"], docs)
    assert report.exit_status == "success", report.reason
    assert who_sees(as_user, report.derived_uid) == {"instrument"}


def test_nothing_is_published_more_openly(as_user, client):
    """A server that knows no tags would show the run to everybody: it gets nothing."""
    docs = publish_raw(as_user["instrument"], tiled_access_tags=["proposal-1"])
    raw = as_user["instrument"][docs[0][1]["uid"]]
    report = derive(client, raw)
    assert report.exit_status == "fail"
    assert "would show it to everybody" in report.reason
    assert report.derived_uid is None
    assert [
        uid
        for uid in client
        if client[uid].metadata["start"].get("original_run_uid") == docs[0][1]["uid"]
    ] == []
