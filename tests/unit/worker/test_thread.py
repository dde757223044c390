import threading

import pytest

from tomogan_bluesky.worker.thread import ThreadWorker


def test_items_are_handled_in_order_on_one_named_thread():
    seen, names = [], set()

    def handle(item):
        seen.append(item)
        names.add(threading.current_thread().name)

    worker = ThreadWorker(handle, "test", limit=1000)
    assert all(worker.put(n) for n in range(500))
    assert worker.join(10)
    assert worker.close(10)
    assert seen == list(range(500))
    assert names == {"tomogan-test"}


def test_a_full_worker_refuses_and_does_not_wait_but_takes_what_must():
    free = threading.Event()
    seen = []

    def handle(item):
        free.wait(10)
        seen.append(item)

    worker = ThreadWorker(handle, "test", limit=3)
    taken = [worker.put(n) for n in range(5)]
    assert taken == [True, True, True, False, False]
    assert worker.put("stop", must=True)
    assert not worker.join(0)
    free.set()
    assert worker.join(10)
    assert worker.put("later")
    assert worker.close(10)
    assert seen == [0, 1, 2, "stop", "later"]


def test_an_error_is_logged_and_the_next_item_handled(caplog):
    seen = []

    def handle(item):
        if item == "bad":
            raise RuntimeError("broken item")
        seen.append(item)

    worker = ThreadWorker(handle, "test", limit=10)
    worker.put("bad")
    worker.put("good")
    assert worker.close(10)
    assert seen == ["good"]
    assert "broken item" in caplog.text


def test_closing_is_idempotent_and_final():
    worker = ThreadWorker(lambda item: None, "test", limit=10)
    assert worker.close(1)
    assert worker.close(1)
    assert not worker.put("late")


@pytest.mark.parametrize("waiting", [0, 5])
def test_close_gives_up_on_a_hang_and_drops_what_waits(waiting):
    free = threading.Event()
    seen = []

    def handle(item):
        free.wait(10)
        seen.append(item)

    worker = ThreadWorker(handle, "test", limit=10)
    for n in range(1 + waiting):
        worker.put(n)
    assert not worker.close(0.05)
    free.set()
    assert worker.close(10)
    assert seen == [0]
