"""The pure middle: a slab of recorded frames becomes reconstructed, then denoised slices.

Enters: a slab (row, angle, column) as recorded. Leaves: slices (slice, y, x) in 1/pixel. No
documents, no files, no network: what a slab becomes depends on its pixels and the settings alone.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch

from .config import ReconstructionConfig
from .denoise import Denoiser
from .errors import RotationCentreError
from .geometry import ScanGeometry
from .recon.backends import make_reconstructor
from .recon.centre import CentreEstimate, find_centre, opposed_pair
from .recon.flatfield import attenuation, transmission

# Rows and projections, all over the scan, from which the rotation centre is found; at least so many
# projections, and less than twice. The method that asks for most of them groups more than 384.
_CENTRE_ROWS = 16
_CENTRE_ANGLES = 384

# Recorded types that torch takes as they are; others become float32 first.
_DIRECT = {"uint8", "int16", "uint16", "int32", "float32"}


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

    def correct(
        self,
        frames: np.ndarray,
        rows: slice,
        angles: slice | list[int],
        minimum_transmission: float,
        device: str = "cpu",
    ) -> tuple[torch.Tensor, int]:
        """Attenuation of some rows of some projections, and how many values were clamped.

        Parameters
        ----------
        frames : array, shape (row, angle, column), as recorded
        rows, angles
            Which of the scan they are.
        minimum_transmission : float
            See `ReconstructionConfig`.
        device : str
        """
        flat = to_tensor(self.flats[:, rows], device)
        if len(flat) == 1:
            flat = flat[0]
        else:
            flat = torch.einsum("at,trc->rac", to_tensor(self.weights[angles], device), flat)
        dark = to_tensor(self.dark[rows], device)
        return attenuation(
            transmission(to_tensor(frames, device), dark, flat), minimum_transmission
        )


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
        Its method and its smallest transmission are used.

    Raises
    ------
    RotationCentreError
        No method applies, or none finds anything.
    """
    first, last = rows
    spread = slice(first, last, max(1, -(-(last - first) // _CENTRE_ROWS)))
    # To read a few rows of a compressed frame is to read the frame.
    angles = list(range(0, len(theta), max(1, len(theta) // _CENTRE_ANGLES)))
    with suppress(RotationCentreError):  # find_centre says what it misses
        angles = sorted({*angles, *opposed_pair(theta)})
    corrected, _ = fields.correct(read(angles, spread), spread, angles, config.minimum_transmission)
    return find_centre(corrected, theta[angles], config.rotation_centre_method)


class SlabPipeline:
    """Correction, reconstruction and denoising of the slabs of one scan.

    Parameters
    ----------
    geometry : ScanGeometry
    config : ReconstructionConfig
    denoiser : Denoiser or None
        None: `denoise` must not be called.
    fields : Fields
        Of the whole detector.
    device : str
        Where the reconstruction runs: "cpu", "cuda", …
    """

    def __init__(
        self,
        geometry: ScanGeometry,
        config: ReconstructionConfig,
        denoiser: Denoiser | None,
        fields: Fields,
        device: str = "cpu",
    ) -> None:
        self._minimum_transmission = config.minimum_transmission
        self._denoiser = denoiser
        self._fields = fields
        self._device = device
        self._reconstructor = make_reconstructor(geometry, config, device)
        self.origin = self._reconstructor.origin

    def reconstruct(self, first_row: int, frames: np.ndarray) -> tuple[torch.Tensor, int]:
        """Correct and reconstruct one slab.

        Parameters
        ----------
        first_row : int
            Detector row of the slab's first row.
        frames : array, shape (row, angle, column), as recorded

        Returns
        -------
        slices : float32 tensor, shape (slice, y, x), 1/pixel, on the device
        n_clamped : int
            Transmissions that were raised to the smallest allowed one before the logarithm.

        Raises
        ------
        ReconstructionError
            Shapes that do not belong together, values that are not finite.
        """
        rows = slice(first_row, first_row + len(frames))
        corrected, n_clamped = self._fields.correct(
            frames, rows, slice(None), self._minimum_transmission, self._device
        )
        return self._reconstructor(corrected), n_clamped

    def denoise(self, slices: torch.Tensor) -> torch.Tensor:
        """Denoise one slab: (slice, y, x) in, the same shape out, 1/pixel.

        Raises
        ------
        ModelError
            The generator's output is not finite.
        """
        if self._denoiser is None:
            raise ValueError("denoise: this pipeline was made without a denoiser")
        return self._denoiser(slices)
