import sys
import threading
import time

import pytest

from tomogan_bluesky.worker import mailbox as mailbox_module
from tomogan_bluesky.worker.mailbox import Mailbox


def reader_of(mailbox, seen, until):
    def read():
        while (item := mailbox.get()) != until:
            seen.append(item)

    thread = threading.Thread(target=read)
    thread.start()
    return thread


def test_items_of_many_threads_come_once_and_in_the_order_of_each():
    mailbox, seen = Mailbox(), []
    reader = reader_of(mailbox, seen, None)

    def write(who):
        for n in range(2000):
            mailbox.put((who, n))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        writers = [threading.Thread(target=write, args=(who,)) for who in range(4)]
        for thread in writers:
            thread.start()
        for thread in writers:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    mailbox.put(None)
    mailbox.ring()
    reader.join(10)
    assert not reader.is_alive()
    for who in range(4):
        assert [n for w, n in seen if w == who] == list(range(2000))


def test_a_reader_that_sleeps_is_woken_by_an_item(monkeypatch):
    monkeypatch.setattr(mailbox_module, "LOOK_EVERY_S", 1e-4)
    mailbox, seen = Mailbox(), []
    reader = reader_of(mailbox, seen, None)
    for n in range(20):
        while not mailbox._asleep:
            time.sleep(1e-3)
        mailbox.put(n)
        while len(seen) <= n:  # for ever, if nobody woke it
            time.sleep(1e-4)
    mailbox.put(None)
    reader.join(10)
    assert not reader.is_alive()
    assert seen == list(range(20))


@pytest.mark.parametrize("before", [True, False])
def test_somebody_who_waits_need_not_wait_for_the_next_look(before, monkeypatch):
    monkeypatch.setattr(mailbox_module, "LOOK_EVERY_S", 600.0)
    mailbox, seen = Mailbox(), []
    if not before:
        reader = reader_of(mailbox, seen, None)
    mailbox.put("item")
    mailbox.put(None)
    mailbox.ring()
    if before:
        reader = reader_of(mailbox, seen, None)
    reader.join(10)
    assert not reader.is_alive()
    assert seen == ["item"]


def test_what_is_cleared_is_not_read():
    mailbox = Mailbox()
    for n in range(3):
        mailbox.put(n)
    assert len(mailbox) == 3
    assert mailbox.get() == 0
    assert mailbox.clear() == [1, 2]
    assert mailbox.clear() == []
    mailbox.put(3)
    assert mailbox.get() == 3
