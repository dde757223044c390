"""Previews reach Tiled at once, whatever else waits to be sent in batches.

Enters: what a `TiledWriter` normalizes. Leaves: the same; the events of previews are not held back.
"""

from collections.abc import Callable, Mapping
from typing import Any

from bluesky_tiled_plugins.writing.tiled_writer import RunNormalizer

from .preview_documents import STREAM


class PromptPreviews(RunNormalizer):
    """The normalizer of a `TiledWriter` that does not let previews wait for others of their kind.

    The writer sends the events of a stream in batches, of one size for all streams of a run. It has
    no way to say that what it holds be sent, so its size of a batch is 1 while a preview passes.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._previews: set[str] = set()
        self._writer: Any = None

    def subscribe(self, func: Callable[..., Any], name: str = "all") -> None:
        """Remember who writes."""
        self._writer = func
        super().subscribe(func, name)

    def descriptor(self, doc: Mapping[str, Any]) -> None:
        super().descriptor(doc)
        if doc["name"] == STREAM:
            self._previews.add(doc["uid"])

    def event(self, doc: Mapping[str, Any]) -> None:
        if doc["descriptor"] not in self._previews:
            super().event(doc)
            return
        size = self._writer._batch_size
        self._writer._batch_size = 1
        try:
            super().event(doc)
        finally:
            self._writer._batch_size = size
