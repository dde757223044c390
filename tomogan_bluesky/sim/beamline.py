"""A simulated beamline: a phantom in a beam, behind ophyd devices.

Enters: a phantom. Leave: the devices that a plan moves and reads, and the truth to compare a
reconstruction with.
"""

from collections.abc import Sequence

import numpy as np
from ophyd import Signal

from ..errors import ConfigurationError
from ..geometry import ScanGeometry
from ..recon.beam import Beam, line_integrals
from .devices import SimCamera, SimRotation


class SimBeamline:
    """A sample on a rotation stage between a shutter and a camera.

    Parameters
    ----------
    phantom : array, shape (row, 2 * n_columns, 2 * n_columns)
        Relative attenuation, twice as fine as the detector.
    angles_deg : sequence of float
        The rotation angles that a plan may visit, in degrees.
    beam : Beam
        Photons, dose and noise.
    rotation_centre : float, optional
        Detector column of the axis; None: the middle.

    Attributes
    ----------
    rotation, camera, shutter, sample : ophyd devices
        The shutter is "open" or "closed", the sample "in" or "out".
    geometry : ScanGeometry
        Of the angles in their order.
    integrals : float32 array, shape (row, angle, column)
        What a detector without noise would measure.
    truth : float32 array, shape (slice, y, x), 1/pixel
    """

    def __init__(
        self,
        phantom: np.ndarray,
        angles_deg: Sequence[float] | np.ndarray,
        beam: Beam,
        rotation_centre: float | None = None,
    ) -> None:
        n_columns = phantom.shape[-1] // 2
        centre = (n_columns - 1) / 2 if rotation_centre is None else rotation_centre
        self.geometry = ScanGeometry(np.deg2rad(angles_deg), centre, n_columns)
        self.integrals, self.truth = line_integrals(phantom, self.geometry)
        self._beam = beam
        self._index = {round(float(angle), 6): i for i, angle in enumerate(angles_deg)}
        self._shape = (phantom.shape[0], n_columns)
        self.shutter = Signal(name="shutter", value="closed")
        self.sample = Signal(name="sample", value="out")
        self.rotation = SimRotation(name="rotation", value=float(angles_deg[0]))
        self.camera = SimCamera(self._expose, name="camera")

    def _expose(self) -> np.ndarray:
        if self.shutter.get() == "closed":
            return self._beam.darks(1, self._shape)[0]
        if self.sample.get() == "out":
            return self._beam.flats(1, self._shape)[0]
        angle = float(self.rotation.position)
        index = self._index.get(round(angle, 6))
        if index is None:
            raise ConfigurationError(
                f"rotation: expected one of the {len(self._index)} angles that this simulation was "
                f"made for, got {angle:g} degrees"
            )
        return self._beam.projections(self.integrals[:, index])
