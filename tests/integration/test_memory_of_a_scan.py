"""A fly scan that is larger than the memory it may take, previewed while its file grows."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

# A file of 0.94 GiB grows, and the callback in the same process takes in what is said of it.
_SCAN = """
import json, sys, threading
from pathlib import Path
import event_model, numpy as np
from tomogan_bluesky import (
    LiveConfig, PreprocessingConfig, PublishingConfig, ReconstructionConfig, ScanConfig,
    TomoGANCallback,
)
from tomogan_bluesky.intake.uris import file_uri
from tomogan_bluesky.sim.growing_file import GrowingFile

folder, bound_gib = Path(sys.argv[1]), float(sys.argv[2])
ANGLES, ROWS, COLUMNS, FLUSH = 480, 2048, 512, 60
frame = np.random.default_rng(0).integers(20_000, 40_000, (ROWS, COLUMNS)).astype(np.uint16)
previewed, during = threading.Event(), []


def publish(name, doc):
    if name == "descriptor" and doc["name"] == "preview":
        previewed.set()


def key(shape, **more):
    return {"source": "x", "dtype": "array" if shape else "number", "shape": shape, **more}


run = event_model.compose_run(
    metadata={"first_deg": 0.0, "last_deg": 180.0, "num_projections": ANGLES}
)
stream = run.compose_descriptor(
    name="primary",
    data_keys={"camera": key([1, ROWS, COLUMNS], dtype_numpy="<u2", external="STREAM:")},
    object_keys={},
)
file = GrowingFile(folder / "scan.h5", {"camera": ((ROWS, COLUMNS), np.uint16)})
resource = run.compose_stream_resource(
    mimetype="application/x-hdf5", uri=file_uri(file.path), data_key="camera",
    parameters={"dataset": "camera", "chunk_shape": file.chunk_shape("camera")},
)
with TomoGANCallback(
    publish,
    None,
    scan=ScanConfig(
        flat="none", start_angles=("first_deg", "last_deg"), angle_units="deg", memory_gib=bound_gib
    ),
    live=LiveConfig(incremental=False, preview_every=60),
    reconstruction=ReconstructionConfig(
        rotation_centre=255.5, preprocessing=PreprocessingConfig(binning=2)
    ),
    publishing=PublishingConfig(directory=folder),
    worker="thread",
) as callback:
    callback("start", run.start_doc)
    callback("descriptor", stream.descriptor_doc)
    callback("stream_resource", resource.stream_resource_doc)
    for first in range(0, ANGLES, FLUSH):
        for _ in range(FLUSH):
            file.append({"camera": frame})
        datum = resource.compose_stream_datum(
            indices={"start": first, "stop": first + FLUSH},
            seq_nums={"start": first + 1, "stop": first + FLUSH + 1},
            descriptor=stream.descriptor_doc,
        )
        callback("stream_datum", datum)
        if first == ANGLES // 2:
            assert previewed.wait(60), "nothing was made of half the scan"
    callback("stop", run.compose_stop())
    file.close()
    (report,) = callback.wait(100)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print("found:" + json.dumps({
    "status": report.exit_status, "reason": report.reason, "slices": report.n_slices,
    "used": report.frames.used, "peak_gib": int(status["VmHWM"].split()[0]) / 2**20,
}))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
def test_a_scan_larger_than_its_bound_stays_below_it_and_is_previewed_before_it_ends(tmp_path):
    bound_gib = 0.85
    done = subprocess.run(
        [sys.executable, "-c", _SCAN, str(tmp_path), str(bound_gib)],
        capture_output=True,
        text=True,
        timeout=110,
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("found:")]
    assert found, done.stdout + done.stderr
    scan = json.loads(found[0].removeprefix("found:"))
    assert (scan["status"], scan["slices"], scan["used"]) == ("success", 1024, 480), scan["reason"]
    assert (tmp_path / "scan.h5").stat().st_size > bound_gib * 2**30
    assert scan["peak_gib"] < bound_gib, scan
