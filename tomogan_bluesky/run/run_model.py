"""The model of one run: as its photons and its filter ask for it, and what is checked of it.

Enter: the frames of a run, its settings, and the generator that was loaded. Leave: a denoiser for
its slices, and checks of some of them. What is to be said of either goes into the run's record.
"""

import logging
from functools import cached_property

from ..config import Settings
from ..denoise.denoiser import Denoiser
from ..denoise.refiltered import refiltered
from ..errors import MissingFramesError
from ..geometry import ScanGeometry
from ..intake.frame_store import FrameStore
from ..intake.scan import Scan
from ..pipeline.checks import SliceChecks
from ..pipeline.slabs import SlabPipeline
from ..report import RunRecord
from ..training.noise_profile import NoiseProfile, measure_noise
from ..trust.consistency import Photons
from .checking import slice_checks
from .derivation import Derivation
from .harmless import suited

logger = logging.getLogger(__name__)


class RunModel:
    """What is made of the generator for one run.

    Parameters
    ----------
    settings : Settings
    store : FrameStore
        Its darks and flats are looked at when the scan has ended.
    derivation : Derivation
        Has the generator, once it is loaded.
    record : RunRecord
    """

    def __init__(
        self, settings: Settings, store: FrameStore, derivation: Derivation, record: RunRecord
    ) -> None:
        self._settings, self._store = settings, store
        self._derivation, self._record = derivation, record

    def denoiser(self, geometry: ScanGeometry) -> Denoiser | None:
        """The denoiser for the run's filter, and for its photons where its flats and darks tell."""
        denoiser = self._derivation.denoiser
        if denoiser is None:
            return None
        if self._profile is not None:
            shape = (geometry.n_columns, geometry.n_angles)
            denoiser, remarks = suited(denoiser, self._profile, *shape)
            for remark in remarks:
                self._record.remark(remark)
        return refiltered(denoiser, self._settings.reconstruction)

    def checks(
        self, scan: Scan, pipeline: SlabPipeline, rows: tuple[int, int]
    ) -> SliceChecks | None:
        """Checks of some slices; where they can't be made the run goes on without."""
        denoiser, profile, photons = self._derivation.denoiser, self._profile, None
        if denoiser is None or self._settings.denoising.check_slices == 0:
            return None
        try:
            with self._record.timed("check"):
                if profile is not None:
                    n_flats = len(self._store.reference_frames("flat"))
                    photons = Photons(profile.flat_electrons, profile.read_noise, n_flats)
                first_last = pipeline.preprocess.rows_within(*rows)
                return slice_checks(
                    self._settings, denoiser.card, photons, scan, pipeline, first_last
                )
        except Exception as error:
            self._record.remark(f"the denoised slices could not be checked: {error}")
            return None

    @cached_property
    def _profile(self) -> NoiseProfile | None:
        """The noise of the detector, where the run's own flats and darks tell."""
        if not self._store.has_references:
            return None
        try:
            frames = (self._store.reference_frames(kind) for kind in ("flat", "dark"))
            return measure_noise(*frames)
        except MissingFramesError as error:
            logger.debug(
                "run %s: its detector's noise is not known: %s", self._derivation.raw_uid, error
            )
            return None
