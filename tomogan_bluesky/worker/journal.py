"""What a worker process was given and has not finished: enough to give it to another one.

Enter: packed items, by group. Leave: the same, in their order, for as long as their group goes on.
"""

from dataclasses import dataclass, field

from .wire import Packed

STEP = 2
"""From the number of an item to that of the next: there is room for a note before each."""


@dataclass
class Entry:
    """Items as they were sent together, or a note.

    Attributes
    ----------
    number : int
        Of the first item; each of the others has that of the one before it, and `STEP`.
    packed : Packed
    segments : tuple of int
        The shared memory that they use.
    must : bool
        Whether they are kept of a group that is given up.
    n_items : int
    """

    number: int
    packed: Packed
    segments: tuple[int, ...]
    must: bool
    n_items: int = 1

    @property
    def last_number(self) -> int:
        """Of the last item."""
        return self.number + STEP * (self.n_items - 1)


@dataclass
class Group:
    """The items of a group so far.

    Attributes
    ----------
    entries : list of Entry
    n_bytes : int
        What its items count in the bound on memory.
    crashes : int
        How many workers ended while they were at it.
    given_up : bool
        Only what must be handled is kept and sent.
    """

    entries: list[Entry] = field(default_factory=list)
    n_bytes: int = 0
    crashes: int = 0
    given_up: bool = False


class Journal:
    """The unfinished groups."""

    def __init__(self) -> None:
        self.groups: dict[str, Group] = {}
        self._last_number = 0

    def open(self, name: str) -> Group:
        """The group of a name, a new one if need be."""
        return self.groups.setdefault(name, Group())

    def next_number(self, n_items: int = 1) -> int:
        """The number of the first of so many items."""
        first = self._last_number + STEP
        self._last_number += STEP * n_items
        return first

    def entries(self) -> list[Entry]:
        """All items, in the order in which they were given."""
        every = [entry for group in self.groups.values() for entry in group.entries]
        return sorted(every, key=lambda entry: entry.number)

    def count_after(self, number: int) -> int:
        """How many items have a higher number. From any thread: a hint."""
        groups = list(self.groups.values())
        return sum(
            min(entry.n_items, (entry.last_number - number + 1) // STEP)
            for group in groups
            for entry in group.entries
            if entry.last_number > number
        )

    def at_hand(self, begun: int, handled: int) -> str | None:
        """The group of the item that a worker was at; None where it was at none."""
        if begun <= handled:
            return None
        for name, group in self.groups.items():
            if any(entry.number <= begun <= entry.last_number for entry in group.entries):
                return name
        return None

    def reduce(self, name: str) -> int:
        """Keep of a group what must be handled; returns a number for a note before all of it."""
        group = self.groups[name]
        group.given_up = True
        group.entries = [entry for entry in group.entries if entry.must]
        return group.entries[0].number - 1 if group.entries else self.next_number()
