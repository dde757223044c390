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
from .filters import LineFilter
from .foreign import Foreign

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


class _Astra(Foreign):
    """ASTRA's projector for one scan geometry, with interpolation between pixels (Joseph 1982)."""

    def __init__(self, geometry: ScanGeometry) -> None:
        astra = import_astra()
        n = geometry.n_columns
        super().__init__(geometry, ((n - 1) / 2, (n - 1) / 2))
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

    def _slices(self, attenuation: torch.Tensor) -> np.ndarray:
        return np.stack([self._reconstruct(sinogram) for sinogram in attenuation])

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
        self._filter = LineFilter(filter, geometry.n_columns)
        self._weights = torch.tensor(geometry.weights, dtype=torch.float32)[:, None]

    def _reconstruct(self, sinogram: torch.Tensor) -> np.ndarray:
        filtered = self._filter(sinogram[None])[0] * self._weights
        image: np.ndarray = self._operator.BP(filtered.numpy())
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
