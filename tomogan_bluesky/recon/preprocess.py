"""From recorded frames to attenuation: every step that a configuration asks for, in order.

Enters: rows of recorded projections (row, angle, column), with as many rows around them as the
steps look at. Leaves: the attenuation of those rows. The steps are zingers, binning, dark and flat
fields, stripes, phase, logarithm, axis tilt, full turn. Rows are cut so that no bit of the result
depends on how many are asked for at once: steps that look at neighbouring rows get them, and phase
retrieval, which looks far, always works on the same bands of rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import ConfigurationError, ReconstructionError
from ..geometry import ScanGeometry
from .binning import bin_frames, binned_column, full_to_half_turn
from .checks import first_not_finite
from .flatfield import attenuation, share_of_beam, usable_beam
from .phase import reach, retrieve_phase
from .stripes import remove_all_stripes, remove_stripes_by_sorting
from .tilt import align_rows, row_shifts
from .tomopy_backend import TomopyStripeRemoval
from .wavelets import remove_stripes_by_wavelets
from .zingers import remove_zingers

if TYPE_CHECKING:  # reconstruction needs numpy and torch only, and this needs pydantic
    from ..config import PhaseConfig, PreprocessingConfig

# Recorded types that torch takes as they are; others become float32 first.
_DIRECT = {"uint8", "int16", "uint16", "int32", "float32"}
# Values that are corrected at once: what is in between stays small beside a slab.
_CHUNK = 1 << 22
# Least rows around those that phase retrieval works on: a response that is cut at the Nyquist
# frequency rings over some rows, however short its decay.
_LEAST_REACH = 8


def to_tensor(frames: np.ndarray, device: str | torch.device = "cpu") -> torch.Tensor:
    """Recorded frames on a device: of their own type where torch has it, else float32."""
    if str(frames.dtype) not in _DIRECT:
        frames = frames.astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(frames)).to(device)


@dataclass(frozen=True, eq=False)
class Fields:
    """Dark and flat fields of a scan.

    Attributes
    ----------
    dark : float32 array, shape (row, column)
    flats : float32 array, shape (time, row, column)
        One, or several between which the beam drifted.
    weights : float32 array, shape (angle, time)
        Share of each flat in the flat field of each projection.
    """

    dark: np.ndarray
    flats: np.ndarray
    weights: np.ndarray


class Preprocessing:
    """The way from recorded frames to attenuation, for one scan.

    *Rows* without further word are those of the binned detector.

    Parameters
    ----------
    config : PreprocessingConfig
    fields : Fields
        Of the whole detector, as recorded.
    minimum_transmission : float
        See `ReconstructionConfig`.
    device : str or torch.device

    Attributes
    ----------
    n_rows : int
        Of the binned detector.
    by_projection : bool
        Whether each projection can be taken by itself, and needs no others of its scan.

    Raises
    ------
    ReconstructionError
        Fields that are not finite, do not fit each other, or hold no beam; a binning beyond the
        size of the frames.
    BackendUnavailableError, ConfigurationError
        A function of TomoPy that is not there, or has not these options; a tilt that is too large.
    """

    def __init__(
        self,
        config: PreprocessingConfig,
        fields: Fields,
        minimum_transmission: float,
        device: str | torch.device = "cpu",
    ) -> None:
        self._config = config
        self._minimum = minimum_transmission
        self._device = device
        self._recorded_shape = fields.dark.shape
        dark, flats = self._field("dark", fields.dark[None]), self._field("flat", fields.flats)
        if dark.shape[::2] != flats.shape[::2]:
            raise ReconstructionError(
                "flat-field correction: expected a dark and a flat field of the same detector, got "
                f"{fields.dark.shape} and {fields.flats.shape[1:]} pixels"
            )
        self._dark = dark
        self._beams = usable_beam(dark, flats)
        self._weights = torch.from_numpy(fields.weights).to(device)
        self.n_rows = len(dark)
        self._shifts = None
        if config.axis_tilt_deg:
            self._shifts = row_shifts(config.axis_tilt_deg, self.n_rows, dark.shape[2])
        self.by_projection = config.stripes is None and not config.full_turn
        self._reach = _reach(config.phase, config.binning) if config.phase else 0
        self._band = 2 * self._reach
        self._tomopy = None
        if config.stripes is not None and config.stripes.method == "tomopy":
            self._tomopy = TomopyStripeRemoval(config.stripes.function, config.stripes.options)
        self._around = config.zinger_size // 2 if config.zinger_difference else 0

    def rows_within(self, first: int, last: int) -> tuple[int, int]:
        """Rows that lie wholly within the recorded rows [first, last).

        Raises
        ------
        ConfigurationError
            None do.
        """
        k = self._config.binning
        rows = -(-first // k), min(last // k, self.n_rows)
        if rows[0] >= rows[1]:
            raise ConfigurationError(
                f"expected detector rows of which {k} become one by binning, got rows {first}:"
                f"{last}; take more rows, or a smaller preprocessing.binning"
            )
        return rows

    def recorded_row(self, row: int) -> int:
        """The first of the recorded rows that a row is made of."""
        return row * self._config.binning

    def cuts(self, first: int, last: int, slab_rows: int) -> list[tuple[int, int]]:
        """Rows [first, last) in parts that are to be preprocessed at once."""
        if not self._band:
            starts = range(first, last, slab_rows)
            return [(row, min(row + slab_rows, last)) for row in starts]
        inner = range((first // self._band + 1) * self._band, last, self._band)
        ends = [first, *inner, last]
        return list(pairwise(ends))

    def recorded(self, first: int, last: int) -> tuple[int, int]:
        """Recorded rows [first, last) that the rows [first, last) of one part are made from."""
        k = self._config.binning
        top, bottom = self._span(first, last)
        return max(top * k - self._around, 0), min(
            bottom * k + self._around, self._recorded_shape[0]
        )

    def geometry(self, geometry: ScanGeometry) -> ScanGeometry:
        """The geometry of the attenuation, from that of the recorded frames."""
        k = self._config.binning
        centre = binned_column(geometry.rotation_centre, k)
        n_columns = self._dark.shape[2]
        theta = geometry.theta
        if self._config.full_turn:
            nothing = torch.zeros(1, len(theta), n_columns)
            stitched, theta, centre = full_to_half_turn(nothing, theta, centre)
            n_columns = stitched.shape[2]
        elif k > 1:
            centre = min(max(centre, 0.0), n_columns - 1.0)
        return ScanGeometry(theta, centre, n_columns)

    def __call__(
        self,
        frames: np.ndarray,
        first: int,
        last: int,
        angles: slice | list[int] = slice(None),
        geometry: ScanGeometry | None = None,
    ) -> tuple[torch.Tensor, int]:
        """Attenuation of the rows [first, last), one part of `cuts`.

        Parameters
        ----------
        frames : array, shape (row, angle, column)
            The rows `recorded(first, last)`, as recorded.
        first, last : int
        angles : slice or list of int
            Which projections of the scan they are. Steps that need the others need all.
        geometry : ScanGeometry, optional
            Of the recorded frames; for full turns.

        Returns
        -------
        attenuation : torch.Tensor, float32, shape (row, angle, column)
        n_clamped : int
            Transmissions that were raised to the smallest allowed one before the logarithm.

        Raises
        ------
        ReconstructionError
            Another shape, or values that are not finite.
        """
        config = self._config
        top, bottom = self._span(first, last)
        transmission = self._transmission(frames, first, last, angles)
        if config.stripes is not None:
            transmission = self._without_stripes(transmission)
        if config.phase is not None:
            transmission = retrieve_phase(transmission, *_in_cm(config.phase, config.binning))
        inner = transmission[first - top : len(transmission) - (bottom - last)]
        lines, n_clamped = attenuation(inner, self._minimum)
        if self._shifts is not None:
            lines = align_rows(lines, self._shifts[first:last])
        if config.full_turn:
            assert geometry is not None  # who stitches knows where
            centre = binned_column(geometry.rotation_centre, config.binning)
            lines, _, _ = full_to_half_turn(lines, geometry.theta, centre)
        return lines, n_clamped

    def _span(self, first: int, last: int) -> tuple[int, int]:
        """Rows that take part in the result of a part, those around it included."""
        if not self._band:
            return first, last
        band = first // self._band
        return (
            max(band * self._band - self._reach, 0),
            min((band + 1) * self._band + self._reach, self.n_rows),
        )

    def _transmission(
        self, frames: np.ndarray, first: int, last: int, angles: slice | list[int]
    ) -> torch.Tensor:
        start, stop = self.recorded(first, last)
        expected = (stop - start, len(self._weights[angles]), self._recorded_shape[1])
        if frames.shape != expected:
            raise ReconstructionError(
                f"rows {first}:{last}: expected recorded frames of shape (row, angle, column) = "
                f"{expected}, got {frames.shape}"
            )
        top, bottom = self._span(first, last)
        k = self._config.binning
        rows = slice(top * k - start, bottom * k - start)
        dark, beams = self._dark[top:bottom], self._beams[top:bottom]
        weights = self._weights[angles]
        whole = torch.empty((len(dark), frames.shape[1], dark.shape[2]), device=self._device)
        step = max(1, _CHUNK // (frames.shape[0] * frames.shape[2]))
        for begin in range(0, frames.shape[1], step):
            part = slice(begin, begin + step)
            counts = self._cleaned(to_tensor(frames[:, part], self._device))[rows]
            if k > 1:
                counts = bin_frames(counts, k)
            whole[:, part] = share_of_beam(counts, dark, _mixed(beams, weights[part]))
        return whole

    def _cleaned(self, frames: torch.Tensor) -> torch.Tensor:
        difference = self._config.zinger_difference
        if difference is None:
            return frames
        return remove_zingers(frames, difference, self._config.zinger_size)[0]

    def _without_stripes(self, sinograms: torch.Tensor) -> torch.Tensor:
        stripes = self._config.stripes
        assert stripes is not None
        if self._tomopy is not None:
            return self._tomopy(sinograms)
        if stripes.method == "sorting":
            return remove_stripes_by_sorting(sinograms, stripes.size)
        if stripes.method == "wavelet":
            return remove_stripes_by_wavelets(
                sinograms, stripes.level, stripes.wavelet, stripes.sigma
            )
        assert stripes.method == "all"
        return remove_all_stripes(sinograms, stripes.snr, stripes.large_size, stripes.small_size)

    def _field(self, name: str, frames: np.ndarray) -> torch.Tensor:
        """A field (time, row, column) as (row, time, column), treated as the projections are."""
        field = to_tensor(frames, self._device).permute(1, 0, 2)
        if (bad := first_not_finite(field)) is not None:
            raise ReconstructionError(
                f"{name}: expected finite values, got {field[bad].item()} at row {bad[0]}, column "
                f"{bad[2]}; leave that frame out"
            )
        field = self._cleaned(field)
        k = self._config.binning
        return bin_frames(field, k) if k > 1 else field.to(torch.float32)


def _mixed(beams: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The beam of each projection; sums in a fixed order, so that bits do not depend on others."""
    if beams.shape[1] == 1:
        return beams
    terms = (beams[:, t, None] * weights[:, t, None] for t in range(beams.shape[1]))
    return sum(terms, torch.zeros((), device=beams.device))


def _in_cm(phase: PhaseConfig, binning: int) -> tuple[float, float, float, float]:
    """Pixel size, distance, energy and alpha as `retrieve_phase` and `reach` take them."""
    pixel_size = phase.pixel_size_um * 1e-4 * binning
    return pixel_size, phase.distance_mm * 0.1, phase.energy_kev, phase.alpha


def _reach(phase: PhaseConfig, binning: int) -> int:
    return max(_LEAST_REACH, reach(*_in_cm(phase, binning)))
