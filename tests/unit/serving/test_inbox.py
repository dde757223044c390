"""What waits for the callback of a server is bounded, and nobody waits for ever."""

import threading

import pytest

from tomogan_bluesky.serving.inbox import Document, Inbox


def item(number):
    return Document(None, "event", {"seq_num": number})


def numbers(inbox):
    found = []
    while (got := inbox.get(0)) is not None:
        found.append(got.doc["seq_num"])
    return found


def test_what_has_no_room_is_refused_and_what_waits_stays():
    inbox = Inbox(10_000)
    assert [inbox.put(item(n), 4_000, wait=False) for n in range(4)] == [True, True, False, False]
    assert (inbox.n_items, inbox.n_bytes) == (2, 8_000)
    assert numbers(inbox) == [0, 1]
    assert inbox.n_bytes == 0
    assert inbox.put(item(4), 10_000, wait=False)


def test_documents_without_pixels_count_too():
    inbox = Inbox(10_000)
    assert sum(inbox.put(item(n), wait=False) for n in range(1_000)) == 10


def test_a_message_that_is_larger_than_all_is_taken_alone():
    inbox = Inbox(10_000)
    assert inbox.put(item(0), 50_000, wait=False)
    assert not inbox.put(item(1), 1, wait=False)
    assert numbers(inbox) == [0]


@pytest.mark.parametrize("freed_by", ["get", "close"])
def test_who_waits_for_room_goes_on_when_there_is_some_or_when_it_ends(freed_by):
    inbox, taken = Inbox(10_000), []
    inbox.put(item(0), 9_000, wait=True)
    waits = threading.Thread(target=lambda: taken.append(inbox.put(item(1), 9_000, wait=True)))
    waits.start()
    waits.join(0.2)
    assert taken == []
    inbox.get(0) if freed_by == "get" else inbox.close()
    waits.join(30)
    assert taken == [freed_by == "get"]
    assert not waits.is_alive()
