"""The startup files of the simulated beamline, in a real IPython and in a real queueserver."""

import json
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from processes import free_ports
from tiled.queries import Eq

STARTUP = Path(__file__).resolve().parents[2] / "profiles" / "sim" / "startup"

# Each kind of scan once; then what became of them, as one line of JSON.
_SESSION = """
import json
for plan in tomography, tomography_to_file, fly_tomography:
    RE(plan(n_darks=1, n_flats=1))
with tomogan:
    reports = tomogan.wait(300)
print("found:" + json.dumps([
    [r.derived_uid, r.exit_status, r.reason, r.frames.used, r.n_slices] for r in reports
]))
"""


@pytest.fixture
def session(catalog, monkeypatch, tmp_path):
    """A folder with the startup files, and the environment that they read."""
    files = tmp_path / "files"
    files.mkdir()
    catalog.make_readable(files)
    for name, value in {
        "TILED_URI": catalog.uri,
        "TILED_API_KEY": catalog.api_key,
        "TOMOGAN_VOLUMES": catalog.volumes,
        "TOMOGAN_SIM_FILES": files,
        "IPYTHONDIR": tmp_path,
    }.items():
        monkeypatch.setenv(name, str(value))
    shutil.copytree(STARTUP, tmp_path / "profile" / "startup")
    return tmp_path / "profile"


def test_an_ipython_session_scans_and_publishes(session, client):
    pytest.importorskip("IPython", reason="IPython is not installed")
    command = [sys.executable, "-m", "IPython", f"--profile-dir={session}", "--colors=nocolor"]
    done = subprocess.run([*command, "-c", _SESSION], capture_output=True, text=True, timeout=500)
    found = [line for line in done.stdout.splitlines() if line.startswith("found:")]
    assert found, done.stdout + done.stderr
    reports = json.loads(found[0].removeprefix("found:"))
    assert [report[1:] for report in reports] == [["success", "", 181, 4]] * 3
    for uid, *_ in reports:
        assert client[uid]["primary"]["denoised"].shape == (4, 128, 128)


@pytest.fixture
def ask(session):
    """Asks a RE manager that has these startup files and a redis of its own."""
    zmq = pytest.importorskip("zmq", reason="bluesky-queueserver is not installed")
    server = Path(sys.executable).with_name("start-re-manager")
    if not server.exists():
        pytest.skip("bluesky-queueserver is not installed")
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    redis, control, info = free_ports(3)
    address = f"tcp://127.0.0.1:{control}"

    def request(method, **params):
        with zmq.Context() as context, context.socket(zmq.REQ) as socket:
            socket.linger, socket.rcvtimeo = 0, 60_000
            socket.connect(address)
            socket.send_json({"method": method, "params": params})
            answer = socket.recv_json()
        assert answer.get("success", True), answer
        return answer

    store = ["redis-server", "--port", str(redis), "--bind", "127.0.0.1", "--save", ""]
    manager = [
        str(server),
        *("--startup-dir", str(session / "startup"), "--redis-addr", f"127.0.0.1:{redis}"),
        *("--zmq-control-addr", address, "--zmq-info-addr", f"tcp://127.0.0.1:{info}"),
        *("--update-existing-plans-devices", "NEVER"),
    ]
    with process(store, session / "redis.log"), process(manager, session / "manager.log"):
        yield request
        request("environment_close")
        until(lambda: not request("status")["worker_environment_exists"])
        request("manager_stop", option="safe_off")


def test_a_queued_plan_ends_as_a_derived_run(ask, client, session):
    ask("environment_open")
    until(lambda: ask("status")["worker_environment_exists"])
    plan = {"item_type": "plan", "name": "tomography", "kwargs": {"n_darks": 1, "n_flats": 1}}
    ask("queue_item_add", item=plan, user="test", user_group="primary")
    ask("queue_start")
    until(lambda: ask("history_get")["items"])
    (item,) = ask("history_get")["items"]
    assert item["result"]["exit_status"] == "completed", item["result"]
    (raw_uid,) = item["result"]["run_uids"]

    def derived():
        runs = client.search(Eq("start.original_run_uid", raw_uid)).values()
        return [run for run in runs if run.metadata.get("stop")]

    until(derived)
    (run,) = derived()
    assert run.metadata["stop"]["exit_status"] == "success", run.metadata["stop"]
    assert run["primary"]["denoised"].shape == (4, 128, 128)


def until(condition, seconds=120):
    """Ask other processes, which tell nobody when they are ready, until they are."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not within two minutes"
        time.sleep(0.1)


@contextmanager
def process(command, log):
    with (
        log.open("w") as output,
        subprocess.Popen(command, cwd=log.parent, stdout=output, stderr=output) as running,
    ):
        try:
            yield
        finally:
            running.terminate()
            try:
                running.wait(20)
            except subprocess.TimeoutExpired:
                running.kill()
