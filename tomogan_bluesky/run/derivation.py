"""The derived run of one raw run, opened once: by the first preview, or at the end.

Enter: the raw start document and the settings. Leave: whether there is something to do, the
generator, and a `DerivedRun` that has started.
"""

import logging
from collections.abc import Mapping
from typing import Any

from ..config import PER_PIXEL, Settings
from ..denoise.denoiser import Denoiser, check_reconstruction
from ..denoise.refiltered import refiltered
from ..errors import ModelError
from ..publish.broadcast import Broadcast
from ..publish.documents import DerivedRun
from ..publish.identity import derivation_of
from ..report import RunRecord
from .engine import Engine

logger = logging.getLogger(__name__)


class Derivation:
    """What one raw run, these settings and this generator lead to.

    Parameters
    ----------
    engine : Engine
    settings : Settings
        Those of the run.
    record : RunRecord
    start_doc : mapping
        Of the raw run.

    Attributes
    ----------
    raw_uid : str
    denoiser : Denoiser or None
        None: none is asked for, or it can't be used.
    final_uid : str or None
        The successful derived run that is there already.
    run : DerivedRun or None
        Once it is made.
    emit : Broadcast or None
        Where its documents go.
    """

    def __init__(
        self, engine: Engine, settings: Settings, record: RunRecord, start_doc: Mapping[str, Any]
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._record = record
        self._start_doc = start_doc
        self.raw_uid = str(start_doc["uid"])
        self._publishing = settings.publishing
        self._scale = PER_PIXEL
        self._attempt = 1
        self._derivation = self._references_sha256 = ""
        self.denoiser: Denoiser | None = None
        self.final_uid: str | None = None
        self.run: DerivedRun | None = None
        self.emit: Broadcast | None = None

    def load(self) -> None:
        """Load the generator.

        Raises
        ------
        ModelNotFoundError, ModelError
        """
        if self.denoiser is None:
            self.denoiser = self._fitting(self._engine.denoiser(self._start_doc, self._settings))

    def refiltered(self, denoiser: Denoiser) -> Denoiser:
        """The same denoiser, or one that takes slices of this reconstruction's filter."""
        return refiltered(denoiser, self._settings.reconstruction)

    def identify(self, has_references: bool) -> str:
        """What all attempts have in common; the generator must be loaded, if it can be.

        Parameters
        ----------
        has_references : bool
            Whether the raw run has darks and flats itself.
        """
        self._references_sha256 = self._sha256_in_files(has_references)
        return derivation_of(
            self.raw_uid,
            self._settings.digest(),
            self._generator_digest(),
            self._references_sha256,
        )

    def is_other(self, has_references: bool) -> bool:
        """Whether the darks and flats are others by now than those that it was identified with.

        They may have been taken from files, and the scan records its own after the projections; or
        the files were written again.

        Parameters
        ----------
        has_references : bool
            See `identify`.
        """
        return self._sha256_in_files(has_references) != self._references_sha256

    def look_up(self, has_references: bool) -> None:
        """See which attempt this is, and whether an earlier one was successful.

        Parameters
        ----------
        has_references : bool
            See `identify`.

        Raises
        ------
        PublishError, ConfigurationError
        """
        self._derivation = self.identify(has_references)
        self._publishing = self._settings.publishing.for_run(self._start_doc)
        binning = self._settings.reconstruction.preprocessing.binning
        self._scale = self._publishing.scale(self._start_doc, binning)
        self._attempt, final_uid = self._engine.publishers.next_attempt(
            self._derivation, self._publishing.directory
        )
        if not self._engine.again:
            self.final_uid = final_uid

    def make(self, metadata: Mapping[str, Any]) -> DerivedRun:
        """The derived run, which has not started yet.

        Parameters
        ----------
        metadata : mapping
            For the start document.
        """
        self.emit = self._engine.publishers.broadcast()
        self.run = DerivedRun(
            self.emit,
            self._start_doc,
            derivation=self._derivation,
            attempt=self._attempt,
            metadata=metadata,
            config=self._publishing,
            scale=self._scale,
        )
        return self.run

    def _sha256_in_files(self, has_references: bool) -> str:
        return self._engine.reference_runs.sha256_in_files(self._start_doc, has_references)

    def _fitting(self, denoiser: Denoiser | None) -> Denoiser | None:
        """The denoiser, once it is told whether it was trained on slices like these."""
        if denoiser is None:
            return None
        if mismatch := check_reconstruction(denoiser.card, self._settings.reconstruction):
            if self._settings.denoising.on_mismatch == "refuse":
                raise ModelError(f"{mismatch} (denoising.on_mismatch is 'refuse')")
            self._record.remark(mismatch)
        return denoiser

    def _generator_digest(self) -> str:
        """What stands for the generator in the derivation.

        A generator that can't be used is another thing than none: what is published in its place
        must neither be taken for the final version without one, nor find that one and do nothing.
        """
        if self.denoiser is not None:
            return self.denoiser.sha256
        if self._engine.model is None:
            return "none"
        self._record.remark("not denoised: the reconstruction alone is published")
        return f"unusable: {self._engine.model}"
