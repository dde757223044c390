"""`benchmarks/denoising.py`, `checks.py` and `loader.py` run: figures are not looked at here."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def run(script, *words):
    """What a benchmark prints, row by row."""
    command = [sys.executable, str(BENCHMARKS / script), "--quick", "--json", *words]
    done = subprocess.run([*command, "--threads", "1"], capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    keys = {"benchmark", "case", "method", "metric", "value", "unit"}
    assert all(keys <= row.keys() for row in rows)
    return rows


def test_denoising(tmp_path):
    picture = tmp_path / "picture.png"
    words = ["--linear", "--method", "Gaussian", "median", "--picture", str(picture)]
    rows = run("denoising.py", *words)
    methods = {row["method"] for row in rows}
    assert {"noisy", "Gaussian, best sigma", "median, best size"} < methods
    goals = {row["case"] for row in rows if row["metric"].startswith("goal: ")}
    assert goals == {"256", "256-linear"}
    assert picture.stat().st_size > 10_000


def test_checks():
    found = {row["method"]: row["value"] for row in run("checks.py") if "remarked" in row["metric"]}
    assert found["disc made up"] == 1
    assert {"truth", "denoised", "blurred"} < set(found)


def test_loader(tmp_path):
    methods = {row["method"] for row in run("loader.py", "--folder", str(tmp_path))}
    assert methods - {"from disk"} == {"mapped", "in memory", "training"}
    assert list(tmp_path.iterdir()) == []
