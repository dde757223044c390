import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tomogan_bluesky.config import PreprocessingConfig, ReconstructionConfig
from tomogan_bluesky.errors import ConfigurationError
from tomogan_bluesky.geometry import ScanGeometry
from tomogan_bluesky.pipeline.memory import plan_memory
from tomogan_bluesky.pipeline.slabs import SlabPipeline
from tomogan_bluesky.recon.preprocess import Fields, Preprocessing

LARGE = (1500, 2048, 2048)
GIB = 1 << 30


def plan(shape=LARGE, bound_gib=16.0, rows=None, in_files=True, **options):
    steps = PreprocessingConfig(**options.pop("steps", {}))
    config = ReconstructionConfig(preprocessing=steps, **options)
    dark = np.zeros(shape[1:], np.float32)
    fields = Fields(dark, dark[None] + 1, np.ones((shape[0], 1), np.float32))
    preprocess = Preprocessing(steps, fields, 1e-6)
    return plan_memory(
        shape,
        np.dtype(np.uint16),
        1,
        config,
        preprocess,
        rows or (0, preprocess.n_rows),
        bound_gib,
        n_columns=shape[2] // steps.binning,
        in_files=in_files,
    )


def test_a_large_scan_keeps_to_the_bound_and_uses_what_there_is():
    for bound in (3.0, 4.0, 12.0):
        made = plan(bound_gib=bound)
        assert made.slab_rows == 8
        assert 0.9 * bound < made.total_gib <= bound


def test_slabs_become_smaller_before_a_scan_is_refused():
    small = plan(bound_gib=3.0, slab_rows=64)
    assert 1 <= small.slab_rows < 64
    assert small.total_gib <= 3.0
    with pytest.raises(ConfigurationError, match=r"within 1 GiB, but they take 1\.[4-6].*binning"):
        plan(bound_gib=1.0)


def test_binning_and_less_to_do_take_less():
    def at_least(**options):
        return sum(size for part, size in plan(**options).parts.items() if "files" not in part)

    whole = at_least()
    assert at_least(steps={"binning": 2}) < 0.7 * whole
    assert at_least(steps={"stripes": {"method": "sorting"}}) > whole
    assert at_least(method="tv") > 1.3 * at_least(method="sirt") > 1.3 * whole
    assert at_least(method="fbp", slab_rows=32) > at_least(method="fbp") + GIB
    phase = {"pixel_size_um": 1.0, "distance_mm": 100.0, "energy_kev": 20.0}
    assert at_least(steps={"phase": phase}) > 2 * whole


def test_a_small_part_of_the_rows_is_read_at_once():
    made = plan(rows=(100, 132))
    assert made.parts["frames from files"] == 32 * 1500 * 2048 * 2
    assert plan(in_files=False).parts["frames from files"] == 0


def test_the_pipeline_takes_the_slabs_of_the_plan():
    shape = (1500, 16, 2048)
    dark = np.zeros(shape[1:], np.float32)
    fields = Fields(dark, dark[None] + 1, np.ones((1500, 1), np.float32))
    geometry = ScanGeometry(np.arange(1500) * np.pi / 1500, 1000.0, 2048)
    config = ReconstructionConfig(slab_rows=16)
    pipeline = SlabPipeline(geometry, config, None, fields)
    assert pipeline.cuts(0, 16) == [(0, 16)]
    pipeline.keep_within(1.9, shape, np.dtype(np.uint16), (0, 16), in_files=False)
    assert len(pipeline.cuts(0, 16)) > 1


_GRIDREC = """
import numpy as np, torch
from tomogan_bluesky.geometry import ScanGeometry
from tomogan_bluesky.recon.gridrec import Gridrec

def now(key):
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))

def scan(n_angles, n_columns):
    geometry = ScanGeometry(np.arange(n_angles) * np.pi / n_angles, n_columns / 2, n_columns)
    sinograms = torch.rand(8, n_angles, n_columns)
    before = now("VmRSS")
    slices = Gridrec(geometry)(sinograms)
    return now("VmHWM") - before - slices.nbytes

scan(9, 16)  # what is loaded at the first use
print(scan(3000, 256))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
def test_many_angles_take_no_more_than_is_predicted_while_their_tables_are_made():
    done = subprocess.run(
        [sys.executable, "-c", _GRIDREC], capture_output=True, text=True, check=True, timeout=120
    )
    predicted = plan((3000, 8, 256)).parts["reconstruction"]
    assert 0.5 * predicted < int(done.stdout) < 1.1 * predicted


def test_the_benchmark_measures_no_more_than_is_predicted():
    """A stand-in for the large scan, which the same command takes without --quick."""
    benchmark = Path(__file__).resolve().parents[3] / "benchmarks" / "memory.py"
    done = subprocess.run(
        [sys.executable, benchmark, "--quick", "--json"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    peak = {row["method"]: row["value"] for row in rows if row["metric"] == "peak"}
    assert 0 < peak["measured"] < 1.2 * peak["predicted"]
