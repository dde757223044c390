"""What a worker process and its owner say to each other, from the owner's side."""

from typing import Any, Protocol


class Owner(Protocol):
    """What a `process.ProcessWorker` tells and asks."""

    def result(self, group: str, result: Any) -> None:
        """All items of a group are handled. On the receiver's thread."""

    def lost(self, group: str, reason: str) -> None:
        """A group will not be handled. On the sender's thread."""

    def interrupted(self, groups: list[str]) -> None:
        """The process died; unfinished groups will be handled again from their first item.

        Comes between the calls of that process and those of the next one, on their thread.
        """

    def message(self, message: Any) -> None:
        """The handler sent a message. On the receiver's thread."""

    def call(self, method: str, args: list[Any]) -> Any:
        """The handler wants something done. What is raised is raised there.

        On a thread for calls alone.
        """

    def replace(self, group: str, value: Any) -> Any:
        """What takes the place of something that can't travel as it is; see `wire.pack`."""
