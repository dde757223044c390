"""Derived runs that wait on disk for their Tiled server.

Enter: the documents of derived runs, with pixels where these travel inside events. Leave: the same
documents, once the server is back. A run is a folder; HDF5 files of slices stay where they are.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from event_model import DocumentNames

from ..errors import PublishError
from .catalog import Attempt, is_complete
from .claims import Claim

_DOCUMENTS, _ABOUT, _CLAIM = "documents.msgpack", "about.json", "claim"
_NAMES = frozenset(name.value for name in DocumentNames)
_ARRAY = 1  # type code of an array among msgpack's extensions
_GIB = 2**30


def default_folder() -> Path:
    """The folder of this user's spool: ``$XDG_STATE_HOME/tomogan_bluesky/spool``."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "tomogan_bluesky" / "spool"


class Spool:
    """A folder of runs that wait.

    Parameters
    ----------
    folder : Path
        Made when the first run comes.
    quota_gib : float
        Most that may be in it.
    """

    def __init__(self, folder: Path, quota_gib: float) -> None:
        self.folder = folder
        self._quota = int(quota_gib * _GIB)

    def open(self, target: str, start_doc: Mapping[str, Any]) -> "SpooledRun":
        """A place for a run on its way to a target; it belongs to this process until `close`.

        Raises
        ------
        PublishError
            The folder cannot be written, or another process has a run of this uid.
        """
        digest = hashlib.sha256(target.encode()).hexdigest()[:8]
        folder = self.folder / f"{start_doc['uid']}.{digest}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            folder.mkdir(exist_ok=True, mode=0o700)  # not everybody may see every sample
            claim = Claim.take(folder / _CLAIM)
            if claim is not None:
                run = SpooledRun(folder, self, claim)
                run._start(target, start_doc)
                return run
        except OSError as error:
            raise self._no_folder(error) from error
        raise PublishError(
            f"derived run {start_doc['uid']}: expected to be the only one who publishes it, but "
            "another process does so now"
        )

    def waiting(self, target: str | None = None) -> list["SpooledRun"]:
        """The runs in the spool, for one target or for any, the oldest first.

        Some may be in the hands of other processes: `SpooledRun.claim` tells.

        Raises
        ------
        PublishError
            The folder cannot be read.
        """
        try:
            runs = [SpooledRun(path, self) for path in self.folder.iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._no_folder(error) from error
        known = [(about["since"], run) for run in runs if (about := run.about) is not None]
        known.sort(key=lambda item: item[0])
        return [run for _, run in known if target in (None, run.target)]

    def used_bytes(self) -> int:
        """How much is in it."""
        return sum(run.size_bytes() for run in self.waiting())

    def _no_folder(self, error: OSError) -> PublishError:
        return PublishError(
            f"{self.folder}: expected a folder in which derived runs can wait for their server, "
            f"got: {error.strerror}; see publishing.spool"
        )

    def check_room(self, n_bytes: int) -> None:
        """Raise PublishError where so much more does not fit."""
        if (used := self.used_bytes()) + n_bytes > self._quota:
            raise PublishError(
                f"{self.folder}: expected room for {n_bytes} more bytes of a run that waits for "
                f"its server, but {used / _GIB:.3f} of {self._quota / _GIB:.3f} GiB are taken; "
                "bring the server back, set publishing.spool_gib, or let the slices go to files: "
                "publishing.directory"
            )


class SpooledRun:
    """One derived run in a spool, on its way to one target."""

    def __init__(self, folder: Path, spool: Spool, claim: Claim | None = None) -> None:
        self._folder = folder
        self._spool = spool
        self._claim = claim

    def _start(self, target: str, start_doc: Mapping[str, Any]) -> None:
        (self._folder / _DOCUMENTS).write_bytes(b"")
        self._write_about(
            {
                "target": target,
                "uid": start_doc["uid"],
                "attempt": start_doc["attempt"],
                "derivation": start_doc["derivation"],
                "raw_uid": start_doc["original_run_uid"],
                "raw_scan_id": start_doc.get("raw_scan_id"),
                "since": time.time(),
                "exit_status": None,
                "is_complete": False,
                "why": "",
            }
        )

    # What is said of it ------------------------------------------------------------------------

    @property
    def about(self) -> dict[str, Any] | None:
        """What `tomogan-bluesky spool list` shows; None where the folder is no run (any more)."""
        try:
            about: dict[str, Any] = json.loads((self._folder / _ABOUT).read_text())
        except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
            return None
        return about

    @property
    def uid(self) -> str:
        return self._folder.name.rpartition(".")[0]

    @property
    def target(self) -> str:
        return str((self.about or {}).get("target", ""))

    @property
    def derivation(self) -> str:
        return str((self.about or {}).get("derivation", ""))

    @property
    def attempt(self) -> Attempt:
        about = self.about or {}
        return Attempt(
            self.uid,
            about.get("attempt", 0),
            about.get("exit_status"),
            about.get("is_complete", False),
        )

    def size_bytes(self) -> int:
        """Of its documents."""
        try:
            return (self._folder / _DOCUMENTS).stat().st_size
        except FileNotFoundError:
            return 0

    def explain(self, why: str) -> None:
        """Remember why it has to wait."""
        if (about := self.about) is not None:
            self._write_about({**about, "why": why})

    def _write_about(self, about: dict[str, Any]) -> None:
        partial = self._folder / f"{_ABOUT}.partial"
        partial.write_text(json.dumps(about, indent=1))
        partial.replace(self._folder / _ABOUT)

    # Documents ---------------------------------------------------------------------------------

    def append(self, name: str, doc: Mapping[str, Any]) -> None:
        """Add a document.

        Raises
        ------
        PublishError
            The spool is full, or the disk does not take it.
        """
        content = msgpack.packb((name, doc), default=_packed)
        if name != "stop":  # which is small, and without which all the rest is lost
            self._spool.check_room(len(content))
        try:
            with (self._folder / _DOCUMENTS).open("ab") as file:
                file.write(content)
            if name == "stop":
                ended = {"exit_status": doc["exit_status"], "is_complete": is_complete(doc)}
                self._write_about({**(self.about or {}), **ended})
        except OSError as error:
            raise PublishError(
                f"{self._folder}: could not keep a {name!r} document for a server that is away "
                f"({error.strerror}); see that the disk is not full, then replay the run"
            ) from error

    def documents(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """All documents, in their order; a last one that was cut off is left out.

        Raises
        ------
        PublishError
            Something else is in the file.
        """
        with (self._folder / _DOCUMENTS).open("rb") as file:
            unpacked = msgpack.Unpacker(
                file, ext_hook=_unpacked, strict_map_key=False, max_buffer_size=0
            )
            try:
                for name, doc in unpacked:
                    if name not in _NAMES or not isinstance(doc, dict):
                        raise ValueError("no document")
                    yield name, doc
            except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
                raise PublishError(
                    f"{file.name}: expected documents, got something else ({error}); the file is "
                    "damaged: remove its folder, and replay the raw run"
                ) from error

    # Whose it is -------------------------------------------------------------------------------

    def claim(self) -> bool:
        """Take it over from whoever had it; False while somebody has it."""
        if self._claim is None:
            try:
                self._claim = Claim.take(self._folder / _CLAIM)
            except FileNotFoundError:
                return False  # somebody has brought it to its target
        return self._claim is not None and self.about is not None

    def close(self) -> None:
        """Leave it for whoever brings it to its target."""
        if self._claim is not None:
            self._claim.release()
            self._claim = None

    def discard(self) -> None:
        """Remove it; it must be ours. Files of slices are left alone."""
        shutil.rmtree(self._folder)
        self.close()


def _packed(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        content = (value.dtype.str, value.shape, np.ascontiguousarray(value).tobytes())
        return msgpack.ExtType(_ARRAY, msgpack.packb(content))
    if isinstance(value, np.generic):
        return value.item()
    raise PublishError(
        f"expected documents of plain values and arrays, got a {type(value).__name__} in one"
    )


def _unpacked(code: int, content: bytes) -> Any:
    if code != _ARRAY:
        raise PublishError(f"expected arrays in a spool, got an extension of type {code}")
    dtype, shape, data = msgpack.unpackb(content)
    return np.frombuffer(data, dtype).reshape(shape)
