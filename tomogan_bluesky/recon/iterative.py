"""Iterative reconstruction: slices whose projections fit the measured ones.

Enters: attenuation sinograms (slice, angle, column). Leaves: slices (slice, y, x) in 1/pixel.
`SIRT` approaches the least-squares solution from below in frequency, so that few iterations leave
noise out, and fine detail. `TotalVariation` finds the slice that balances the fit against the
length of its edges, which few angles and much noise call for. Both use one pair of projector and
back-projector, `project.Projector` and `gridrec.Gridrec` without a filter, which are each other's
transpose, and honour the geometry's weights.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import torch
from torch.nn import functional as F

from ..geometry import ScanGeometry
from .batches import in_batches
from .gridding import BATCH
from .gridrec import Gridrec
from .project import Projector

logger = logging.getLogger(__name__)

# Row and column sums are raised to this part of their full value: rays that graze the slice, and
# pixels that few projections see, would else be corrected by more than the fit can bear.
_LEAST_SHARE = 1 / 8
# Iterations that find the largest eigenvalue, from below, to some percent; and what that is worth.
_POWER_ITERATIONS = 12
_POWER_MARGIN = 1.05
# Primal step of the primal-dual iteration, in units of the inverse operator: found by trial on
# noisy phantoms. It decides how fast the solution is reached, and not which.
_PRIMAL_STEP = 0.05
# Norm of the gradient by differences in two dimensions, squared, is below.
_GRADIENT_NORM_2 = 8.0
# Median of the absolute value of a standard normal variable.
_NORMAL_MAD = 0.6745
_SECONDS_BETWEEN_LOGS = 10.0


class _Iterative:
    """What the iterative reconstructors share: the pair of operators, batches, and progress."""

    name: str

    def __init__(
        self,
        geometry: ScanGeometry,
        iterations: int,
        oversampling: float,
        device: str | torch.device,
    ) -> None:
        self.geometry = geometry
        self.iterations = iterations
        self.device = torch.device(device)
        self._project = Projector(geometry, oversampling, device)
        self._back_project = Gridrec(geometry, "none", oversampling, device)
        self.origin = self._project.origin

    def __call__(self, attenuation: torch.Tensor) -> torch.Tensor:
        """Reconstruct slices.

        Parameters
        ----------
        attenuation : torch.Tensor, float32, shape (slice, angle, column)
            Line integrals, on this object's device.

        Returns
        -------
        torch.Tensor, float32, shape (slice, y, x)
            Attenuation coefficient in 1/pixel, on the same device.

        Raises
        ------
        ReconstructionError
            A shape that does not fit the geometry, or values that are not finite.
        """
        n_slices = BATCH[self.device.type]
        return in_batches(attenuation, self.geometry, n_slices, self.device, self._reconstruct)

    def _reconstruct(self, attenuation: torch.Tensor, images: torch.Tensor) -> None:
        images.copy_(self._solve(attenuation))

    def _solve(self, attenuation: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _each_iteration(self, n_slices: int) -> Iterator[int]:
        """Indices of the iterations, with a line in the log from time to time."""
        said = time.monotonic()
        for iteration in range(self.iterations):
            yield iteration
            if time.monotonic() - said > _SECONDS_BETWEEN_LOGS:
                said = time.monotonic()
                logger.info(
                    "%s of %d slices: iteration %d of %d",
                    self.name,
                    n_slices,
                    iteration + 1,
                    self.iterations,
                )


class SIRT(_Iterative):
    """Simultaneous iterative reconstruction for one scan geometry.

    Each iteration back-projects what the slice's projections lack, each ray's by its length in the
    slice, and divides by how much each pixel was seen (Gilbert, J. Theor. Biol. 36, 105, 1972).
    The bits of a slice do not depend on the slices beside it.

    Parameters
    ----------
    geometry : ScanGeometry
    iterations : int
        More of them bring finer detail, and noise.
    oversampling : float
        Size of the Fourier grid in image widths.
    device : str or torch.device

    Attributes
    ----------
    geometry : ScanGeometry
    origin : tuple of int
        Pixel (row, column) of the rotation axis in the slices.
    """

    name = "sirt"

    def __init__(
        self,
        geometry: ScanGeometry,
        iterations: int = 100,
        oversampling: float = 1.5,
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__(geometry, iterations, oversampling, device)
        n = geometry.n_columns
        lengths = self._project(torch.ones((1, n, n), device=device))
        self._per_length = 1 / lengths.clamp_min(_LEAST_SHARE * n)
        seen = self._back_project(torch.ones((1, geometry.n_angles, n), device=device))
        self._per_seen = 1 / seen.clamp_min(_LEAST_SHARE * float(geometry.weights.sum()))

    def _solve(self, attenuation: torch.Tensor) -> torch.Tensor:
        n = self.geometry.n_columns
        images = torch.zeros((len(attenuation), n, n), device=self.device)
        lacking = attenuation
        for iteration in self._each_iteration(len(attenuation)):
            if iteration:
                lacking = attenuation - self._project(images)
            images += self._per_seen * self._back_project(self._per_length * lacking)
        return images


class TotalVariation(_Iterative):
    """Least squares with total variation for one scan geometry.

    Finds the slice x that makes ``|A x - b|² / 2 + strength * noise * |grad x|`` smallest: A are
    the line integrals, squares of each projection count by its weight, and *noise* is what the
    noise of the projections, estimated for each slice, brings into a pixel of the back-projection.
    So one strength serves for any dose and number of angles. The primal-dual iteration of Chambolle
    and Pock (J. Math. Imaging Vis. 40, 120, 2011), whose dual step is the ramp filter: with it, the
    line integrals are nearly their own inverse, and tens of iterations suffice. It is a
    preconditioner (Pock and Chambolle, ICCV 2011, 1762), and does not show in the result.

    The bits of a slice do not depend on the slices beside it.

    Parameters
    ----------
    geometry : ScanGeometry
    iterations : int
        Enough to come to rest: after some 100, more of them change little.
    strength : float
        How much edges cost.
    oversampling : float
        Size of the Fourier grid in image widths.
    device : str or torch.device

    Attributes
    ----------
    geometry : ScanGeometry
    origin : tuple of int
        Pixel (row, column) of the rotation axis in the slices.
    """

    name = "tv"

    def __init__(
        self,
        geometry: ScanGeometry,
        iterations: int = 100,
        strength: float = 1.0,
        oversampling: float = 1.5,
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__(geometry, iterations, oversampling, device)
        self._strength = strength * float((geometry.weights**2).sum() ** 0.5)
        self._start = Gridrec(geometry, "hann", oversampling, device)
        n = geometry.n_columns
        frequency = torch.arange(n // 2 + 1, device=device) / n
        # As a preconditioner the ramp has to be positive, and may wrap around.
        self._ramp = frequency + 1 / (2 * n)
        size = self._largest_eigenvalue()
        self._ramp /= 2 * _PRIMAL_STEP * size
        self._edge_step = 1 / (2 * _PRIMAL_STEP * _GRADIENT_NORM_2)

    def _largest_eigenvalue(self) -> float:
        """Of back-projecting the ramp-filtered projections of a slice, by power iteration."""
        n = self.geometry.n_columns
        generator = torch.Generator().manual_seed(0)
        image = torch.randn((1, n, n), generator=generator).to(self.device)
        size = 1.0
        for _ in range(_POWER_ITERATIONS):
            image = self._back_project(self._filtered(self._project(image), self._ramp))
            size = float(image.norm())
            image /= size
        return _POWER_MARGIN * size

    def _filtered(self, lines: torch.Tensor, response: torch.Tensor) -> torch.Tensor:
        """Real, positive responses only; circular, on the columns of the detector."""
        spectra = torch.fft.rfft(lines)
        torch.view_as_real(spectra).mul_(response[:, None])
        return torch.fft.irfft(spectra, lines.shape[-1])

    def _solve(self, attenuation: torch.Tensor) -> torch.Tensor:
        # Highest slope that edges are given for free, of each slice.
        bound = (self._strength * projection_noise(attenuation))[:, None, None]
        bound = bound.clamp_min(torch.finfo(torch.float32).tiny)
        shrink = 1 / (1 + self._ramp)
        images = self._start(attenuation)
        ahead = images.clone()
        lacking = torch.zeros_like(attenuation)
        down, right = torch.zeros_like(images), torch.zeros_like(images)
        for _ in self._each_iteration(len(attenuation)):
            misfit = self._filtered(self._project(ahead) - attenuation, self._ramp * shrink)
            lacking = self._filtered(lacking, shrink) + misfit
            down[:, :-1] += self._edge_step * (ahead[:, 1:] - ahead[:, :-1])
            right[..., :-1] += self._edge_step * (ahead[..., 1:] - ahead[..., :-1])
            excess = (torch.hypot(down, right) / bound).clamp_min(1)
            down /= excess
            right /= excess
            descent = self._back_project(lacking) - _divergence(down, right)
            ahead = images - 2 * _PRIMAL_STEP * descent
            images = images - _PRIMAL_STEP * descent
        return images


def _divergence(down: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The transpose of differences to the next pixel, with the sign changed.

    The last of each, which has no next pixel, is zero.
    """
    return down - F.pad(down[:, :-1], (0, 0, 1, 0)) + right - F.pad(right[..., :-1], (1, 0))


def projection_noise(attenuation: torch.Tensor) -> torch.Tensor:
    """Standard deviation of the noise of the projections of each slice, blind.

    From the median absolute second difference along the columns, which objects hardly show in.

    Parameters
    ----------
    attenuation : torch.Tensor, float32, shape (slice, angle, column)

    Returns
    -------
    torch.Tensor, float32, shape (slice,)
    """
    if attenuation.shape[-1] < 3:
        return torch.zeros(len(attenuation), device=attenuation.device)
    bends = attenuation[..., 2:] - 2 * attenuation[..., 1:-1] + attenuation[..., :-2]
    return bends.flatten(1).abs().median(dim=1).values / (_NORMAL_MAD * 6**0.5)
