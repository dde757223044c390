"""Many runs at once: here, and on a cluster of which a worker is killed in the middle."""

import json
import os
import signal
from uuid import uuid4

import pytest
from scans import disc_frames, scan_documents

from tomogan_bluesky.bulk import Order, find_runs, replay_on
from tomogan_bluesky.cli import main
from tomogan_bluesky.config import ReconstructionConfig, Settings
from tomogan_bluesky.errors import ConfigurationError
from tomogan_bluesky.publish.tiled_publisher import TiledPublisher

N = 4


@pytest.fixture(scope="module")
def batch(client):
    """A name that the start documents of some archived runs have, and of no others."""
    name = f"batch-{uuid4().hex[:8]}"
    publish = TiledPublisher(client)
    for number in range(N):
        md = {"sample": {"name": name, "number": number}}
        flats = 0 if number == 3 else 2  # that one will fail
        for pair in scan_documents(frames=disc_frames(7), md=md, flats=flats):
            publish(*pair)
    return name


def test_a_worker_that_is_killed_costs_no_run(catalog, client, batch):
    distributed = pytest.importorskip("dask.distributed")
    folder = str(catalog.directory)
    uids = find_runs(folder, [f"sample.name={batch}", "sample.number<=2"])
    assert len(uids) == 3
    assert find_runs(folder, [f"sample={batch}", "sample.number>=0", "sample.number<=2"]) == uids
    order = Order(folder, folder, None, Settings(reconstruction=ReconstructionConfig(slab_rows=1)))
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, env={"OMP_NUM_THREADS": "1"}
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as dask,
    ):
        pids = dask.run(os.getpid)
        outcomes = replay_on(dask, order, uids)
        done = [next(outcomes)]
        busy = next(address for address, tasks in dask.processing().items() if tasks)
        os.kill(pids[busy], signal.SIGKILL)
        done += outcomes
    assert sorted(outcome.raw_uid for outcome in done) == sorted(uids)
    for outcome in done:
        assert outcome.status in ("success", "there already"), outcome
        stops = [
            run.metadata["stop"]
            for run in client.values()
            if run.metadata["start"].get("original_run_uid") == outcome.raw_uid
        ]
        assert [stop["exit_status"] for stop in stops if stop].count("success") == 1


def test_runs_that_are_done_are_left_alone_and_failures_are_told(catalog, batch, capsys):
    order = ("replay", "--catalog", str(catalog.directory), "--model", "none")
    order += ("--query", f"sample.name={batch}")
    assert main([*order, "--query", "sample.number>=2", "--json"]) == 1
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [outcome["status"] for outcome in found] == ["success", "fail"]
    assert "flat" in found[1]["report"]["reason"]

    assert main([*order, "--query", "sample.number=2"]) == 0
    table = capsys.readouterr().out
    assert found[0]["report"]["derived_uid"] in table
    assert "1 there already" in table

    assert main([*order, "--query", "plan_name=nothing"]) == 0
    assert "no run answers" in capsys.readouterr().err


def test_orders_that_make_no_sense(catalog, capsys):
    folder = str(catalog.directory)
    for query in ("sample", "=7", ">=7"):
        with pytest.raises(ConfigurationError, match="expected KEY=VALUE"):
            find_runs(folder, [query])
    for wrong in (
        [],
        ["-1", "--query", "a=b"],
        ["--query", "a=b", "--dask", "x", "--workers", "2"],
    ):
        with pytest.raises(SystemExit) as caught:
            main(["replay", "--catalog", folder, *wrong])
        assert caught.value.code == 2
    capsys.readouterr()
