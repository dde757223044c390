"""The writer of a derived run: every document is in Tiled before the next one is taken.

Enter: documents as `documents.DerivedRun` makes them, perhaps merged. Leaves: the run, in the
catalog; one request for each page of events and each range of slices.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from bluesky_tiled_plugins.writing.tiled_writer import _RunWriter
from tiled.client.base import BaseClient

_OF_DATA = ("event", "event_page", "stream_datum")


class VolumeWriter(_RunWriter):
    """Writes one derived run.

    `TiledWriter` would look for what older documents have, and copy all pixels with it; cut pages
    into events; and collect these in batches of one size, the last of which it has no way to send.
    None of it helps documents that are as event-model has them today, and come in pages already.

    Parameters
    ----------
    client : Tiled client
    """

    def __init__(self, client: BaseClient) -> None:
        # Arrays in events go to files, never into the table: it would make text of them.
        super().__init__(client.include_data_sources(), batch_size=1, max_array_size=0)

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Write one document."""
        # The writer keeps, and changes, what it is given; nobody else is to notice.
        super().__call__(name, doc if name in _OF_DATA else deepcopy(doc))

    @property
    def may_hold_rows_twice(self) -> bool:
        """Whether a connection broke while Tiled took rows: they were sent again, come what may."""
        return any("forcing a retry" in note for note in self.notes)

    def event_page(self, doc: Mapping[str, Any]) -> None:
        """Write the rows of a page."""
        columns = {
            "seq_num": doc["seq_num"],
            "time": doc["time"],
            **doc["data"],
            **{f"ts_{key}": times for key, times in doc["timestamps"].items()},
        }
        rows = [
            dict(zip(columns, values, strict=True))
            for values in zip(*columns.values(), strict=True)
        ]
        self._write_internal_data(rows, desc_node=self._desc_nodes[doc["descriptor"]])
