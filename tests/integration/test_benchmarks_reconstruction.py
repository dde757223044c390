"""The benchmarks of reconstruction and of GPUs run: how fast anything is is not looked at here."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tomogan_bluesky.geometry import ScanGeometry
from tomogan_bluesky.recon.gridrec import Gridrec

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    threads = torch.get_num_threads()

    def load(name, *arguments):
        spec = importlib.util.spec_from_file_location(
            f"benchmark_{name}", BENCHMARKS / f"{name}.py"
        )
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look for it there
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        spec.loader.exec_module(module)
        return module

    yield load
    torch.set_num_threads(threads)


def rows_of(output):
    return [json.loads(line) for line in output.splitlines()]


def test_reconstruction_names_and_skips_what_is_absent(load, monkeypatch, capsys):
    benchmark = load("reconstruction", "--quick", "--json", "--threads", "1")
    others = ("tomopy", "algotom", "skimage", "astra", "corrct")
    for name in others:

        def absent(geometry, rounds, name=name):
            raise ModuleNotFoundError(f"No module named {name!r}")

        absent.__name__ = name
        monkeypatch.setattr(benchmark, name, absent)
    assert benchmark.main() == 0
    output = capsys.readouterr()
    for name in others:
        assert f"skipped {name}: No module named {name!r}" in output.err
    rows = rows_of(output.out)
    assert {tuple(row) for row in rows} == {
        ("benchmark", "case", "method", "metric", "value", "unit")
    }
    decibels = {r["method"]: r["value"] for r in rows if r["metric"] == "foam"}
    assert len(decibels) == 5
    assert decibels["torch gridrec 1.5"] == pytest.approx(decibels["torch fbp"], abs=0.2)
    assert decibels["torch tv, 50 iterations"] > decibels["torch gridrec 1.5"] > 20


def test_gpu_says_that_there_is_none(load, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert load("gpu").main() == 0
    assert "no CUDA device" in capsys.readouterr().err


def test_gpu_measures_on_a_processor_and_a_failure_costs_one_row(load, monkeypatch, capsys):
    benchmark = load("gpu")
    bench = benchmark.Bench(torch.device("cpu"), 0.0, 60.0)
    geometry = ScanGeometry(np.arange(30) * np.pi / 30, 15.2, 32)
    methods = {row[1] for row in benchmark.fourier(bench, geometry)}
    assert methods == {"gridrec 1.5", "gridrec 1.5, end-to-end"}
    reconstruct = Gridrec(geometry, "shepp")
    conveyor = benchmark.Conveyor(bench, reconstruct, 3)
    slabs = list(torch.randint(1000, 50000, (3, 3, 30, 32), dtype=torch.int32).to(torch.uint16))
    conveyor(slabs)
    for slab, slices in zip(slabs[1:], (conveyor.slices[1], conveyor.slices[0]), strict=True):
        wanted = reconstruct(-torch.log((slab.float() - 100) / 49900))
        torch.testing.assert_close(slices, wanted, rtol=1e-4, atol=1e-5)

    def broken(*args):
        raise RuntimeError("out of memory\nand more")

    monkeypatch.setattr(benchmark, "FBP", broken)
    methods = {row[1] for row in benchmark.on_device(bench, geometry)}
    assert methods == {"gridrec 1.25", "sirt, 20 iterations", "tv, 20 iterations"}
    assert "32x30, fbp: failed, RuntimeError: out of memory\n" in capsys.readouterr().err
    late = benchmark.Bench(torch.device("cpu"), 0.0, -1.0)
    assert not list(benchmark.fourier(late, geometry))
    assert "skipped, no time is left" in capsys.readouterr().err
