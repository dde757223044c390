"""The pure middle: a slab of recorded frames becomes reconstructed, then denoised slices.

Enters: a slab (row, angle, column) as recorded. Leaves: slices (slice, y, x) in 1/pixel. No
documents, no files, no network: what a slab becomes depends on its pixels and the settings alone.
"""

import numpy as np
import torch

from .config import ReconstructionConfig
from .denoise import Denoiser
from .geometry import ScanGeometry
from .recon.backends import make_reconstructor
from .recon.centre import centre_from_pair, opposed_pair
from .recon.flatfield import attenuation, transmission

# Recorded types that torch takes as they are; others become float32 first.
_DIRECT = {"uint8", "int16", "uint16", "int32", "float32"}


def to_tensor(frames: np.ndarray, device: str | torch.device = "cpu") -> torch.Tensor:
    """Recorded frames on a device: of their own type where torch has it, else float32."""
    if str(frames.dtype) not in _DIRECT:
        frames = frames.astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(frames)).to(device)


def find_rotation_centre(
    projections: list[np.ndarray],
    theta: np.ndarray,
    dark: np.ndarray,
    flat: np.ndarray,
    minimum_transmission: float,
) -> float:
    """Detector column of the rotation axis, from the pair of projections half a turn apart.

    Parameters
    ----------
    projections : list of arrays, each (row, column), as recorded
    theta : float64 array, shape (angle,), radians
    dark, flat : float32 arrays, shape (row, column)
    minimum_transmission : float
        See `ReconstructionConfig`.

    Raises
    ------
    RotationCentreError
        No such pair, or nothing in it to register.
    """
    pair = np.stack([projections[i] for i in opposed_pair(theta)], axis=1)
    corrected, _ = _attenuation(to_tensor(pair), dark, flat, minimum_transmission)
    return centre_from_pair(corrected[:, 0], corrected[:, 1])


def _attenuation(
    frames: torch.Tensor, dark: np.ndarray, flat: np.ndarray, minimum_transmission: float
) -> tuple[torch.Tensor, int]:
    references = (to_tensor(dark, frames.device), to_tensor(flat, frames.device))
    return attenuation(transmission(frames, *references), minimum_transmission)


class SlabPipeline:
    """Correction, reconstruction and denoising of the slabs of one scan.

    Parameters
    ----------
    geometry : ScanGeometry
    config : ReconstructionConfig
    denoiser : Denoiser or None
        None: `denoise` must not be called.
    dark, flat : float32 arrays, shape (row, column)
        Of the whole detector.
    device : str
        Where the reconstruction runs: "cpu", "cuda", …
    """

    def __init__(
        self,
        geometry: ScanGeometry,
        config: ReconstructionConfig,
        denoiser: Denoiser | None,
        dark: np.ndarray,
        flat: np.ndarray,
        device: str = "cpu",
    ) -> None:
        self._minimum_transmission = config.minimum_transmission
        self._denoiser = denoiser
        self._dark = dark
        self._flat = flat
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
        corrected, n_clamped = _attenuation(
            to_tensor(frames, self._device),
            self._dark[rows],
            self._flat[rows],
            self._minimum_transmission,
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
