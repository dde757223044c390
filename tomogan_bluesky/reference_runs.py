"""Darks and flats that were recorded in a run of their own.

Enter: runs with darks and flats, live or from a catalog. Leave: their `References`, by uid.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from .config import ScanConfig
from .errors import MissingFramesError
from .intake.archive import documents
from .intake.documents import ScanDocuments
from .intake.references import References
from .intake.sinogram import FrameStore

# Mean frames are small; a beamline goes back to those of the last few samples.
_KEPT = 8


class ReferenceRuns:
    """Remembers the references of runs, and looks into the catalog for those it has not seen.

    Parameters
    ----------
    config : ScanConfig
        How such a run is read.
    find_run : callable
        Returns the archived run of a uid, or None.
    """

    def __init__(self, config: ScanConfig, find_run: Callable[[str], Any]) -> None:
        self._config = config
        self._find_run = find_run
        self._known: OrderedDict[str, References] = OrderedDict()

    def remember(self, uid: str, references: References) -> None:
        """Keep the references of a run that went by."""
        self._known[uid] = references
        self._known.move_to_end(uid)
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)

    def get(self, uid: str) -> References:
        """The references of a run.

        Raises
        ------
        MissingFramesError
            The run is neither known nor in the catalog, or has no darks or flats.
        """
        if uid not in self._known:
            run = self._find_run(uid)
            if run is None:
                raise MissingFramesError(
                    f"expected the darks and flats in run {uid!r}, which has not been seen live "
                    "and is in none of the catalogs that are published to; record it again, or "
                    f"see that the start key {self._config.references_run_key!r} names it rightly"
                )
            store = FrameStore(self._config)
            reader = ScanDocuments(self._config, store.add, store.expect_shape)
            for name, doc in documents(run):
                reader(name, doc)
            self.remember(uid, store.references())
        return self._known[uid]
