"""The thread that brings documents: in order, bounded, at the end or with its error."""

import threading

import numpy as np
import pytest

from tomogan_bluesky.errors import PublishError
from tomogan_bluesky.publish import postman as module
from tomogan_bluesky.publish.postman import Postman

START, STOP = ("start", {"uid": "u"}), ("stop", {"run_start": "u"})


def page(number, n_bytes=0):
    data = {"a": [np.zeros(n_bytes, np.uint8)]}
    return "event_page", {
        "descriptor": "d",
        "uid": [str(number)],
        "seq_num": [number],
        "time": [0.0],
        "data": data,
        "timestamps": {"a": [0.0]},
        "filled": {},
    }


class Gate:
    """Takes documents when it is opened."""

    waiting = None

    def __init__(self):
        self.open = threading.Event()
        self.busy = threading.Event()
        self.names = []
        self.numbers = []
        self.fail_at = None

    def __call__(self, name, doc):
        self.busy.set()
        assert self.open.wait(30)
        if name == self.fail_at:
            raise PublishError("refused")
        self.names.append(name)
        self.numbers += doc.get("seq_num", [])


def test_whoever_brings_documents_does_not_wait_and_they_go_together():
    gate = Gate()
    bring = Postman(gate)
    bring(*START)
    assert gate.busy.wait(30)
    for number in (1, 2, 3):
        bring(*page(number))  # returns, though nothing is taken
    assert gate.names == []
    gate.open.set()
    bring(*STOP)
    assert gate.names == ["start", "event_page", "stop"]
    assert gate.numbers == [1, 2, 3]


def test_the_stop_document_returns_when_all_has_arrived_and_the_thread_is_gone():
    gate = Gate()
    gate.open.set()
    bring = Postman(gate)
    for item in (START, page(1), STOP):
        bring(*item)
    assert gate.names == ["start", "event_page", "stop"]
    assert "tomogan-postman" not in {thread.name for thread in threading.enumerate()}


def test_an_error_comes_back_and_nothing_goes_on_its_way_after_it():
    gate = Gate()
    bring = Postman(gate)
    gate.fail_at = "event_page"
    bring(*START)
    bring(*page(1))
    gate.open.set()
    bring.join()
    for item in (page(2), STOP):
        with pytest.raises(PublishError, match="refused"):
            bring(*item)
    assert gate.names == ["start"]


def test_an_error_while_the_stop_document_waits_comes_back():
    gate = Gate()
    gate.open.set()
    gate.fail_at = "stop"
    bring = Postman(gate)
    bring(*START)
    with pytest.raises(PublishError, match="refused"):
        bring(*STOP)


def test_pixels_on_their_way_are_bounded(monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 10_000)
    gate = Gate()
    bring = Postman(gate)
    brought = []

    def bring_all():
        for number in range(1, 5):
            bring(*page(number, 4_000))
            brought.append(number)

    bringing = threading.Thread(target=bring_all)
    bringing.start()
    assert gate.busy.wait(30)
    bringing.join(0.3)
    assert brought == [1] or brought == [1, 2]  # nothing has gone, and no third has room
    gate.open.set()
    bringing.join(30)
    bring.finish()
    assert gate.numbers == [1, 2, 3, 4]


def test_a_document_that_is_larger_than_the_bound_goes_alone(monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 1_000)
    gate = Gate()
    gate.open.set()
    bring = Postman(gate)
    for item in (START, page(1, 9_000), STOP):
        bring(*item)
    assert gate.numbers == [1]
