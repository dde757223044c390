"""The benchmark of the intake works, and takes in every frame of every flavour."""

import json
import runpy
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "intake.py"


def test_every_flavour_is_measured_against_plain_reading(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [str(SCRIPT), "--quick", "--json"])
    main = runpy.run_path(str(SCRIPT))["main"]
    assert main() == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    keys = {"benchmark", "case", "method", "metric", "value", "unit"}
    assert all(set(row) == keys and row["value"] > 0 for row in rows)
    shares = [row["case"] for row in rows if row["metric"] == "share"]
    flavours = ("fly scan, HDF5", "area detector", "events", "event pages", "fly scan, TIFF")
    assert all(sum(case.startswith(flavour) for case in shares) == 1 for flavour in flavours)
