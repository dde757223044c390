"""What can befall the worker process, each by its name: the scan succeeds, and so does its volume.

One catalog, one callback; the process is killed with real signals.
"""

import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from processes import until
from proxy import Proxy
from scans import disc_frames, scan_documents

from tomogan_bluesky import (
    PublishingConfig,
    ReconstructionConfig,
    TomoGANCallback,
    WorkerConfig,
)
from tomogan_bluesky.cli import main
from tomogan_bluesky.publish.catalog import attempts
from tomogan_bluesky.publish.identity import volume_path
from tomogan_bluesky.publish.spool import Spool
from tomogan_bluesky.publish.tiled_publisher import TiledPublisher

RECONSTRUCTION = ReconstructionConfig(slab_rows=1)


class Worker:
    """A callback that publishes to a catalog and to a callable, and what has arrived."""

    def __init__(self, catalog):
        self.client = catalog.client()
        self.volumes = catalog.volumes / "worker process"  # other tests leave other files
        self.derived = []
        self.at = {}  # what to do when a derived document of a name arrives
        self.callback = TomoGANCallback(
            [catalog.uri, self._take],
            None,
            reconstruction=RECONSTRUCTION,
            publishing=PublishingConfig(directory=self.volumes),
            worker=WorkerConfig(nice=0, hang_s=120),
        )
        self.expected = self.slices(self.run(scan_documents()))

    def _take(self, name, doc):
        self.derived.append((name, doc))
        if name in self.at:
            self.at.pop(name)(self.callback.worker_pid)

    def run(self, docs, between=None):
        self.derived.clear()
        for n, (name, doc) in enumerate(docs):
            if between is not None and n == len(docs) // 2:
                between(self.callback.worker_pid)
            self.callback(name, doc)
        (report,) = self.callback.wait(300)
        return report

    def slices(self, report):
        assert report.exit_status == "success", report.reason
        return self.client[report.derived_uid]["primary"]["reconstruction"].read()

    def check_final(self, report):
        """One final version, of the bits that an undisturbed run has."""
        np.testing.assert_array_equal(self.slices(report), self.expected)
        start = self.client[report.derived_uid].metadata["start"]
        ends = [a.exit_status for a in attempts(self.client, start["derivation"])]
        assert ends.count("success") == 1

    def check_only(self, report):
        """The same, and no other attempt, nor a file of one."""
        self.check_final(report)
        start = self.client[report.derived_uid].metadata["start"]
        assert [a.uid for a in attempts(self.client, start["derivation"])] == [report.derived_uid]
        ours = [path for path in self.volumes.iterdir() if raw_uid_of(path) == report.raw_uid]
        assert ours == [volume_path(self.volumes, report.derived_uid)]


def raw_uid_of(path):
    with h5py.File(path, swmr=True, libver="latest") as file:
        return file.attrs["raw_run_uid"]


@pytest.fixture(scope="module")
def worker(catalog):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TILED_API_KEY", catalog.api_key)
        worker = Worker(catalog)
        with worker.callback:
            yield worker


def send(number):
    return lambda pid: os.kill(pid, number)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_signal_in_mid_scan(worker, number):
    worker.check_final(worker.run(scan_documents(), between=send(number)))


@pytest.mark.parametrize("stage", ["start", "event_page", "stop"])
def test_a_kill_while_it_publishes(worker, stage):
    worker.at[stage] = send(signal.SIGKILL)
    report = worker.run(scan_documents())
    assert not worker.at
    worker.check_final(report)
    # Whoever listens sees every attempt end, and the last one with success.
    starts = [doc["uid"] for name, doc in worker.derived if name == "start"]
    stops = {doc["run_start"]: doc["exit_status"] for name, doc in worker.derived if name == "stop"}
    assert set(starts) == set(stops)
    assert len(starts) == len(set(starts))
    assert list(stops.values()).count("success") == 1


def test_ctrl_c_for_the_whole_terminal_does_not_reach_it(worker):
    pid = worker.callback.worker_pid
    assert os.getsid(pid) == pid != os.getsid(0)
    assert os.getpgid(pid) != os.getpgid(0)


def test_a_hang_in_mid_scan(catalog, caplog):
    derived = []
    with TomoGANCallback(
        lambda *item: derived.append(item),
        None,
        reconstruction=RECONSTRUCTION,
        worker=WorkerConfig(nice=0, hang_s=3),
    ) as callback:
        docs = scan_documents()
        for name, doc in docs[:10]:
            callback(name, doc)
        assert callback._workplace.join(120)
        os.kill(callback.worker_pid, signal.SIGSTOP)
        for name, doc in docs[10:]:
            callback(name, doc)
        (report,) = callback.wait(300)
    assert report.exit_status == "success", report.reason
    assert "did not get on for 3 s" in caplog.text


@pytest.mark.parametrize("kind", ["process", "thread"])
def test_too_many_documents_are_healed_from_the_catalog(worker, kind, monkeypatch):
    """A worker that is stopped while the scan comes; the archive takes the scan meanwhile."""
    monkeypatch.setattr("tomogan_bluesky.hosting.in_thread._QUEUE_LIMIT", 5)
    docs, publisher = scan_documents(), TiledPublisher(worker.client)
    busy, free, derived = threading.Event(), threading.Event(), []

    def slow(name, doc):
        derived.append((name, doc))
        busy.set()
        free.wait(120)

    with TomoGANCallback(
        [worker.client, slow],
        None,
        reconstruction=RECONSTRUCTION,
        worker=WorkerConfig(kind=kind, nice=0, memory_gib=1e-4),
    ) as callback:
        for name, doc in scan_documents(frames=disc_frames()[:3], darks=1, flats=1):
            callback(name, doc)
        assert busy.wait(120)
        for name, doc in docs:
            callback(name, doc)
            publisher(name, doc)
        free.set()
        report = callback.wait(300)[-1]
    assert report.raw_uid == docs[0][1]["uid"]
    assert report.exit_status == "success", report.reason
    assert report.frames.used == report.frames.expected == 37
    slices = [doc["data"]["reconstruction"] for name, doc in derived if name == "event"]
    np.testing.assert_array_equal(slices[-3:], worker.expected)


def test_a_fork_of_the_program_leaves_scan_and_worker_alone(worker):
    def fork(_):
        child = os.fork()
        if child == 0:  # as a plan that forks a helper does, which ends on its own
            worker.callback("start", scan_documents()[0][1])
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0

    worker.check_final(worker.run(scan_documents(), between=fork))


# Tiled is away, too ----------------------------------------------------------------------------


class Away:
    """A callback whose worker publishes through a network that fails, and spools."""

    def __init__(self, catalog, volumes, spool):
        self.proxy = Proxy(catalog.uri)
        self.spool = Spool(spool, 1)
        self.at = {}
        self.callback = TomoGANCallback(
            [self.proxy.uri, self._take],
            None,
            reconstruction=RECONSTRUCTION,
            publishing=PublishingConfig(directory=volumes, spool=spool),
            worker=WorkerConfig(nice=0),
        )

    def _take(self, name, doc):
        if name in self.at:
            self.at.pop(name)(self.callback.worker_pid)

    def run(self, docs):
        for name, doc in docs:
            self.callback(name, doc)
        (report,) = self.callback.wait(300)
        return report


@pytest.fixture(scope="module")
def network(worker, catalog, tmp_path_factory):
    away = Away(catalog, worker.volumes, tmp_path_factory.mktemp("away") / "spool")
    with away.callback:
        away.run(scan_documents())  # which starts the worker
        yield away
    away.proxy.close()


@pytest.fixture
def away(network):
    network.proxy.mode = "refuse"
    return network


@pytest.mark.parametrize("stage", ["event_page", "stop"])
def test_a_kill_while_tiled_is_away(worker, away, stage):
    """The next worker makes the run again, or finds it in the spool; and brings it."""
    away.at[stage] = send(signal.SIGKILL)
    restarts = away.callback.worker_state.restarts
    report = away.run(scan_documents())
    assert not away.at
    assert report.exit_status == "success", report.reason
    assert report.spooled != report.already_done  # the latter: it was whole, and found there
    assert report.derived_uid not in worker.client
    assert away.callback.worker_state.restarts == restarts + 1
    away.proxy.mode = "pass"
    until(lambda: not away.spool.waiting())
    worker.check_only(report)


def test_a_kill_after_tiled_went_away_and_what_waits_is_flushed(worker, away, catalog, capsys):
    """Who would have brought it is dead: `spool flush` does."""
    report = away.run(scan_documents())
    os.kill(away.callback.worker_pid, signal.SIGKILL)
    away.proxy.mode = "pass"
    assert main(["spool", "flush", "--spool", str(away.spool.folder)]) == 0
    assert capsys.readouterr().out == f"{report.derived_uid}  published\n"
    assert away.spool.waiting() == []
    worker.check_only(report)


# The program ends ------------------------------------------------------------------------------

PROGRAM = """
import os, sys
sys.path.insert(0, {tests!r})
with open(sys.argv[1], "a") as file:
    file.write("x")
from scans import scan_documents
from tomogan_bluesky import PublishingConfig, ReconstructionConfig, TomoGANCallback, WorkerConfig

docs = scan_documents(md={{"about": sys.argv[2]}})
tomogan = TomoGANCallback(
    {uri!r}, None, reconstruction=ReconstructionConfig(slab_rows=1),
    publishing=PublishingConfig(directory={volumes!r}), worker=WorkerConfig(nice=0),
)
for name, doc in docs:
    tomogan(name, doc)
print(docs[0][1]["uid"], flush=True)
"""


def wait_for_derived(client, raw_uid):
    from tomogan_bluesky.publish.catalog import derived_runs

    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for uid in derived_runs(client, {"uid": raw_uid}):
            if stop := client[uid].metadata.get("stop"):
                return stop
        time.sleep(0.2)
    raise AssertionError(f"no derived run of {raw_uid} became final")


@pytest.mark.parametrize("how", ["unguarded script", "%run", "startup file"])
def test_the_program_ends_with_a_full_queue(worker, catalog, how, tmp_path):
    """The worker finishes it, and the user's code was executed exactly once."""
    script, count = tmp_path / "50-scan.py", tmp_path / "count"
    script.write_text(
        PROGRAM.format(
            tests=str(Path(__file__).parents[1]), uri=catalog.uri, volumes=str(worker.volumes)
        )
    )
    ipython = [sys.executable, "-m", "IPython", "--no-banner", "--colors=NoColor"]
    environment = os.environ | {"IPYTHONDIR": str(tmp_path / "ipython")}
    if how == "unguarded script":
        command = [sys.executable, str(script), str(count), how]
    elif how == "%run":
        command = [*ipython, "-c", f"%run {script} {count} run"]
    else:
        startup = tmp_path / "ipython" / "profile_default" / "startup"
        startup.mkdir(parents=True)
        code = f"import sys; sys.argv = ['ipython', {str(count)!r}, 'startup']\n"
        (startup / script.name).write_text(code + script.read_text())
        command = [*ipython, "-c", "pass"]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env=environment, timeout=120
    )
    raw_uid = done.stdout.split()[-1]
    assert wait_for_derived(worker.client, raw_uid)["exit_status"] == "success"
    assert count.read_text() == "x"


# Ctrl-C in a terminal --------------------------------------------------------------------------

TERMINAL = """
import sys, time
sys.path.insert(0, {tests!r})
import bluesky.plan_stubs as bps
from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted
from scans import scan_documents
from tomogan_bluesky import TomoGANCallback, WorkerConfig

def plan():
    for n in range(600):
        yield from bps.checkpoint()
        yield from bps.sleep(0.1)

tomogan = TomoGANCallback(lambda *item: None, None, worker=WorkerConfig(nice=0))
docs = scan_documents()
for name, doc in docs[:9]:
    tomogan(name, doc)
tomogan._workplace.join(120)
pid = tomogan.worker_pid
RE = RunEngine()
try:
    print("scanning", flush=True)
    RE(plan())
except RunEngineInterrupted:
    print("paused", flush=True)
for name, doc in docs[9:]:
    tomogan(name, doc)
(report,) = tomogan.wait(120)
print("report", report.exit_status, pid == tomogan.worker_pid, flush=True)
RE.abort()
tomogan.close()
"""


def test_ctrl_c_twice_at_a_run_engine_in_a_terminal():
    """It pauses the RunEngine; the worker is of that terminal, too, and does not hear of it."""
    program = TERMINAL.format(tests=str(Path(__file__).parents[1]))
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", program])
    said = ""

    def hear(word):
        nonlocal said
        while word not in said:
            assert select.select([terminal], [], [], 120)[0], said
            said += os.read(terminal, 1024).decode()

    hear("scanning")
    time.sleep(1.0)
    for _ in range(2):
        os.write(terminal, b"\x03")  # as a keyboard does: the signal goes to the whole terminal
        time.sleep(0.3)
    hear("report")
    hear("\n")
    assert "paused" in said
    assert "report success True" in said
    while True:
        try:
            if not os.read(terminal, 1024):
                break
        except OSError:  # the terminal is closed
            break
    assert os.waitpid(pid, 0)[1] == 0
    os.close(terminal)
