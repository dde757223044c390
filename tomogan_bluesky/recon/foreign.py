"""What the backends share that reconstruct with another library, on the processor.

Enters: attenuation sinograms (slice, angle, column), on any device. Leaves: slices (slice, y, x),
there again.
"""

import numpy as np
import torch

from ..geometry import ScanGeometry
from .checks import check_attenuation


class Foreign:
    """A reconstructor of one scan geometry that computes on the processor, in numpy's arrays.

    Attributes
    ----------
    geometry : ScanGeometry
    origin : tuple of float
        Point (row, column) of a slice through which the rotation axis goes.
    """

    def __init__(self, geometry: ScanGeometry, origin: tuple[float, float]) -> None:
        self.geometry = geometry
        self.origin = origin

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
        if len(attenuation) == 0:
            return attenuation.new_empty((0, n, n))
        return torch.from_numpy(self._slices(attenuation.cpu())).to(attenuation.device)

    def _slices(self, attenuation: torch.Tensor) -> np.ndarray:
        """Slices of one sinogram at least, all of which are sound: float32."""
        raise NotImplementedError
