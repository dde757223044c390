"""The documents of a derived run.

Enter: the start document of a raw run, slabs of slices, and at the end what became of them. Leave:
the documents of a run of its own, each composed and validated by event-model, to one callable; and
one HDF5 file with the pixels, unless these travel inside the events.
"""

import json
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import event_model
import numpy as np

from ..config import PER_PIXEL, PublishingConfig, Scale
from ..errors import PublishError
from ..intake.uris import file_uri
from .identity import ORIGINAL_RUN, SPEC, derived_uid, volume_path
from .preview_documents import PreviewDocuments
from .volume_documents import VolumeDocuments
from .volume_file import OWNER, VolumeFile, share_with

Emit = Callable[[str, Mapping[str, Any]], Any]
ExitStatus = Literal["success", "abort", "fail"]

FRAMES = "tomogan_frames"
"""Stop key of a derived run that holds the account of the projections."""

CONCLUSIONS = "tomogan_conclusions"
"""Stop key of a derived run that holds what its start document would, had it been known then."""

# What people look for, and whom the data belong to.
_INHERITED = (
    "sample",
    "data_session",
    "data_groups",
    "group",
    "owner",
    "project",
    "proposal",
    "pixel_size_um",
    "tiled_access_tags",
)


class DerivedRun:
    """One derived run, from its start to its stop document.

    Call `start`, then `open_volume` and `write_slab` for each slab in row order, then `stop`, and
    `preview` at any time between. A scan that cannot be reconstructed gets `start` and `stop`
    alone.

    Parameters
    ----------
    emit : callable
        Called with each (name, document).
    raw_start : mapping
        Start document of the raw run.
    derivation : str
        See `derivation_of`.
    attempt : int
        From 1; decides the uid together with the derivation.
    metadata : mapping
        Provenance for the start document. Entries that are None are left out; mappings become JSON
        text, because their keys may contain ``.`` or ``/``, which start documents must not.
    config : PublishingConfig
        With a directory, the pixels go to a file there. Without, they go into the events, and are
        announced slab by slab whatever `announce` says.
    scale : Scale
        Units of what is published, and the factor that the slices, in 1/pixel, are multiplied by.

    Attributes
    ----------
    uid : str
    volume_path : Path or None
        The file of the slices, once `open_volume` has made it.
    """

    def __init__(
        self,
        emit: Emit,
        raw_start: Mapping[str, Any],
        *,
        derivation: str,
        attempt: int,
        metadata: Mapping[str, Any],
        config: PublishingConfig,
        scale: Scale = PER_PIXEL,
    ) -> None:
        self.uid = derived_uid(derivation, attempt)
        self.volume_path: Path | None = None
        self._emit = emit
        self._config = config
        self._scale = scale
        self._raw_uid: str = raw_start["uid"]
        self._start_metadata = {
            **{key: raw_start[key] for key in _INHERITED if raw_start.get(key) is not None},
            **_flat(metadata),
            ORIGINAL_RUN: self._raw_uid,
            "derived_from": [self._raw_uid],
            "derivation": derivation,
            "attempt": attempt,
            "writer": {"host": socket.gethostname(), "pid": os.getpid()},
            "plan_name": "tomogan_bluesky",
            "tiled_specs": [SPEC],
        }
        # Not as scan_id: there, the number would lead to this run instead of the raw one.
        if raw_start.get("scan_id") is not None:
            self._start_metadata["raw_scan_id"] = raw_start["scan_id"]
        self._run: event_model.ComposeRunBundle | None = None
        self._volume: VolumeDocuments | None = None
        self._previews: PreviewDocuments | None = None
        self._stopped = False

    def start(self) -> None:
        """Emit the start document."""
        if self._run is not None:
            raise PublishError(f"derived run {self.uid}: expected one start, got a second one")
        self._run = event_model.compose_run(uid=self.uid, metadata=self._start_metadata)
        self._emit("start", self._run.start_doc)

    def open_volume(
        self,
        shape: tuple[int, int, int],
        quantities: Sequence[str],
        scalars: Sequence[str] = (),
    ) -> None:
        """Say what is coming, and make the file for it.

        Parameters
        ----------
        shape : (slice, y, x)
            Of the whole volume.
        quantities : sequence of str
            Names of the volumes that every slab brings.
        scalars : sequence of str
            Names of the numbers that every slab brings, one a slice; ``slice_index`` is added. The
            descriptor is emitted with the first slab, which shows their types.

        Raises
        ------
        PublishError
            The file exists or cannot be made; no start, or a second volume.
        """
        if self._run is None or self._stopped or self._volume is not None:
            raise PublishError(
                f"derived run {self.uid}: expected one open_volume between start and stop"
            )
        file, swmr = None, self._config.announce == "live"
        if self._config.directory is not None:
            path = volume_path(self._config.directory, self.uid)
            file_uri(path)  # a name that readers could not find is refused before it is used
            file = VolumeFile(
                path,
                shape,
                quantities,
                units=self._scale.units,
                attributes={
                    OWNER: self.uid,
                    "raw_run_uid": self._raw_uid,
                    "creator": "tomogan_bluesky",
                },
                swmr=swmr,
            )
            self.volume_path = path
            if self._config.group is not None:
                share_with(path, self._config.group)
        seen = "" if file is None else file_uri(self._as_tiled_sees(file.path))
        self._volume = VolumeDocuments(
            self._run,
            shape,
            tuple(quantities),
            self._scale.units,
            tuple(scalars),
            file,
            seen,
            swmr,
        )

    def write_slab(
        self,
        first_slice: int,
        arrays: Mapping[str, np.ndarray],
        scalars: Mapping[str, Sequence[float]],
    ) -> None:
        """Publish one slab: pixels first, then the documents that announce them.

        Parameters
        ----------
        first_slice : int
            Position of the slab in the volume; slabs come in row order.
        arrays : mapping of quantity to array, shape (slice, y, x)
            In 1/pixel.
        scalars : mapping of name to sequence, one number a slice

        Raises
        ------
        PublishError
            A slab that is not the next one, of another shape, or with other scalars than said; a
            disk that does not take it.
        """
        if self._volume is None or self._stopped:
            raise PublishError(
                f"derived run {self.uid}: expected a slab between open_volume and stop"
            )
        self._volume.write(first_slice, self._scaled(arrays), scalars)
        if self._config.announce == "live" or self._volume.file is None:
            self._announce()

    def preview(self, arrays: Mapping[str, np.ndarray], scalars: Mapping[str, float]) -> None:
        """Publish slices of a scan that is still being taken, in the stream "preview".

        Parameters
        ----------
        arrays : mapping of quantity to float32 array, shape (slice, y, x)
        scalars : mapping of name to number
            All previews have the quantities, the numbers and the slices of the first.

        Raises
        ------
        PublishError
            Before the start or after the stop.
        """
        if self._run is None or self._stopped:
            raise PublishError(f"derived run {self.uid}: expected a preview between start and stop")
        if self._previews is None:
            self._previews = PreviewDocuments(self._run)
        pixels = self._scaled(arrays)
        for name, doc in self._previews.documents(pixels, scalars, self._scale.units):
            self._emit(name, doc)

    def stop(
        self,
        exit_status: ExitStatus,
        reason: str,
        account: Mapping[str, Any],
        conclusions: Mapping[str, Any] | None = None,
    ) -> None:
        """Close the file and emit the stop document.

        Parameters
        ----------
        exit_status : "success", "abort" or "fail"
        reason : str
        account : mapping
            The projections: expected, used, superseded, missing, rejected (counts by reason). It
            goes into the stop document under `FRAMES`, the reasons as a list of
            ``{"reason": …, "frames": …}``.
        conclusions : mapping, optional
            Provenance that was not known at the start, for a run that started with a preview. It
            goes into the stop document under `CONCLUSIONS`, treated as the start's metadata.

        Raises
        ------
        PublishError
            No start, or a second stop. The file cannot be closed: then the stop document says
            "fail" all the same.
        """
        if self._run is None or self._stopped:
            raise PublishError(f"derived run {self.uid}: expected one stop, after the start")
        self._stopped = True
        failure: PublishError | None = None
        if self._volume is not None:
            try:
                self._volume.close()
            except PublishError as error:
                failure = error
                exit_status, reason = "fail", reason or str(error)
            else:
                self._announce()
        stop: dict[str, Any] = {**self._run.compose_stop(exit_status=exit_status, reason=reason)}
        stop[FRAMES] = _without_free_keys(account)
        if conclusions:
            stop[CONCLUSIONS] = _flat(conclusions)
        event_model.schema_validators[event_model.DocumentNames.stop].validate(stop)
        self._emit("stop", stop)
        if failure is not None:
            raise failure

    def _scaled(self, arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Slices in the units that are published."""
        if self._scale.factor == 1:
            return arrays
        factor = np.float32(self._scale.factor)
        return {quantity: factor * array for quantity, array in arrays.items()}

    def _as_tiled_sees(self, path: Path) -> Path:
        for ours, theirs in self._config.path_map:
            if str(path).startswith(ours):
                return Path(theirs + str(path)[len(ours) :])
        return path

    def _announce(self) -> None:
        if self._volume is not None:
            for name, doc in self._volume.documents():
                self._emit(name, doc)


def _without_free_keys(account: Mapping[str, Any]) -> dict[str, Any]:
    """With lists for mappings whose keys are prose: archives refuse some characters in keys."""
    return {
        key: [{"reason": reason, "frames": frames} for reason, frames in value.items()]
        if isinstance(value, Mapping)
        else value
        for key, value in account.items()
    }


def _flat(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is None, and with mappings as JSON text."""
    return {
        key: json.dumps(value) if isinstance(value, Mapping) else value
        for key, value in metadata.items()
        if value is not None
    }
