"""Darks and flats that a scan does not have itself: those of another run, or in files.

Enter: runs with darks and flats, live or from a catalog, and settings that name files. Leave: their
`References`, remembered.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from typing import Any

from ..config import ScanConfig
from ..errors import IntakeError, MissingFramesError
from .archive import documents
from .documents import ScanDocuments
from .frame_store import FrameStore
from .reference_files import find_reference_files, read_references
from .references import References

# Mean frames are small; a beamline goes back to those of the last few samples.
_KEPT = 8


class ReferenceRuns:
    """Remembers references, and looks into the catalog and into files for those it has not seen.

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
        self._known: OrderedDict[Hashable, References] = OrderedDict()

    def remember(self, uid: str, references: References) -> None:
        """Keep the references of a run that went by."""
        self._keep(uid, references)

    def elsewhere(
        self, start_doc: Mapping[str, Any], has_own: bool
    ) -> tuple[References | None, dict[str, Any]]:
        """What a scan takes from elsewhere.

        Parameters
        ----------
        start_doc : mapping
        has_own : bool
            Whether the scan has darks and flats itself.

        Returns
        -------
        references : References or None
            None: the scan depends on its own.
        provenance : dict
            For the start document of the derived run: which run or which files.

        Raises
        ------
        IntakeError
            There should be some elsewhere, and there are not.
        """
        own, named = str(start_doc["uid"]), self._named(start_doc)
        if named is not None:
            return self.get(named), {"dark_flat_run": named}
        if self._config.reference_files is None or has_own:
            return None, {"dark_flat_run": own}
        files = find_reference_files(self._config, start_doc)
        if files not in self._known:
            self._keep(files, read_references(files, self._config))
        references = self._known[files]
        return references, {
            "dark_flat_files": [str(file) for file in files],
            "dark_flat_sha256": references.sha256,
        }

    def sha256_in_files(self, start_doc: Mapping[str, Any], has_own: bool) -> str:
        """What tells the darks and flats in files from others; "": a scan takes none from files.

        A run that is named never changes, but files do. Where they can't be read it is "", too:
        that is told when they are needed.
        """
        if self._config.reference_files is None or self._named(start_doc) is not None:
            return ""
        with suppress(IntakeError):
            return str(self.elsewhere(start_doc, has_own)[1].get("dark_flat_sha256", ""))
        return ""

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
            try:
                for name, doc in documents(run):
                    reader(name, doc)
                self.remember(uid, store.references())
            finally:
                reader.close()
        return self._known[uid]

    def _named(self, start_doc: Mapping[str, Any]) -> str | None:
        """The other run that a scan names for its darks and flats, if it does."""
        own, key = str(start_doc["uid"]), self._config.references_run_key
        uid = str(start_doc.get(key, own)) if key else own
        return None if uid == own else uid

    def _keep(self, key: Hashable, references: References) -> None:
        self._known[key] = references
        self._known.move_to_end(key)
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)
