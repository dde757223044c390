"""The documents of one derived run, to every target.

Enter: documents. Leave: the same, to each target. One that fails does not keep the others from
theirs.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..errors import PublishError
from .targets import Publish

logger = logging.getLogger(__name__)


class Broadcast:
    """Sends the documents of one derived run to every target.

    A target that raises gets no more documents of this run; `check` tells.

    Parameters
    ----------
    sinks : iterable of callable(name, doc)
    ended : callable(start_doc, stop_doc), optional
        Called after the stop document.
    """

    def __init__(
        self,
        sinks: Iterable[Publish],
        ended: Callable[[Mapping[str, Any], Mapping[str, Any]], None] | None = None,
    ) -> None:
        self._errors: list[Exception] = []
        self._sinks = list(sinks)
        self._ended = ended
        self._start_doc: Mapping[str, Any] = {}

    @property
    def waiting(self) -> list[str]:
        """Why the run waits in the spool, for each target that is away."""
        return [why for sink in self._sinks if (why := getattr(sink, "waiting", None))]

    @property
    def reached_any(self) -> bool:
        """Whether at least one target has taken every document so far."""
        return bool(self._sinks)

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        for sink in list(self._sinks):
            with self._dropped_on_error(sink, name):
                sink(name, doc)
        if name == "start":
            self._start_doc = doc
        elif name == "stop" and self._ended is not None:
            self._ended(self._start_doc, doc)

    def finish(self) -> None:
        """Wait until every target has all documents so far."""
        for sink in list(self._sinks):
            if (finish := getattr(sink, "finish", None)) is not None:
                with self._dropped_on_error(sink, "last"):
                    finish()

    @contextmanager
    def _dropped_on_error(self, sink: Publish, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            # `check` raises the first one, and who calls it tells.
            level = logging.ERROR if self._errors else logging.INFO
            logger.log(level, "publishing a %r document failed: %s", name, error)
            self._errors.append(error)
            self._sinks.remove(sink)

    def check(self) -> None:
        """Raise the first error of any target.

        Raises
        ------
        PublishError
        """
        if self._errors:
            first = self._errors[0]
            if isinstance(first, PublishError):
                raise first
            raise PublishError(
                f"expected every publisher to take the derived run, got from one of them: "
                f"{type(first).__name__}: {first}"
            ) from first
