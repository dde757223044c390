"""A simulated beamline: a phantom in a beam, behind ophyd devices.

Enters: a phantom. Leave: the devices that a plan moves and reads, and the truth to compare a
reconstruction with.
"""

from collections.abc import Sequence

import numpy as np
from ophyd import Signal

from ..geometry import ScanGeometry
from ..recon.beam import Beam, line_integrals
from .devices import SimCamera, SimRotation
from .exposure import FULL_EXPOSURE_S, Exposure, Imperfections, Shots


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
    imperfections : Imperfections, optional
        Of the beam and the detector; None: there are none.
    full_exposure_s : float
        Exposure time in seconds at which a frame has the beam's dose.

    Attributes
    ----------
    rotation, camera, shutter, sample : ophyd devices
        The shutter is "open" or "closed", the sample "in" or "out".
    geometry : ScanGeometry
        Of the angles in their order.
    integrals : float32 array, shape (row, angle, column)
        What a detector without noise would measure.
    truth : float32 array, shape (slice, y, x), 1/pixel
    shots : Shots
        The frames that a camera sees, for cameras of other kinds.
    """

    def __init__(
        self,
        phantom: np.ndarray,
        angles_deg: Sequence[float] | np.ndarray,
        beam: Beam,
        rotation_centre: float | None = None,
        imperfections: Imperfections | None = None,
        full_exposure_s: float = FULL_EXPOSURE_S,
    ) -> None:
        n_columns = phantom.shape[-1] // 2
        centre = (n_columns - 1) / 2 if rotation_centre is None else rotation_centre
        self.geometry = ScanGeometry(np.deg2rad(angles_deg), centre, n_columns)
        self.integrals, self.truth = line_integrals(phantom, self.geometry)
        exposure = Exposure(self.integrals, angles_deg, beam, imperfections)
        self.shots = Shots(exposure, full_exposure_s)
        self.shutter = Signal(name="shutter", value="closed")
        self.sample = Signal(name="sample", value="out")
        self.rotation = SimRotation(name="rotation", value=float(angles_deg[0]))
        self.camera = SimCamera(self.shots, self.expose, name="camera")

    def expose(
        self, exposure_s: float, part: int = 0, angle_deg: float | None = None
    ) -> np.ndarray:
        """The frame that a camera sees now.

        Parameters
        ----------
        exposure_s : float
            Exposure time in seconds.
        part : int
            Number of the frame among those taken at this angle.
        angle_deg : float, optional
            None: where the rotation stage is.

        Returns
        -------
        uint16 array, shape (row, column)

        Raises
        ------
        ConfigurationError
            A projection at an angle that was not simulated.
        """
        return self.shots.take(
            shutter=self.shutter.get(),
            sample=self.sample.get(),
            angle_deg=float(self.rotation.position) if angle_deg is None else angle_deg,
            exposure_s=exposure_s,
            part=part,
        )
