"""Derived runs in a Tiled server: written slab by slab, read meanwhile, found, removed."""

import hashlib
import json
import subprocess
import sys
from uuid import uuid4

import event_model
import h5py
import numpy as np
import pytest
from tiled.client.context import Context

from tomogan_bluesky.config import PublishingConfig
from tomogan_bluesky.errors import PublishError, ServerAwayError
from tomogan_bluesky.publish.catalog import Attempt, attempts, derived_runs, find_run, next_scan_id
from tomogan_bluesky.publish.connection import connect
from tomogan_bluesky.publish.documents import DerivedRun
from tomogan_bluesky.publish.identity import derivation_of
from tomogan_bluesky.publish.removal import remove_derived_run
from tomogan_bluesky.publish.server import serve_catalog
from tomogan_bluesky.publish.tiled_publisher import TiledPublisher

SHAPE = (5, 24, 20)
QUANTITIES = ("reconstruction", "denoised")
ACCOUNT = {"expected": 9, "used": 8, "superseded": 0, "missing": 0, "rejected": {"NaN": 1}}


def volumes(seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=SHAPE).astype("f4") for name in QUANTITIES}


def derived(publish, raw=None, attempt=1, directory=None, **metadata):
    raw = raw or {"uid": str(uuid4())}
    derivation = derivation_of(raw["uid"], "settings", "model")
    config = PublishingConfig(directory=directory)
    return DerivedRun(
        publish, raw, derivation=derivation, attempt=attempt, metadata=metadata, config=config
    )


def write(run, stored, first, last):
    slab = {name: volume[first:last] for name, volume in stored.items()}
    run.write_slab(first, slab, {"detector_row": list(range(first, last))})


def publish_whole(publish, exit_status="success", **options):
    run = derived(publish, **{"slab_rows": 5, **options})
    run.start()
    run.open_volume(SHAPE, QUANTITIES, scalars=("detector_row",))
    write(run, volumes(), 0, 5)
    run.stop(exit_status, "", ACCOUNT)
    return run


def publish_empty(publish, exit_status="success", **options):
    """A derived run without slices, which is quicker."""
    run = derived(publish, **options)
    run.start()
    run.stop(exit_status, "no flats", ACCOUNT)
    return run


def publish_raw(client, **metadata):
    """A raw run of no frames."""
    run = event_model.compose_run(metadata={"plan_name": "tomo_scan", **metadata})
    publish = TiledPublisher(client)
    publish("start", run.start_doc)
    publish("stop", run.compose_stop())
    return run.start_doc


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


# Another process that looks when it is told to ------------------------------------------------

_LOOK = """
import hashlib, json, sys
from tiled.client import from_uri
client = from_uri(sys.argv[1])
for uid in map(str.strip, sys.stdin):
    stream = client[uid]["primary"]
    seen = {"rows": stream["detector_row"].read().tolist()}
    for name in ("reconstruction", "denoised"):
        array = stream[name].read()
        seen[name] = [list(array.shape), str(array.dtype),
                      hashlib.sha256(array.tobytes()).hexdigest()]
    print(json.dumps(seen), flush=True)
"""


@pytest.fixture(scope="module")
def look(catalog):
    """Ask a plain Tiled client in another process, without a key, what it sees of a run."""
    process = subprocess.Popen(
        [sys.executable, "-c", _LOOK, catalog.uri],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:

        def look(uid):
            process.stdin.write(f"{uid}\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield look
        process.stdin.close()


@pytest.mark.parametrize(("where", "slab_rows"), [("file", 2), ("file", None), ("events", 2)])
def test_every_slab_is_readable_elsewhere_before_the_next_one_is_made(
    catalog, client, look, where, slab_rows
):
    stored = volumes()
    directory = catalog.volumes if where == "file" else None
    run = derived(TiledPublisher(client), directory=directory, slab_rows=slab_rows)
    run.start()
    run.open_volume(SHAPE, QUANTITIES, scalars=("detector_row",))
    for first, last in ((0, 2), (2, 4)):
        write(run, stored, first, last)
        seen = look(run.uid)  # nothing goes on until the other process has answered
        assert seen["rows"] == list(range(last))
        for name in QUANTITIES:
            assert seen[name] == [[last, 24, 20], "float32", digest(stored[name][:last])]
    write(run, stored, 4, 5)
    run.stop("success", "", ACCOUNT)
    seen = look(run.uid)
    for name in QUANTITIES:
        assert seen[name] == [[5, 24, 20], "float32", digest(stored[name])]


@pytest.mark.parametrize("where", ["file", "events"])
def test_a_derived_run_comes_back_as_valid_documents(catalog, client, where):
    directory = catalog.volumes if where == "file" else None
    run = publish_whole(TiledPublisher(client), directory=directory, slab_rows=8)
    exported = list(client[run.uid].documents())
    for name, doc in exported:
        event_model.schema_validators[event_model.DocumentNames[name]].validate(doc)
    names = [name for name, _ in exported]
    assert (names[0], names[1], names[-1]) == ("start", "descriptor", "stop")
    assert names.count("event") == 5
    assert names.count("stream_datum") == (2 if where == "file" else 0)
    assert exported[-1][1]["tomogan_frames"]["rejected"] == [{"reason": "NaN", "frames": 1}]
    assert client[run.uid].validate(write_notes=False)
    assert client[run.uid].metadata["start"]["original_run_uid"]
    keys = client[run.uid]["primary"].metadata["data_keys"]
    assert keys["denoised"]["units"] == "1/pixel"


def test_a_volume_announced_at_the_end_reads_back(catalog, client):
    raw = {"uid": str(uuid4())}
    run = DerivedRun(
        TiledPublisher(client),
        raw,
        derivation=derivation_of(raw["uid"], "", ""),
        attempt=1,
        metadata={},
        config=PublishingConfig(directory=catalog.volumes, announce="at_end"),
    )
    run.start()
    run.open_volume(SHAPE, QUANTITIES, scalars=("detector_row",))
    write(run, volumes(), 0, 5)
    assert "primary" not in client[run.uid]
    run.stop("success", "", ACCOUNT)
    np.testing.assert_array_equal(client[run.uid]["primary"]["denoised"], volumes()["denoised"])


def test_a_scan_that_failed_is_a_run_without_streams(client):
    run = publish_empty(TiledPublisher(client), "fail")
    stored = client[run.uid]
    assert list(stored) == []
    assert stored.metadata["stop"]["exit_status"] == "fail"
    assert stored.metadata["stop"]["reason"] == "no flats"
    assert stored.metadata["stop"]["tomogan_frames"]["expected"] == 9


def test_runs_may_be_interleaved_and_leave_nothing_behind(catalog, client):
    publish = TiledPublisher(client)
    runs = [derived(publish, directory=catalog.volumes, slab_rows=3) for _ in range(2)]
    for run in runs:
        run.start()
        run.open_volume(SHAPE, QUANTITIES, scalars=("detector_row",))
    for first, last in ((0, 3), (3, 5)):
        for seed, run in enumerate(runs):
            write(run, volumes(seed), first, last)
    for run in runs:
        run.stop("success", "", ACCOUNT)
    for seed, run in enumerate(runs):
        stored = client[run.uid]["primary"]["denoised"].read()
        np.testing.assert_array_equal(stored, volumes(seed)["denoised"])
    assert not publish._writers
    assert not publish._run_of


def test_a_run_is_never_written_over(client):
    publish = TiledPublisher(client)
    run = publish_empty(publish)
    again = derived(publish, raw={"uid": client[run.uid].metadata["start"]["original_run_uid"]})
    assert again.uid == run.uid
    with pytest.raises(PublishError, match=r"'start' document.*409.*in the catalog already"):
        again.start()
    assert not publish._writers


# Finding runs ----------------------------------------------------------------------------------


def test_attempts_are_told_in_their_order(client):
    publish, raw = TiledPublisher(client), {"uid": str(uuid4())}
    failed = publish_empty(publish, "fail", raw=raw)
    done = publish_empty(publish, raw=raw, attempt=2)
    running = derived(publish, raw=raw, attempt=3)
    running.start()
    assert attempts(client, derivation_of(raw["uid"], "settings", "model")) == [
        Attempt(failed.uid, 1, "fail", False),
        Attempt(done.uid, 2, "success", True),
        Attempt(running.uid, 3, None, False),
    ]
    assert derived_runs(client, raw) == [failed.uid, done.uid, running.uid]
    assert attempts(client, str(uuid4())) == []
    assert derived_runs(client, {"uid": str(uuid4())}) == []


def test_runs_are_found_by_the_names_that_people_use(client):
    scan_id = 900_000  # other tests write into this catalog, with small numbers
    older = publish_raw(client, scan_id=scan_id)
    newest = publish_raw(client, scan_id=scan_id + 1)
    run = publish_empty(TiledPublisher(client), raw={**newest, "sample": "tooth"})
    folder = client.create_container(f"no run {uuid4()}")  # which a catalog may hold, too
    for name, uid in {
        older["uid"]: older["uid"],
        newest["uid"][:13]: newest["uid"],
        run.uid[:13]: run.uid,  # derived runs are found by their uid alone
        str(scan_id): older["uid"],
        scan_id + 1: newest["uid"],
        "-1": newest["uid"],
        -2: older["uid"],
    }.items():
        assert find_run(client, name).metadata["start"]["uid"] == uid, name
    assert next_scan_id(client) == scan_id + 2
    folder.delete()


def test_a_name_of_several_runs_is_refused_with_the_candidates(client):
    uids = [f"ambiguous-{uuid4()}" for _ in range(2)]
    for uid in uids:
        run = event_model.compose_run(uid=uid, metadata={"sample": {"name": "walnut"}})
        TiledPublisher(client)("start", run.start_doc)
    with pytest.raises(PublishError, match="expected one run, got 2: .*walnut") as caught:
        find_run(client, "ambiguous")
    assert all(uid in str(caught.value) for uid in uids)


@pytest.mark.parametrize("name", ["zzzzzz", "987654321", "-987654"])
def test_a_name_of_no_run_is_refused_with_what_there_is(client, name):
    newest = publish_raw(client, sample="walnut")
    with pytest.raises(PublishError, match="got none; there is .*walnut") as caught:
        find_run(client, name)
    assert newest["uid"] in str(caught.value)


@pytest.mark.parametrize("name", ["", "a b", "50%", "../x", "-0", "-abc", "_"])
def test_what_can_be_no_name_of_a_run_is_refused(client, name):
    with pytest.raises(PublishError, match="expected"):
        find_run(client, name)


# Removing runs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["file", "events"])
def test_removing_a_derived_run_removes_its_slices(catalog, client, where):
    directory = catalog.volumes if where == "file" else None
    run = publish_whole(TiledPublisher(client), directory=directory)
    other = publish_whole(TiledPublisher(client), directory=directory)
    assert remove_derived_run(client, run.uid) == run.volume_path
    assert run.uid not in client
    assert run.volume_path is None or not run.volume_path.exists()
    np.testing.assert_array_equal(client[other.uid]["primary"]["denoised"], volumes()["denoised"])


def test_a_run_whose_file_is_gone_can_be_removed(catalog, client):
    run = publish_whole(TiledPublisher(client), directory=catalog.volumes)
    run.volume_path.unlink()
    assert remove_derived_run(client, run.uid) is None
    assert run.uid not in client


def test_a_failed_run_can_be_removed(client):
    run = publish_empty(TiledPublisher(client), "fail")
    assert remove_derived_run(client, run.uid) is None
    assert run.uid not in client


def test_runs_that_are_not_ours_are_left_alone(client):
    raw = publish_raw(client)
    foreign = publish_raw(client, original_run_uid=raw["uid"])  # of another analysis
    for uid in (raw["uid"], foreign["uid"]):
        with pytest.raises(PublishError, match="expected a run that tomogan_bluesky derived"):
            remove_derived_run(client, uid)
        assert uid in client


@pytest.mark.parametrize("content", ["another run's", "text"])
def test_a_file_that_is_not_ours_is_left_alone(catalog, client, content):
    run = publish_whole(TiledPublisher(client), directory=catalog.volumes)
    if content == "text":
        run.volume_path.write_text("somebody's")
    else:
        with h5py.File(run.volume_path, "r+") as file:
            file.attrs["derived_run_uid"] = "another"
    with pytest.raises(PublishError, match="did not write for this run is left alone"):
        remove_derived_run(client, run.uid)
    assert run.uid in client
    assert run.volume_path.exists()


# Connections -----------------------------------------------------------------------------------


def test_a_client_is_taken_as_it_is(client):
    assert connect(client) is client


def test_an_address_is_enough_to_read(catalog):
    reader = connect(catalog.uri)
    try:
        assert type(reader).__name__ == "CatalogOfBlueskyRuns"
        with pytest.raises(PublishError, match="TILED_API_KEY is a key that may"):
            derived(TiledPublisher(reader)).start()
    finally:
        reader.context.close()


def test_the_key_comes_from_the_environment(catalog, monkeypatch):
    monkeypatch.setenv("TILED_API_KEY", catalog.api_key)
    writer = connect(catalog.uri)
    try:
        derived(TiledPublisher(writer)).start()
    finally:
        writer.context.close()


def test_a_wrong_key_is_refused_and_not_told(catalog, monkeypatch):
    monkeypatch.setenv("TILED_API_KEY", "a5ecre7")
    with pytest.raises(PublishError, match="TILED_API_KEY is a key of it") as caught:
        connect(catalog.uri)
    assert "a5ecre7" not in str(caught.value)


def test_a_missing_key_is_asked_for_by_its_name(tmp_path, monkeypatch):
    monkeypatch.delenv("TILED_API_KEY", raising=False)
    with serve_catalog(tmp_path, anonymous=False) as server:
        with pytest.raises(ServerAwayError, match="into the environment as TILED_API_KEY"):
            connect(server.uri)
        monkeypatch.setenv("TILED_API_KEY", server.api_key)
        connect(server.uri).context.close()


def test_a_key_in_an_address_is_refused_and_not_told(catalog):
    with pytest.raises(PublishError, match="environment as TILED_API_KEY") as caught:
        connect(f"{catalog.uri}?api_key=a5ecre7")
    assert "a5ecre7" not in str(caught.value)


def test_a_server_that_is_down_is_told_at_once(monkeypatch):
    # Tiled's client would try for half a minute, and so is not asked.
    monkeypatch.setattr(Context, "from_any_uri", pytest.fail)
    with pytest.raises(PublishError, match=r"http://127\.0\.0\.1:9: .* to answer, got Connect"):
        connect("http://127.0.0.1:9")


def test_an_unknown_profile_is_told_with_those_that_there_are():
    with pytest.raises(PublishError, match="'no-such-profile': expected .* profiles here: "):
        connect("no-such-profile")
