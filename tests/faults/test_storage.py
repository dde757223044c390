"""Disks that do not take the slices: the derived run fails and says why, and nothing else does."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import h5py
import pytest
from scans import disc_frames, scan_documents

from tomogan_bluesky import PublishingConfig, ReconstructionConfig, TomoGANCallback

HERE = Path(__file__).parent
SLABS = ReconstructionConfig(slab_rows=1)


def run_through(callback, docs):
    for name, doc in docs:
        callback(name, doc)
    (report,) = callback.wait(60)
    return report


def check_clear_failure(report, derived, *words):
    """The derived run says what was wrong, to whoever reads the report or the catalog."""
    assert report.exit_status == "fail"
    for word in ("could not", *words):
        assert word in report.reason
    name, stop = derived[-1]
    assert (name, stop["exit_status"]) == ("stop", "fail")
    assert words[0] in stop["reason"]


# A disk with room for the headers and one of the three slices. One process, as a beamline's is
# one: HDF5 takes it down if it is let run into a full disk.
_FULL = """
import json, resource, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from scans import scan_documents
from tomogan_bluesky import PublishingConfig, ReconstructionConfig, TomoGANCallback

derived, stored = [], Path(sys.argv[1])
with TomoGANCallback(
    lambda *item: derived.append(item), None, publishing=PublishingConfig(directory=stored),
    reconstruction=ReconstructionConfig(slab_rows=1), worker="thread",
) as callback:
    reports = []
    for size in (72_000, resource.RLIM_INFINITY):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        for name, doc in scan_documents():
            callback(name, doc)
        reports += callback.wait(60)
print(json.dumps([
    [report.as_dict() for report in reports],
    [doc.get("exit_status") for name, doc in derived if name == "stop"],
]))
"""


def test_disk_full_fails_the_derived_run_only(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", _FULL.format(tests=str(HERE.parent)), str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,  # HDF5 must not take the process down when it closes what it could not write
    )
    (full, free), stops = json.loads(done.stdout)
    assert stops == ["fail", "success"]
    assert full["exit_status"] == "fail"
    assert "File too large" in full["reason"]
    assert "disk" in full["reason"]
    assert full["frames"]["used"] == 37
    assert free["exit_status"] == "success", free["reason"]
    with h5py.File(free["volume_path"]) as file:
        assert len(file["entry/data/reconstruction"]) == 3
    assert "Traceback" not in done.stderr


@contextmanager
def unprivileged():
    """As a user for whom folders can be read-only, which they are not for root."""
    uid = os.geteuid()
    if uid == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(uid)


@pytest.fixture
def folder():
    """A folder whose parents everybody may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("inside", ["", "new/folder"])
def test_read_only_directory_fails_the_derived_run_only(folder, inside):
    folder.chmod(0o555)
    derived = []
    publishing = PublishingConfig(directory=folder / inside)
    with TomoGANCallback(
        lambda *item: derived.append(item), None, publishing=publishing, worker="thread"
    ) as callback:
        with unprivileged():
            report = run_through(callback, scan_documents())
        check_clear_failure(report, derived, "Permission denied", str(folder))
        folder.chmod(0o755)
        assert run_through(callback, scan_documents()).exit_status == "success"


def test_deleted_directory_fails_the_derived_run_only(tmp_path):
    """Removed in mid-run: the slices would be written to a file that nobody can open."""
    derived, removed = [], []
    folder = tmp_path / "volumes"

    def remove_after_the_first_slab(name, doc):
        derived.append((name, doc))
        if [n for n, _ in derived].count("event_page") == 1 and not removed:
            shutil.rmtree(folder)
            removed.append(True)

    with TomoGANCallback(
        remove_after_the_first_slab,
        None,
        publishing=PublishingConfig(directory=folder),
        reconstruction=SLABS,
        worker="thread",
    ) as callback:
        report = run_through(callback, scan_documents())
        check_clear_failure(report, derived, "removed while it was written")
        again = run_through(callback, scan_documents(frames=disc_frames() // 2 + 100))
        assert again.exit_status == "success"
        assert again.volume_path.exists()
