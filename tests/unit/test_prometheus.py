"""Reports as numbers on a page."""

import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tomogan_bluesky.errors import ConfigurationError
from tomogan_bluesky.intake.scan import FrameAccount
from tomogan_bluesky.metrics import Metrics
from tomogan_bluesky.report import RunReport
from tomogan_bluesky.worker.state import WorkerState


def page(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    families = text_string_to_metric_families(text)
    samples = (sample for family in families for sample in family.samples)
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


def test_reports_are_counted_and_gauges_are_asked():
    metrics = Metrics()
    waiting = [3]
    metrics.watch("waiting_documents", "…", lambda: waiting[0])
    states = [WorkerState(8, 2048, 0)]
    metrics.watch_worker(lambda: states[-1])
    for source in ("zmq", "tiled"):
        metrics.watch("connected", "…", lambda source=source: source == "zmq", source=source)
    account = FrameAccount(expected=10, used=7, superseded=0, missing=1, rejected={"NaN": 2})
    report = {"frames": account, "seconds": {"intake": 2.0}, "n_slices": 4, "lag_s": 3.0}
    metrics.record(RunReport("a", "b", "success", **report))
    metrics.record(RunReport("a", "b", "success", already_done=True))
    metrics.record(RunReport("c", "d", "fail", seconds={"intake": 1.5}))
    with metrics.served(0) as port:
        found = page(port)
        waiting[0] = 5
        states.append(WorkerState(0, 0, 1))
        again = page(port)
        with pytest.raises(ConfigurationError, match="name another port"), metrics.served(port):
            pass
    assert found["tomogan_runs_total", "success"] == 1
    assert found["tomogan_runs_total", "there already"] == 1
    assert found["tomogan_runs_total", "abort"] == 0
    assert found["tomogan_projections_total", "used"] == 7
    assert found["tomogan_projections_total", "rejected"] == 2
    assert found["tomogan_stage_seconds_total", "intake"] == 3.5
    assert found["tomogan_slices_total",] == 4
    assert found["tomogan_lag_seconds_sum",] == 3.0
    assert found["tomogan_lag_seconds_count",] == 1
    assert found["tomogan_connected", "zmq"] == 1
    assert found["tomogan_connected", "tiled"] == 0
    assert (found["tomogan_worker_waiting_documents",], found["tomogan_worker_waiting_bytes",]) == (
        8,
        2048,
    )
    assert again["tomogan_worker_waiting_documents",] == 0
    assert (found["tomogan_worker_restarts",], again["tomogan_worker_restarts",]) == (0, 1)
    assert (found["tomogan_waiting_documents",], again["tomogan_waiting_documents",]) == (3, 5)
