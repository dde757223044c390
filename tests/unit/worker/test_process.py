"""The worker process by itself: nothing of tomography, real processes, real signals."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tomogan_bluesky.worker import mailbox as mailbox_module
from tomogan_bluesky.worker.process import ProcessWorker
from tomogan_bluesky.worker.state import WorkerState
from tomogan_bluesky.worker.turns import turn_of

TESTS = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}


class Owner:
    def __init__(self):
        self.results, self.losses, self.messages, self.interruptions = {}, {}, [], []

    def result(self, group, result):
        assert group not in self.results
        self.results[group] = result

    def lost(self, group, reason):
        self.losses[group] = reason

    def interrupted(self, groups):
        self.interruptions.append(groups)

    def message(self, message):
        self.messages.append(message)

    def call(self, method, args):
        if method != "double":
            raise ValueError(f"no such method: {method}")
        return args * 2

    def replace(self, group, value):
        return value


@pytest.fixture
def make(request):
    """Makes workers and ends them; none may outlive its test."""
    workers = []

    def make(greeting="hello", factory="worker_handlers:Handler", **options):
        owner = Owner()
        options = {"limit_bytes": 1 << 28, "hang_s": 60.0, "linger_s": 60.0, "nice": 0} | options
        arguments = {} if greeting is None else {"greeting": greeting}
        worker = ProcessWorker(factory, arguments, owner, environment=ENVIRONMENT, **options)
        workers.append(worker)
        return worker, owner

    yield make
    for worker in workers:
        pid = worker.pid
        assert worker.close(60)
        assert pid is None or not Path(f"/proc/{pid}").exists()


def put(worker, group, *items, **options):
    for i, item in enumerate(items):
        must = i in (0, len(items) - 1)
        worker.put(group, item, must=must, last=i == len(items) - 1, **options)


def test_items_are_handled_in_order_and_groups_apart_by_a_process_that_gives_way(make):
    worker, owner = make(nice=19)
    image = np.arange(60_000, dtype=np.uint16).reshape(200, 300)
    put(worker, "a", {"where": 0}, *({"keep": n} for n in range(100)), {"call": 4})
    put(worker, "b", {"sum": image}, {"sum": image[:, ::2]}, {"emit": {"x": np.float32(0.1)}})
    assert worker.join(60)
    greeting, ((pid, parent, session, nice), *kept), given_up = owner.results["a"]
    assert (greeting, given_up) == ("hello", None)
    assert kept == [*range(100), [4, 4]]
    assert pid == session == worker.pid
    assert (parent, nice) == (os.getpid(), min(os.nice(0) + 19, 19))
    assert owner.results["b"][1] == [
        [float(image.sum()), "uint16", [200, 300]],
        [float(image[:, ::2].sum()), "uint16", [200, 150]],
    ]
    assert owner.messages == [{"x": np.float32(0.1)}]
    assert Path(f"/proc/{pid}/comm").read_text() == "tomogan-worker\n"
    assert int(Path(f"/proc/{pid}/oom_score_adj").read_text()) > 0
    autogroup = Path(f"/proc/{pid}/autogroup")
    if autogroup.exists():
        assert autogroup.read_text().endswith(f" nice {nice}\n")
    if turn_of(os.getpid()):  # Linux since 6.12
        assert turn_of(pid) == 0.1 > turn_of(os.getpid())


def test_a_worker_that_was_never_used_is_no_process(make):
    worker, _ = make()
    assert worker.join(0)
    assert worker.pid is None
    assert worker.close(0)
    assert not worker.put("late", {"keep": 1})


def test_an_error_is_logged_here_and_the_next_item_handled(make, caplog):
    worker, owner = make()
    put(worker, "a", {"raise": "broken item"}, {"keep": 1})
    assert worker.join(60)
    assert owner.results["a"][1] == [1]
    assert "broken item" in caplog.text


def test_items_that_wait_travel_together_up_to_a_bound(make, monkeypatch):
    monkeypatch.setattr(mailbox_module, "LOOK_EVERY_S", 600.0)
    worker, owner = make()
    worker.put("a", {"keep": "first"}, must=True)
    assert worker.join(60)
    for n in range(300):
        worker.put("a", {"keep": n})
    worker.put("b", {"keep": "between"}, must=True, last=True)
    worker.put("a", {"keep": 300})
    assert worker.join(60)  # the sender has looked
    entries = worker._supervisor._journal.groups["a"].entries
    assert [entry.n_items for entry in entries] == [1, 128, 128, 44, 1]
    assert worker.state.waiting_items == 0
    worker.put("a", {"keep": "last"}, must=True, last=True)
    assert worker.join(60)
    assert owner.results["a"][1] == ["first", *range(301), "last"]


@pytest.mark.parametrize("odd", [{"keep": 2**70}, {"keep": 3 + 4j}])
def test_an_item_that_cannot_travel_keeps_none_of_those_with_it(make, odd, monkeypatch):
    monkeypatch.setattr(mailbox_module, "LOOK_EVERY_S", 600.0)
    worker, owner = make()
    worker.put("a", {"keep": "first"}, must=True)
    assert worker.join(60)
    put(worker, "a", {"keep": 0}, {"keep": 1}, odd, {"keep": 2}, {"keep": "last"})
    assert worker.join(60)
    _, kept, given_up = owner.results["a"]
    assert kept == ["first", 0, 1, 2, "last"]
    assert given_up.startswith("expected")


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM", "SIGSEGV", "exit"])
def test_a_process_that_dies_is_replaced_and_its_groups_start_anew(make, how, tmp_path, caplog):
    worker, owner = make()
    image = np.full((200, 200), 3, np.uint16)
    worker.put("other", {"keep": "before"}, must=True)
    put(worker, "a", {"sum": image}, {"once": str(tmp_path / "once"), "do": how}, {"keep": 1})
    while not (tmp_path / "once").exists():
        time.sleep(0.01)
    image[:] = 4  # what was sent does not depend on what becomes of the array
    worker.put("other", {"keep": "after"}, must=True, last=True)
    assert worker.join(60)
    assert owner.results["a"][1] == [[120_000.0, "uint16", [200, 200]], 1]
    assert owner.results["other"][1] == ["before", "after"]
    assert "taken up again" in caplog.text
    assert owner.losses == {}


@pytest.mark.parametrize("how", ["hang", "spin"])
def test_a_process_that_hangs_is_killed_and_replaced(make, how, tmp_path, caplog):
    worker, owner = make(hang_s=1.0)
    put(worker, "a", {"keep": 0}, {"once": str(tmp_path / "once"), "do": how}, {"keep": 1})
    assert worker.join(60)
    assert owner.results["a"][1] == [0, 1]
    assert "did not get on for 1 s" in caplog.text


def test_a_process_that_is_hardly_let_onto_a_processor_is_slow_and_not_hung(make, caplog):
    worker, owner = make(hang_s=1.5)
    put(worker, "a", {"keep": 0}, {"crawl": 2.5}, {"keep": 1})
    assert worker.join(60)
    assert owner.results["a"][1] == [0, 1]
    assert "did not get on" not in caplog.text


def test_a_group_that_kills_every_process_is_given_up_and_the_next_one_handled(make):
    worker, owner = make()
    fatal = [{"keep": "before"}, {"always": "SIGKILL"}, {"keep": "after"}]
    put(worker, "bad", {"keep": "first"}, *fatal, {"keep": "last"})
    put(worker, "worse", {"always": "SIGKILL"}, {"keep": "last"})
    put(worker, "good", {"keep": 1})
    assert worker.join(60)
    _, kept, given_up = owner.results["bad"]
    assert kept == ["first", "last"]
    assert "3 worker processes" in given_up
    assert "SIGKILL" in given_up
    assert owner.losses.keys() == {"worse"}
    assert owner.results["good"][1] == [1]


def test_a_process_that_cannot_start_loses_its_groups_and_says_why(make):
    worker, owner = make(None, "worker_handlers:unable")
    put(worker, "a", {"keep": 1}, {"keep": 2})
    assert worker.join(60)
    assert "this handler can't be made" in owner.losses["a"]
    put(worker, "b", {"keep": 1}, {"keep": 2})
    assert worker.join(60)
    assert owner.losses.keys() == {"a", "b"}


def test_an_idle_process_that_dies_is_replaced_when_it_is_needed(make):
    worker, owner = make()
    put(worker, "a", {"keep": 1})
    assert worker.join(60)
    os.kill(worker.pid, 9)
    while worker.pid is not None:
        time.sleep(0.01)
    put(worker, "b", {"keep": 2})
    assert worker.join(60)
    assert owner.results["b"][1] == [2]


def test_a_full_worker_refuses_and_takes_again_when_a_group_is_done(make):
    worker, owner = make(limit_bytes=100_000)
    image = np.zeros(40_000, np.uint8)
    taken = [worker.put("a", {"sum": image}, n_bytes=40_000) for _ in range(4)]
    assert taken == [True, True, False, False]
    worker.give_up("a", "too many")
    assert worker.put("a", {"keep": "stop"}, must=True, last=True)
    assert worker.join(60)
    assert owner.results["a"][2] == "too many"
    assert worker.put("b", {"sum": image}, n_bytes=40_000, last=True)


def test_what_waits_and_how_often_a_process_died_can_be_seen(make, tmp_path):
    worker, owner = make()
    assert worker.state == WorkerState()
    put(worker, "a", {"emit": 0}, {"once": str(tmp_path / "once"), "do": "hang"}, {"keep": 1})
    while not owner.messages:
        time.sleep(0.01)
    assert (worker.state.waiting_items, worker.state.restarts) == (2, 0)
    assert worker.state.waiting_bytes > 0
    os.kill(worker.pid, 9)
    assert worker.join(60)
    while worker.state.waiting_bytes:  # given back just after
        time.sleep(0.01)
    assert worker.state == WorkerState(restarts=1)


def test_close_gives_up_on_a_hang_and_drops_what_waits(make, tmp_path):
    worker, owner = make()
    put(worker, "a", {"emit": 0}, {"once": str(tmp_path / "once"), "do": "hang"}, {"keep": 1})
    put(worker, "b", {"keep": 1})
    while not owner.messages:
        time.sleep(0.01)
    assert not worker.close(0.1)
    os.kill(worker.pid, 9)
    assert worker.close(60)
    assert owner.results == {}


def test_a_group_that_never_ends_does_not_keep_it_from_closing(make):
    worker, owner = make()
    worker.put("a", {"keep": 1}, must=True)
    assert worker.join(60)
    assert worker.close(60)
    assert (worker.state.waiting_items, worker.state.restarts) == (0, 0)
    assert owner.results == owner.losses == {}


def test_a_forked_process_leaves_the_worker_alone(make):
    worker, owner = make()
    worker.put("a", {"keep": 1}, must=True)
    child = os.fork()
    if child == 0:
        code = 0 if not worker.put("a", {"keep": "of the child"}, must=True) else 1
        os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    worker.put("a", {"keep": 2}, must=True, last=True)
    assert worker.join(60)
    assert owner.results["a"][1] == [1, 2]


def test_memory_and_files_are_given_back(make):
    worker, owner = make()
    image = np.zeros((1000, 1000), np.uint16)

    def a_group(n):
        put(worker, f"group {n}", *[{"sum": image}] * 3)
        assert worker.join(60)

    def used():
        return [len(os.listdir(f"/proc/{pid}/fd")) for pid in (os.getpid(), worker.pid)]

    for n in range(3):
        a_group(n)
    before = used()
    for n in range(3, 40):
        a_group(n)
    assert used() == before
    assert worker.close(60)
    assert not [t for t in threading.enumerate() if t.name.startswith("tomogan-")]


PROGRAM = """
import sys
sys.path[:0] = [{tests!r}, {unit!r}]
from test_process import ENVIRONMENT, Owner, ProcessWorker
worker = ProcessWorker(
    "worker_handlers:Handler", {{"greeting": "hello"}}, Owner(), limit_bytes=1 << 28, hang_s=60,
    nice=0, linger_s={linger}, environment=ENVIRONMENT,
)
worker.put("a", {{"sleep": 0.5}}, must=True)
for n in range(2000):
    worker.put("a", {{"keep": n}})
worker.put("a", {{"sleep": {long}}}, must=True)
worker.put("a", {{"write": sys.argv[1]}}, must=True, last=True)
worker.abandon(60)
print(worker.pid)
"""


@pytest.mark.parametrize("linger", [60, 0.2])
def test_what_it_has_is_finished_within_a_time_limit_when_the_program_ends(tmp_path, linger):
    out = tmp_path / "out"
    program = PROGRAM.format(
        tests=str(TESTS),
        unit=str(Path(__file__).parent),
        linger=linger,
        long=0 if linger == 60 else 600,
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(out)], stdout=subprocess.PIPE, text=True, check=True
    )
    while Path(f"/proc/{int(done.stdout)}").exists():
        time.sleep(0.01)
    assert out.exists() == (linger == 60)
    if out.exists():
        assert out.read_text() == str(sum(range(2000)))
