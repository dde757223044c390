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
from .identity import is_derived
from .prompt import PromptPreviews

# Events of a run that is not ours go to Tiled in batches: an HTTP request takes some 20 ms.
_BATCH = 32


class TiledPublisher:
    """Writes runs into a Tiled catalog; a callable for (name, document).

    Any number of runs at a time. Each has a writer of its own, which goes with its stop document.

    Parameters
    ----------
    client : Tiled client
    batch_size : int, optional
        How many events are sent together. None: as many as a slab has (the start key
        ``slab_rows`` of a derived run), so that every slab is readable as soon as its documents
        are here, at the price of one request; a few dozen for other runs.
    """

    def __init__(self, client: BaseClient, batch_size: int | None = None) -> None:
        self._client = client
        self._batch_size = batch_size
        self._writers: dict[str, TiledWriter] = {}
        self._run_of: dict[str, str] = {}

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
                # Arrays in events go to files, never into the table: it would make text of them.
                self._writers[run_uid] = TiledWriter(
                    self._client,
                    normalizer=PromptPreviews,
                    batch_size=self._batch_size_of(doc),
                    max_array_size=0,
                )
            for part in _in_two(doc) if name == "stream_datum" else [doc]:
                self._writers[run_uid](name, part)
        except Exception as error:
            self._forget(run_uid)
            raise kind_of(error)(
                f"run {run_uid}: expected Tiled to take the {name!r} document, got "
                f"{in_words(error)}; {what_to_do(error)}"
            ) from error
        if derived:
            check_privacy(self._client, doc)
        if name == "stop":
            self._forget(run_uid)
        elif "uid" in doc and name in ("descriptor", "resource", "stream_resource"):
            self._run_of[doc["uid"]] = run_uid

    def _batch_size_of(self, start_doc: Mapping[str, Any]) -> int:
        if self._batch_size is not None:
            return self._batch_size
        return int(start_doc.get("slab_rows", 1)) if is_derived(start_doc) else _BATCH

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


def _in_two(stream_datum: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The last point of a stream_datum apart from those before it.

    A TiledWriter that sends in batches keeps the first stream_datum in any case, and looks at the
    size of the batch when the next one comes. In two parts, a whole batch leaves at once.
    """
    first, second = dict(stream_datum), dict(stream_datum)
    for key in ("indices", "seq_nums"):
        start, stop = stream_datum[key]["start"], stream_datum[key]["stop"]
        first[key] = {"start": start, "stop": stop - 1}
        second[key] = {"start": stop - 1, "stop": stop}
    first["uid"] = f"{stream_datum['uid']}/first"
    return [part for part in (first, second) if part["indices"]["start"] < part["indices"]["stop"]]
