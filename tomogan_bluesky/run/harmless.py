"""Do no harm: slices with less noise than a model has learned from are left more as they are.

Enter: a denoiser, and how many photons a scan had. Leaves: a denoiser that blends towards its
input. A network takes away what it takes for noise. Where there is hardly any, that is structure;
and how much noise there is cannot be told from such a slice, since its structure is all that one
sees. So it is told from the photons: the detector's gain gives the electrons of its flats.
"""

from collections.abc import Callable

import torch

from ..denoise.denoiser import Denoiser
from ..denoise.windows import has_uncertainty, moving
from ..training.noise_profile import NoiseProfile, detector_mismatch, relative_noise
from ..trust.calibration import noise_for_contrast
from ..trust.noise import estimate_noise

_NOTHING = 0.5  # of the least noise that was learned from: here the slices stay as they are


def denoised_share(denoiser: Denoiser, relative_noise: float) -> float:
    """How much of the denoised slices there should be: 1 from the least noise on that the model has
    learned from, then less, 0 at half of it. 1 for models whose cards do not say."""
    least = denoiser.card.least_noise
    if least is None:
        return 1.0
    return min(1.0, max(0.0, (relative_noise / least - _NOTHING) / (1 - _NOTHING)))


class HarmlessDenoiser:
    """A share of what another denoiser makes, and the rest of what it was given.

    Parameters
    ----------
    denoiser : Denoiser
    share : float
        In [0, 1].
    """

    def __init__(self, denoiser: Denoiser, share: float) -> None:
        self._denoiser = denoiser
        self._share = share
        self.card = denoiser.card
        self.sha256 = denoiser.sha256

    @property
    def on(self) -> "Callable[[str], HarmlessDenoiser] | None":
        """Gives the same on another device; None where the other denoiser can't."""
        return moving(self._denoiser, lambda moved: HarmlessDenoiser(moved, self._share))

    def __call__(self, slices: torch.Tensor, context: tuple[int, int] = (0, 0)) -> torch.Tensor:
        given = slices[context[0] : len(slices) - context[1]]
        if self._share == 0:
            return given.clone()
        return torch.lerp(given, self._denoiser(slices, context), self._share)

    def with_uncertainty(
        self, slices: torch.Tensor, context: tuple[int, int] = (0, 0)
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `UncertainDenoiser`; of a denoiser that is one.

        A blend is off by no more than the shares of what both are off. What the slices as they were
        given are off is their noise, as far as it was calibrated.
        """
        calibration = self.card.calibration
        assert has_uncertainty(self._denoiser)
        assert calibration is not None
        given = slices[context[0] : len(slices) - context[1]]
        if self._share == 0:
            denoised, uncertainty = given, torch.zeros_like(given)
        else:
            denoised, uncertainty = self._denoiser.with_uncertainty(slices, context)
        for slice_, half_width, noise in zip(
            denoised, uncertainty, estimate_noise(given).tolist(), strict=True
        ):
            of_noise = noise * calibration.noise_factor(noise_for_contrast(slice_, noise))
            half_width.mul_(self._share).add_((1 - self._share) * of_noise)
        return torch.lerp(given, denoised, self._share), uncertainty


def suited(
    denoiser: Denoiser, profile: NoiseProfile, n_columns: int, n_angles: int
) -> tuple[Denoiser, list[str]]:
    """A denoiser for the scans of a detector, and what is to be said of it.

    Parameters
    ----------
    denoiser : Denoiser
    profile : NoiseProfile
        Of the scan's own flats and darks.
    n_columns, n_angles : int
        Of the scan as recorded. Binning leaves all photons and fewer columns to share them: the
        same relative noise.

    Returns
    -------
    denoiser : Denoiser
        The same, or one that blends.
    remarks : list of str
    """
    remarks = []
    if mismatch := detector_mismatch(denoiser.card, profile):
        remarks.append(mismatch)
    noise = relative_noise(n_columns, profile.flat_electrons, n_angles)
    share = denoised_share(denoiser, noise)
    if share == 1:
        return denoiser, remarks
    remarks.append(
        f"the scan has less noise ({noise:.3g}) than the least that model {denoiser.card.name!r} "
        f"has learned from ({denoiser.card.least_noise:.3g}): so as to do no harm, its denoised "
        f"slices are {share:.0%} denoised and {1 - share:.0%} as reconstructed"
    )
    return HarmlessDenoiser(denoiser, share), remarks
