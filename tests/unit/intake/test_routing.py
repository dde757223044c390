"""Every document finds its run, and what a run needed for that goes with it."""

import tracemalloc

import pytest
from scans import scan_documents

from tomogan_bluesky.intake.routing import Routing


def test_interleaved_documents_find_their_runs():
    runs = [scan_documents(), scan_documents()]
    routing = Routing()
    for pair in zip(*runs, strict=True):
        for run, (name, doc) in zip(runs, pair, strict=True):
            assert routing.run_of(name, doc) == run[0][1]["uid"]


@pytest.mark.parametrize(
    ("name", "parent", "member"),
    [("resource", "resource", "datum"), ("descriptor", "descriptor", "stream_datum")],
)
def test_documents_of_assets_find_their_runs(name, parent, member):
    routing = Routing()
    assert routing.run_of(name, {"uid": "x", "run_start": "run"}) == "run"
    assert routing.run_of(member, {parent: "x"}) == "run"
    routing.forget("run")
    assert routing.run_of(member, {parent: "x"}) == "x"


def test_nothing_stays_of_runs_that_ended():
    routing = Routing()
    docs = scan_documents()

    def a_thousand_runs():
        for i in range(1000):
            for name, doc in docs[:8]:
                routing.run_of(name, {**doc, "run_start": f"run {i}"})
            routing.forget(f"run {i}")

    a_thousand_runs()
    tracemalloc.start()
    try:
        a_thousand_runs()
        assert tracemalloc.get_traced_memory()[0] < 20_000
    finally:
        tracemalloc.stop()
