"""TomoPy's reconstruction and stripe removal, for those who compare with it or trust it more.

Enters: attenuation sinograms (slice, angle, column). Leaves: slices (slice, y, x). TomoPy is
imported when an object here is made; everything runs on the processor.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import BackendUnavailableError, ConfigurationError
from ..geometry import ScanGeometry
from .filters import LineFilter
from .foreign import Foreign
from .kernel import slice_origin

if TYPE_CHECKING:  # reconstruction needs numpy and torch only, and this needs pydantic
    from ..config import FilterName


def import_tomopy(otherwise: str = "set the reconstruction's backend to 'torch'") -> ModuleType:
    """The tomopy module.

    Parameters
    ----------
    otherwise : str
        What to do without it, for the message.

    Raises
    ------
    BackendUnavailableError
        It is not installed, or its compiled libraries cannot be loaded.
    """
    try:
        import tomopy
    except (ImportError, OSError) as error:
        raise BackendUnavailableError(
            f"expected TomoPy to be importable, got: {error}; install it with `conda install -c "
            f"conda-forge tomopy`, or {otherwise}, which needs nothing else"
        ) from error
    return tomopy


class TomopyGridrec(Foreign):
    """TomoPy's gridrec, on projections padded so that it is usable.

    TomoPy pads to the next power of two only, which is not enough: here the edge values continue
    for half a detector on each side. Even so the result is up to some 10 % too large, by a factor
    that depends on the padding.

    TomoPy transforms two slices as one complex one, so that each leaves traces in the other's last
    bits. Pairs are formed from the first slice of a call on, whatever the number of threads: slabs
    of an even number of slices give the same bits however many they are.

    Parameters
    ----------
    geometry : ScanGeometry
    filter : str
        One of `config.FilterName`.

    Attributes
    ----------
    geometry : ScanGeometry
    origin : tuple of int
        Pixel (row, column) of the rotation axis in the slices; the same as `gridrec.Gridrec`'s.

    Raises
    ------
    BackendUnavailableError
    """

    def __init__(self, geometry: ScanGeometry, filter: FilterName = "ramlak") -> None:
        super().__init__(geometry, slice_origin(geometry.n_columns))
        self._tomopy = import_tomopy()
        self._options: dict[str, object] = {"filter_name": filter}
        if filter in ("hann", "hamming"):
            # TomoPy's default parameter lets these windows rise again above half of Nyquist.
            self._options["filter_par"] = [1.0]

    def _slices(self, attenuation: torch.Tensor) -> np.ndarray:
        n, pad = self.geometry.n_columns, self.geometry.n_columns // 2
        sinograms = attenuation.numpy()
        padded = np.empty((*sinograms.shape[:2], n + 2 * pad), np.float32)
        padded[..., :pad] = sinograms[..., :1]
        padded[..., pad : pad + n] = sinograms
        padded[..., pad + n :] = sinograms[..., -1:]
        n_threads = torch.get_num_threads()
        volume: np.ndarray = self._tomopy.recon(
            padded,
            self.geometry.theta,
            center=self.geometry.rotation_centre + pad,
            sinogram_order=True,
            algorithm="gridrec",
            # The slice's own pixels: TomoPy then leaves those beside it out.
            num_gridx=n,
            num_gridy=n,
            ncore=n_threads,
            nchunk=2 * math.ceil(len(padded) / (2 * n_threads)),
            **self._options,
        )
        return volume


class TomopyFBP(Foreign):
    """TomoPy's back-projection, of projections that are filtered here.

    TomoPy's own "fbp" ignores the filter's name and does not filter.

    Parameters
    ----------
    geometry : ScanGeometry
    filter : str
        One of `config.FilterName`.

    Attributes
    ----------
    geometry : ScanGeometry
    origin : tuple of float
        Point (row, column) of the rotation axis in the slices: half a pixel off `gridrec.Gridrec`'s
        when the number of columns is even.

    Raises
    ------
    BackendUnavailableError
    """

    def __init__(self, geometry: ScanGeometry, filter: FilterName = "ramlak") -> None:
        super().__init__(geometry, ((geometry.n_columns - 1) / 2,) * 2)
        self._tomopy = import_tomopy()
        self._filter = LineFilter(filter, geometry.n_columns, math.pi / geometry.n_angles)

    def _slices(self, attenuation: torch.Tensor) -> np.ndarray:
        volume: np.ndarray = self._tomopy.recon(
            self._filter(attenuation).numpy(),
            self.geometry.theta,
            # TomoPy's back-projection counts columns from the left edge of the first one.
            center=self.geometry.rotation_centre + 0.5,
            sinogram_order=True,
            algorithm="fbp",
            ncore=torch.get_num_threads(),
        )
        return volume


class TomopyStripeRemoval:
    """One of TomoPy's functions that remove stripes from sinograms, which are rings in slices.

    Parameters
    ----------
    function : str
        Its name in ``tomopy.prep.stripe``.
    options : mapping
        Its arguments by name.

    Raises
    ------
    BackendUnavailableError
    ConfigurationError
        It has no such arguments.
    """

    def __init__(self, function: str, options: Mapping[str, object]) -> None:
        self._function = getattr(
            import_tomopy("use preprocessing.stripes with another method"), function
        )
        self._options = dict(options)
        known = list(inspect.signature(self._function).parameters)[1:]
        if unknown := sorted(set(options) - set(known)):
            raise ConfigurationError(
                f"preprocessing.stripes: expected options of TomoPy's {function} "
                f"({', '.join(known)}), got {unknown[0]!r}"
            )

    def __call__(self, sinograms: torch.Tensor) -> torch.Tensor:
        """Remove stripes.

        Parameters
        ----------
        sinograms : torch.Tensor, float32, shape (row, angle, column)
            Transmission or attenuation.

        Returns
        -------
        torch.Tensor, float32, shape (row, angle, column)
            On the same device. A row does not depend on those beside it.
        """
        if len(sinograms) == 0:
            return sinograms.clone()
        # A copy: some of TomoPy's functions work in place.
        projections = np.array(sinograms.cpu().numpy().swapaxes(0, 1), np.float32, order="C")
        options = {"ncore": torch.get_num_threads(), **self._options}
        cleaned = self._function(projections, **options)
        contiguous = np.ascontiguousarray(np.asarray(cleaned, np.float32).swapaxes(0, 1))
        return torch.from_numpy(contiguous).to(sinograms.device)
