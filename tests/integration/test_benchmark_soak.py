"""The soak works, and sees what grows."""

import json
import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "soak.py"


def test_a_short_soak(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [str(SCRIPT), "--quick", "--json", "--worker", "thread"])
    assert runpy.run_path(str(SCRIPT))["main"]() == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    keys = {"benchmark", "case", "method", "metric", "value", "unit"}
    assert all(set(row) == keys for row in rows)
    found = {row["metric"]: row["value"] for row in rows if row["method"] == "parent"}
    assert (found["runs"], found["scans that raised"], found["derived runs that failed"]) == (
        6,
        0,
        0,
    )


def test_what_grows_is_named():
    script = runpy.run_path(str(SCRIPT))
    soak = script["Soak"].__new__(script["Soak"])
    soak.n_raised = soak.n_failed = 0
    runs = range(10, 1010, 10)
    soak.readings = {
        ("parent", "memory"): [(n, 5e5 + 20 * n) for n in runs],
        ("worker", "memory"): [(n, 5e5 + 900 * (n % 20)) for n in runs],
        ("parent", "files"): [(n, 12 + n // 10) for n in runs],
        ("parent", "threads"): [(n, 20) for n in runs],
    }
    assert soak.growth("parent", "memory") == pytest.approx(20)
    named = script["verdict"](soak)
    assert len(named) == 2
    assert "memory of the parent" in named[0]
    assert "files of the parent" in named[1]
