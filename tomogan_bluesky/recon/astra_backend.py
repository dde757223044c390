"""The ASTRA toolbox's reconstruction on the processor, for those who compare with it.

Enters: attenuation sinograms (slice, angle, column). Leaves: slices (slice, y, x). ASTRA is
imported when a reconstructor is made; everything runs on one core of the processor.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import BackendUnavailableError
from ..geometry import ScanGeometry
from .checks import check_attenuation
from .filters import apply_response, filter_response, transform_size

if TYPE_CHECKING:  # reconstruction needs numpy and torch only, and this needs pydantic
    from ..config import FilterName


def import_astra() -> ModuleType:
    """The astra module.

    Raises
    ------
    BackendUnavailableError
        It is not installed, or its compiled libraries cannot be loaded.
    """
    try:
        import astra
    except (ImportError, OSError) as error:
        raise BackendUnavailableError(
            f"reconstruction backend 'astra': expected the ASTRA toolbox to be importable, got: "
            f"{error}; install it with `pip install 'tomogan_bluesky[astra]'`, or set the "
            "reconstruction's backend to 'torch', which needs nothing else"
        ) from error
    return astra


class _Astra:
    """ASTRA's projector for one scan geometry, with interpolation between pixels (Joseph 1982)."""

    def __init__(self, geometry: ScanGeometry) -> None:
        astra = import_astra()
        self.geometry = geometry
        n = geometry.n_columns
        self.origin: tuple[float, float] = ((n - 1) / 2, (n - 1) / 2)
        # Of each projection, in ASTRA's plane, where y points upwards: the direction of the rays,
        # the middle of the detector, and the step from one column to the next.
        step = np.stack((np.cos(geometry.theta), np.sin(geometry.theta)), axis=1)
        rays = np.stack((step[:, 1], -step[:, 0]), axis=1)
        middle = step * ((n - 1) / 2 - geometry.rotation_centre)
        detector = astra.create_proj_geom("parallel_vec", n, np.hstack((rays, middle, step)))
        self._projector_id = astra.create_projector("linear", detector, astra.create_vol_geom(n, n))
        self._delete = astra.projector.delete
        self._operator = astra.OpTomo(self._projector_id)

    def __del__(self) -> None:
        # ASTRA keeps what was made until it is told; an object that was never made has nothing.
        if hasattr(self, "_operator"):
            self._delete(self._projector_id)

    def __call__(self, attenuation: torch.Tensor) -> torch.Tensor:
        """Reconstruct slices.

        Parameters
        ----------
        attenuation : torch.Tensor, float32, shape (slice, angle, column)

        Returns
        -------
        torch.Tensor, float32, shape (slice, y, x)
            Attenuation coefficient in 1/pixel, on the device of `attenuation`.

        Raises
        ------
        ReconstructionError
            A shape that does not fit the geometry, or values that are not finite.
        """
        check_attenuation(attenuation, self.geometry)
        n = self.geometry.n_columns
        volume = np.empty((len(attenuation), n, n), np.float32)
        for image, sinogram in zip(volume, attenuation.cpu(), strict=True):
            image[...] = self._reconstruct(sinogram)
        return torch.from_numpy(volume).to(attenuation.device)

    def _reconstruct(self, sinogram: torch.Tensor) -> np.ndarray:
        raise NotImplementedError


class AstraFBP(_Astra):
    """ASTRA's back-projection, of projections that are filtered here.

    So that filters and the weights of angles are those of the other backends.

    Parameters
    ----------
    geometry : ScanGeometry
    filter : str
        One of `config.FilterName`.

    Attributes
    ----------
    geometry : ScanGeometry
    origin : tuple of float
        Point (row, column) of the rotation axis in the slices: their middle.

    Raises
    ------
    BackendUnavailableError
    """

    def __init__(self, geometry: ScanGeometry, filter: FilterName = "ramlak") -> None:
        super().__init__(geometry)
        self._size = transform_size(2 * geometry.n_columns)
        self._response = filter_response(filter, self._size).float()
        self._weights = torch.tensor(geometry.weights, dtype=torch.float32)[:, None]

    def _reconstruct(self, sinogram: torch.Tensor) -> np.ndarray:
        spectra = apply_response(torch.fft.rfft(sinogram[None], self._size), self._response)
        filtered = torch.fft.irfft(spectra, self._size)[0, :, : self.geometry.n_columns]
        image: np.ndarray = self._operator.BP((filtered * self._weights).numpy())
        return image


class AstraSIRT(_Astra):
    """ASTRA's simultaneous iterative reconstruction. All angles count alike.

    Parameters
    ----------
    geometry : ScanGeometry
    iterations : int

    Attributes
    ----------
    geometry : ScanGeometry
    origin : tuple of float
        Point (row, column) of the rotation axis in the slices: their middle.

    Raises
    ------
    BackendUnavailableError
    """

    def __init__(self, geometry: ScanGeometry, iterations: int = 100) -> None:
        super().__init__(geometry)
        self._iterations = iterations

    def _reconstruct(self, sinogram: torch.Tensor) -> np.ndarray:
        image: np.ndarray = self._operator.reconstruct(
            "SIRT", sinogram.numpy(), iterations=self._iterations
        )
        return image
