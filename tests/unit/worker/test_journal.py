"""Items that were sent together are told apart all the same."""

import pytest

from tomogan_bluesky.worker.journal import STEP, Entry, Journal
from tomogan_bluesky.worker.wire import Packed


@pytest.fixture
def journal():
    """Group "a" has four items, of which three were sent together, and group "b" two."""
    journal = Journal()
    for name, n_items, must in (("a", 1, True), ("a", 3, False), ("b", 2, True)):
        number = journal.next_number(n_items)
        entry = Entry(number, Packed(name.encode()), (), must, n_items)
        journal.open(name).entries.append(entry)
    return journal


def numbers_of(journal):
    return [e.number + STEP * i for e in journal.entries() for i in range(e.n_items)]


def test_each_item_has_a_number_and_there_is_room_for_a_note_before_it(journal):
    numbers = numbers_of(journal)
    assert len(numbers) == 6
    assert all(b - a >= 2 for a, b in zip([0, *numbers], numbers, strict=False))
    assert journal.next_number() > numbers[-1]
    assert journal.reduce("a") == numbers[0] - 1
    assert [entry.must for entry in journal.groups["a"].entries] == [True]


def test_items_that_are_not_handled_are_counted_one_by_one(journal):
    counts = [journal.count_after(number) for number in [0, *numbers_of(journal)]]
    assert counts == [6, 5, 4, 3, 2, 1, 0]


def test_the_item_at_hand_may_be_any_of_those_that_were_sent_together(journal):
    numbers = numbers_of(journal)
    groups = [journal.at_hand(number, number - STEP) for number in numbers]
    assert groups == ["a", "a", "a", "a", "b", "b"]
    assert journal.at_hand(numbers[2], numbers[2]) is None
