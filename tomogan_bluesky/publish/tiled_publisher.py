"""Documents into a Tiled catalog.

Enter: the documents of any number of runs. Leaves: the runs, in the catalog.
"""

from collections.abc import Mapping
from typing import Any

from bluesky_tiled_plugins import TiledWriter
from tiled.client.base import BaseClient

from ..errors import PublishError
from .access import as_private_as_raw, check_privacy
from .explain import in_words, kind_of, what_to_do
from .identity import is_derived, is_ours
from .volume_writer import VolumeWriter

# Events of a run that is not ours go to Tiled in batches: an HTTP request takes some 20 ms.
_BATCH = 32


class TiledPublisher:
    """Writes runs into a Tiled catalog; a callable for (name, document).

    Any number of runs at a time. Each has a writer of its own, which goes with its stop document.

    Parameters
    ----------
    client : Tiled client
    batch_size : int
        How many events of a run that is not ours are sent together. Slices of ours are readable
        as soon as the document that announces them was taken.

    Attributes
    ----------
    may_hold_rows_twice : bool
        Whether Tiled may have taken rows of a run of ours twice, because a connection broke.
    """

    def __init__(self, client: BaseClient, batch_size: int = _BATCH) -> None:
        self._client = client
        self._batch_size = batch_size
        self._writers: dict[str, TiledWriter | VolumeWriter] = {}
        self._run_of: dict[str, str] = {}
        self.may_hold_rows_twice = False

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document.

        Raises
        ------
        PublishError
            Tiled did not take it.
        """
        run_uid = self._run_uid(name, doc)
        derived = name == "start" and is_derived(doc)
        if derived:
            doc = as_private_as_raw(self._client, doc)
        try:
            if name == "start":
                self._writers[run_uid] = self._writer_of(doc)
            self._writers[run_uid](name, doc)
        except Exception as error:
            self._forget(run_uid)
            raise kind_of(error)(
                f"run {run_uid}: expected Tiled to take the {name!r} document, got "
                f"{in_words(error)}; {what_to_do(error)}"
            ) from error
        if derived:
            check_privacy(self._client, doc)
        if name == "stop":
            writer = self._writers[run_uid]
            if isinstance(writer, VolumeWriter):
                self.may_hold_rows_twice |= writer.may_hold_rows_twice
            self._forget(run_uid)
        elif "uid" in doc and name in ("descriptor", "resource", "stream_resource"):
            self._run_of[doc["uid"]] = run_uid

    def _writer_of(self, start_doc: Mapping[str, Any]) -> TiledWriter | VolumeWriter:
        if is_ours(start_doc):
            return VolumeWriter(self._client)
        # Arrays in events go to files, never into the table: it would make text of them.
        return TiledWriter(self._client, batch_size=self._batch_size, max_array_size=0)

    def _run_uid(self, name: str, doc: Mapping[str, Any]) -> str:
        if name == "start":
            return str(doc["uid"])
        for key in ("run_start", "descriptor", "resource"):
            if key in doc:
                return self._run_of.get(doc[key], doc[key])
        raise PublishError(f"expected a document of a run, got a {name!r} that belongs to none")

    def _forget(self, run_uid: str) -> None:
        self._writers.pop(run_uid, None)
        for uid in [uid for uid, owner in self._run_of.items() if owner == run_uid]:
            del self._run_of[uid]
