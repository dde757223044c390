"""The benchmarks of the worker process run: what they must not find, not how fast anything is."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def rows_of(name, *options):
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), "--json", *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_worker_that_is_killed_at_random_instants_loses_and_leaves_nothing():
    rows = rows_of("kill", "--quick")  # five kills
    values = {row["metric"]: row["value"] for row in rows}
    assert values["kills"] >= 1
    assert {metric: value for metric, value in values.items() if value and "wrong" in metric} == {}


def test_the_overhead_of_the_callback_is_measured_beside_none():
    rows = rows_of("re_overhead", "--quick", "--cases", "small", "overload")
    assert {row["method"] for row in rows} == {
        "process",
        "thread",
        "BufferingWrapper",
        "nothing",
        "synchronous",
    }
    assert all(row["value"] >= 0 for row in rows)


def test_a_tiled_that_is_away_while_scans_go_on_loses_nothing():
    rows = rows_of("outage", "--quick", "--cases", "publishing")
    values = {row["metric"]: row["value"] for row in rows}
    assert values["scans meanwhile"] > 0
    assert values["derived runs that waited"] > 0


def test_what_serve_is_fed_by_is_used_again():
    rows = rows_of("outage", "--quick", "--cases", "zmq")
    values = {row["metric"]: row["value"] for row in rows}
    assert values["kills"] == 1
    assert values["used again after, longest"] > 0


def test_publishing_is_measured_beside_plain_files_and_plain_http():
    rows = rows_of("publish", "--quick")
    rates = {row["method"]: row["value"] for row in rows if row["metric"] == "rate"}
    assert rates.keys() == {"h5py", "tomogan_bluesky", "write_array", "patch"}
    assert all(row["value"] >= 0 for row in rows)
    assert {"visible", "readable", "ratio to h5py"} <= {row["metric"] for row in rows}


def test_the_way_from_the_last_projection_to_slices_is_measured():
    rows = rows_of("live", "--quick", "--devices", "cpu")
    values = {row["metric"]: row["value"] for row in rows}
    assert values.keys() == {"first preview", "first slice", "last slice", "sustained"}
    assert all(value > 0 for value in values.values())  # and not nan: all have come
