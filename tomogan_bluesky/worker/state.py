"""What a worker is at, for those who watch it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class WorkerState:
    """A look at a worker.

    Attributes
    ----------
    waiting_items : int
        Put, and not handled.
    waiting_bytes : int
        The memory that is held for items: what the bound on memory counts, where there is one.
    restarts : int
        How many processes died or were killed, and were replaced when there was work.
    """

    waiting_items: int = 0
    waiting_bytes: int = 0
    restarts: int = 0
