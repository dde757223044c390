"""Trainings that are killed, run out of disk, or share their batches between processes."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from unit.training.discs import config, discs, gan_config

from tomogan_bluesky.errors import TrainingError
from tomogan_bluesky.models.generator import build_generator
from tomogan_bluesky.training.checkpoint import CHECKPOINT, read_checkpoint
from tomogan_bluesky.training.state import TrainingState
from tomogan_bluesky.training.trainer import train

SCRIPT = str(Path(__file__).with_name("discs.py"))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def equal(a: Path, b: Path) -> bool:
    one, other = (read_checkpoint(p / CHECKPOINT)[2] for p in (a, b))
    return one.keys() == other.keys() and all(torch.equal(v, other[k]) for k, v in one.items())


def test_killed_and_resumed_gives_the_same_bits(tmp_path):
    """kill -9 in the middle of a step, then on from the checkpoint."""
    changes = {"steps": 4000, "checkpoint_every": 5}
    arguments = [sys.executable, SCRIPT, str(tmp_path / "cut"), "pixel", json.dumps(changes)]
    with subprocess.Popen(arguments, stderr=subprocess.DEVNULL) as process:
        checkpoint = tmp_path / "cut" / CHECKPOINT
        deadline = time.monotonic() + 120
        while not checkpoint.exists() and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    reached = read_checkpoint(checkpoint)[1].step
    # The rest is the same whether 4000 steps were meant or a few: the rate is constant so far.
    options = {"validation": discs(n=2, seed=1)}
    settings = config(**changes)
    for name, resume in (("cut", checkpoint), ("whole", None)):
        stop_after(reached + 7, settings, tmp_path / name, resume, options)
    assert equal(tmp_path / "cut", tmp_path / "whole")


def stop_after(step, settings, out_dir, resume, options):
    """Train to the last checkpoint before a step, in which it is interrupted."""

    class Interrupted(Exception):
        pass

    update = TrainingState.update_average

    def counted(state):
        if state.progress.step >= step:
            raise Interrupted
        update(state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingState, "update_average", counted)
        with pytest.raises(Interrupted):
            train(settings, [discs(size=48)], out_dir, resume, **options)


@pytest.fixture
def full_disk():
    """No file may grow beyond 20 kB from here on: writes fail as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_loses_nothing(tmp_path, full_disk):
    train(config(steps=4), [discs()], tmp_path)
    before = (tmp_path / CHECKPOINT).read_bytes()
    assert len(before) > 20_000
    full_disk()
    with pytest.raises(TrainingError, match="step 4: .*one before is whole, in .*make room"):
        train(config(steps=4), [discs(seed=1)], tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [CHECKPOINT]
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_full_disk_before_the_first_checkpoint(tmp_path, full_disk):
    full_disk()
    with pytest.raises(TrainingError, match="there is none before: make room"):
        train(config(steps=1), [discs()], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_two_processes_are_one_with_the_whole_batch(tmp_path):
    """torchrun and gloo: the curves of all losses, of both networks, are the same to rounding."""
    changes = {"steps": 4, "batch": 4, "checkpoint_every": 1}
    torch.manual_seed(0)
    start = build_generator("unet4", base=4)
    options = {"start": start, "validation": discs(n=2, seed=1)}
    train(gan_config(**changes), [discs(size=48)], tmp_path / "one", **options)
    changes |= {"processes": 2}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *torchrun, SCRIPT, str(tmp_path / "two"), "gan", json.dumps(changes)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    one, two = (read_checkpoint(tmp_path / n / CHECKPOINT)[1].history for n in ("one", "two"))
    assert len(one) == len(two) == 4
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        assert b == pytest.approx(a, rel=1e-4, abs=1e-5)


def test_another_number_of_processes_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="expected 2 processes, got 1.*nproc-per-node 2"):
        train(config(steps=1, processes=2), [discs()], tmp_path)
