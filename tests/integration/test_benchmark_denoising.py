"""`benchmarks/denoising.py` runs: what it finds is not looked at here."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "denoising.py"


def test_quick(tmp_path):
    picture = tmp_path / "picture.png"
    words = ["--quick", "--json", "--method", "Gaussian", "median", "--picture", str(picture)]
    command = [sys.executable, str(BENCHMARK), *words, "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(
        {"benchmark", "case", "method", "metric", "value", "unit"} <= row.keys() for row in rows
    )
    methods = {row["method"] for row in rows}
    assert {"noisy", "Gaussian, best sigma", "median, best size"} < methods
    assert any(row["metric"].startswith("goal: ") for row in rows)
    assert picture.stat().st_size > 10_000
