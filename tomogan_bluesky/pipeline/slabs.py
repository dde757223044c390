"""The pure middle: a slab of recorded frames becomes reconstructed, then denoised slices.

Enters: a slab (row, angle, column) as recorded. Leaves: slices (slice, y, x) in 1/pixel. No
documents, no files, no network: what a slab becomes depends on its pixels and the settings alone.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from ..config import PreprocessingConfig, ReconstructionConfig
from ..denoise.denoiser import Denoiser, WindowedDenoiser
from ..errors import ConfigurationError, ReconstructionError, RotationCentreError
from ..geometry import ScanGeometry
from ..recon.backends import make_reconstructor
from ..recon.centre import CentreEstimate, find_centre, opposed_pair
from ..recon.incremental import IncrementalGridrec
from ..recon.preprocess import Fields, Preprocessing
from ..recon.tilt import align_rows, row_shifts
from .fallback import Computation, DenoisingElsewhere
from .memory import MemoryPlan, plan_memory

# The rotation centre is found from at most so many rows, and from so many projections, or up to
# twice as many, evenly spread; of even more `recon.wedge` would only take means.
_CENTRE_ROWS = 16
_CENTRE_ANGLES = 384


def rows_within(rows: tuple[int, int] | None, n_rows: int) -> tuple[int, int]:
    """Detector rows [first, last) that are asked for; None: all.

    Raises
    ------
    ConfigurationError
        The detector has fewer.
    """
    first, last = rows or (0, n_rows)
    if last > n_rows:
        raise ConfigurationError(
            f"scan.rows: expected rows of the detector, which has {n_rows}, got {first}:{last}; "
            "the last row is not included"
        )
    return first, last


def find_rotation_centre(
    read: Callable[[list[int], slice], np.ndarray],
    theta: np.ndarray,
    fields: Fields,
    rows: tuple[int, int],
    config: ReconstructionConfig,
) -> CentreEstimate:
    """The rotation centre, from some rows of a scan, and how far it is to be trusted.

    Parameters
    ----------
    read : callable
        Takes indices of projections and rows, returns them as recorded, (row, angle, column).
    theta : float64 array, shape (angle,), radians
    fields : Fields
    rows : tuple of int
        Detector rows [first, last) that may be used.
    config : ReconstructionConfig
        Its method, its smallest transmission and the tilt of the axis are used.

    Raises
    ------
    RotationCentreError
        No method applies, or none finds anything.
    """
    first, last = rows
    spread = slice(first, last, max(1, -(-(last - first) // _CENTRE_ROWS)))
    # Some projections only: to read a few rows of a compressed frame, all of it has to be read.
    angles = list(range(0, len(theta), max(1, len(theta) // _CENTRE_ANGLES)))
    with suppress(RotationCentreError):  # find_centre says what it misses
        angles = sorted({*angles, *opposed_pair(theta)})
    some = Fields(fields.dark[spread], fields.flats[:, spread], fields.weights)
    correct = Preprocessing(PreprocessingConfig(), some, config.minimum_transmission)
    corrected, _ = correct(read(angles, spread), 0, correct.n_rows, angles)
    if tilt := config.preprocessing.axis_tilt_deg:
        corrected = align_rows(corrected, row_shifts(tilt, *fields.dark.shape)[spread])
    return find_centre(corrected, theta[angles], config.rotation_centre_method)


class SlabPipeline:
    """Preprocessing, reconstruction and denoising of the slabs of one scan.

    Rows are those of the binned detector.

    Parameters
    ----------
    geometry : ScanGeometry
        Of the recorded frames.
    config : ReconstructionConfig
    denoiser : Denoiser or None
        None: there is none.
    fields : Fields
        Of the whole detector.
    device : str
        Where the reconstruction runs: "cpu", "cuda", …
    early : IncrementalGridrec, optional
        The reconstruction of all rows that are asked for, which was made while the scan was taken.
    n_clamped : int
        Transmissions that were raised then.
    uncertainty : bool
        Whether to ask the denoiser for that, too, where it has it.

    Raises
    ------
    ReconstructionError
        All angles are the same; settings or fields that do not fit the scan.

    Attributes
    ----------
    windows : WindowedDenoiser or None
        Denoises the reconstructed slabs, one after another.
    geometry : ScanGeometry
        Of what is reconstructed.
    """

    def __init__(
        self,
        geometry: ScanGeometry,
        config: ReconstructionConfig,
        denoiser: Denoiser | None,
        fields: Fields,
        device: str = "cpu",
        early: IncrementalGridrec | None = None,
        n_clamped: int = 0,
        uncertainty: bool = True,
    ) -> None:
        if np.ptp(geometry.theta) == 0:
            raise ReconstructionError(
                f"expected projections at different angles, got {geometry.n_angles} at "
                f"{np.rad2deg(geometry.theta[0]):.6g} degrees; see whether the stage turned, and "
                "whether scan.angle_key names the angle"
            )
        self._recorded = geometry
        self._slab_rows = config.slab_rows
        self._denoiser = None if denoiser is None else DenoisingElsewhere(denoiser)
        self.windows = (
            None if self._denoiser is None else WindowedDenoiser(self._denoiser, uncertainty)
        )
        self._computation = Computation(
            device,
            partial(Preprocessing, config.preprocessing, fields, config.minimum_transmission),
            lambda device: make_reconstructor(self.geometry, config, device),
        )
        self.geometry = self.preprocess.geometry(geometry)
        self._early, self._n_clamped = early, n_clamped
        self._config, self._n_flats = config, len(fields.flats)

    @property
    def preprocess(self) -> Preprocessing:
        """The way from recorded frames to attenuation."""
        return self._computation.preprocess

    @property
    def remarks(self) -> list[str]:
        """What a reader of the slices is to know of how they were computed."""
        denoising = [] if self._denoiser is None else self._denoiser.remarks
        return self._computation.remarks + denoising

    @property
    def is_early(self) -> bool:
        """Whether all is reconstructed already."""
        return self._early is not None

    @property
    def origin(self) -> tuple[float, float]:
        """Point (row, column) of a slice through which the rotation axis goes."""
        return (self._early or self._computation.reconstructor).origin

    def keep_within(
        self,
        bound_gib: float,
        shape: tuple[int, int, int],
        dtype: np.dtype,
        rows: tuple[int, int],
        in_files: bool,
    ) -> MemoryPlan:
        """Take slabs that keep to a bound; no bit depends on it. See `memory.plan_memory`.

        Raises
        ------
        ConfigurationError
            No slabs do.
        """
        plan = plan_memory(
            shape,
            dtype,
            self._n_flats,
            self._config,
            self.preprocess,
            rows,
            bound_gib,
            n_columns=self.geometry.n_columns,
            in_files=in_files,
            n_denoised=0 if self.windows is None else len(self.windows.quantities),
        )
        self._slab_rows = plan.slab_rows
        return plan

    def cuts(self, first: int, last: int) -> list[tuple[int, int]]:
        """Rows [first, last) in the parts that `attenuation` takes."""
        return self.preprocess.cuts(first, last, self._slab_rows)

    def attenuation(self, first: int, last: int, frames: np.ndarray) -> tuple[torch.Tensor, int]:
        """Line integrals of one part of `cuts`.

        Parameters
        ----------
        first, last : int
        frames : array, shape (row, angle, column)
            The rows ``preprocess.recorded(first, last)``, as recorded.

        Returns
        -------
        attenuation : float32 tensor, shape (row, angle, column), on the device
        n_clamped : int
            Transmissions that were raised to the smallest allowed one before the logarithm.

        Raises
        ------
        ReconstructionError
            Shapes that do not belong together, values that are not finite.
        """
        return self._computation.attenuation(frames, first, last, geometry=self._recorded)

    def reconstruct(self, attenuation: torch.Tensor) -> torch.Tensor:
        """Reconstruct one slab: (row, angle, column) in, (slice, y, x) out, 1/pixel.

        Raises
        ------
        ReconstructionError
            A wrong shape, or values that are not finite.
        """
        return self._computation.reconstruct(attenuation)

    def slabs(
        self, first: int, last: int, read: Callable[[list[tuple[int, int]]], Iterator[np.ndarray]]
    ) -> Iterator["Slab"]:
        """Rows [first, last), slab by slab; each is computed when it is called for.

        Parameters
        ----------
        first, last : int
        read : callable
            Takes recorded rows [first, last) of several parts, gives the frames of one part after
            another, shape (row, angle, column).
        """
        if self._early is not None:
            for row in range(first, last, self._slab_rows):
                end = min(row + self._slab_rows, last)
                n_clamped = self._n_clamped if row == first else 0
                slices = slice(row - first, end - first)
                yield Slab(row, end, partial(_finished, self._early, slices, n_clamped))
            return
        cuts = self.cuts(first, last)
        parts = read([self.preprocess.recorded(*cut) for cut in cuts])
        for (start, stop), frames in zip(cuts, parts, strict=True):
            part = _Part(partial(self.attenuation, start, stop, frames))
            for row in range(start, stop, self._slab_rows):
                end = min(row + self._slab_rows, stop)
                yield Slab(row, end, partial(self._slab, part, slice(row - start, end - start)))

    def _slab(self, part: "_Part", rows: slice) -> tuple[torch.Tensor, int]:
        attenuation, n_clamped = part.attenuation()
        return self.reconstruct(attenuation[rows]), n_clamped


def _finished(early: IncrementalGridrec, slices: slice, n_clamped: int) -> tuple[torch.Tensor, int]:
    return early.result(slices), n_clamped


@dataclass(frozen=True, eq=False)
class Slab:
    """Rows that are reconstructed, denoised and published together.

    Attributes
    ----------
    first, last : int
        Rows [first, last).
    reconstruct : callable
        Computes the slices (slice, y, x), and the number of transmissions that were clamped.
    """

    first: int
    last: int
    reconstruct: Callable[[], tuple[torch.Tensor, int]]


class _Part:
    """Attenuation that several slabs are cut from: computed once, its clamps told once."""

    def __init__(self, compute: Callable[[], tuple[torch.Tensor, int]]) -> None:
        self._compute = compute
        self._attenuation: torch.Tensor | None = None

    def attenuation(self) -> tuple[torch.Tensor, int]:
        n_clamped = 0
        if self._attenuation is None:
            self._attenuation, n_clamped = self._compute()
        return self._attenuation, n_clamped
