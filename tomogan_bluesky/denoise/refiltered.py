"""A model for the slices of one filter, on slices of another, smoother one.

Enter: a denoiser, and slices (slice, y, x) in 1/pixel of another filter than it has learned from.
Leave: denoised slices as this other filter has them. By the Fourier slice theorem the window of a
filter multiplies the spectrum of each slice. So it can be divided out: what the network sees then
are the slices that it knows, and what it made of them is multiplied by the window again.
"""

from collections.abc import Callable

import torch

from ..config import FilterName, ReconstructionConfig
from ..models.card import ModelCard
from ..recon.filters import HIGHEST, filter_window, is_smoother
from .windows import Denoiser, has_uncertainty, moving

_LAST = 0.499  # where no window is nothing yet, by which another one is divided
_LARGEST_GAIN = 1000.0
_FILTERED = ("gridrec", "fbp")


class FilterChange:
    """From slices of one filter to those of another that is less smooth, and back.

    Parameters
    ----------
    here, learned : str
        Names of filters: of the slices that there are, and of those that are wanted.
    """

    def __init__(self, here: FilterName, learned: FilterName) -> None:
        self._names = (here, learned)

    @classmethod
    def between(cls, card: ModelCard, config: ReconstructionConfig) -> "FilterChange | None":
        """The change that a model needs for the slices of a reconstruction.

        Returns
        -------
        FilterChange or None
            None: it needs none, or there is none, since the methods differ, one of the filters is
            no ramp, or the model has learned from the smoother one.
        """
        trained = card.reconstruction
        if trained.method != config.method or config.method not in _FILTERED:
            return None
        if not is_smoother(config.filter, trained.filter):
            return None
        return cls(config.filter, trained.filter)

    def as_learned(self, slices: torch.Tensor) -> torch.Tensor:
        """Slices of the filter here, as the other would have them: float32 (slice, y, x)."""
        return _each(slices, self._gain)

    def as_here(self, slices: torch.Tensor) -> torch.Tensor:
        """Slices of the other filter, as the filter here would have them: float32 (slice, y, x)."""
        return _each(slices, lambda frequency: self._window(frequency.clamp(max=_LAST)))

    def _window(self, frequency: torch.Tensor) -> torch.Tensor:
        here, learned = (filter_window(name, frequency) for name in self._names)
        return here / learned

    def _gain(self, frequency: torch.Tensor) -> torch.Tensor:
        gain = (1 / self._window(frequency.clamp(max=HIGHEST))).clamp(max=_LARGEST_GAIN)
        # Beyond what projections sample there is nothing that a filter has changed.
        return torch.where(frequency <= 0.5, gain, 1.0)


def _each(slices: torch.Tensor, response: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Slices with their spectra multiplied, one by one: the bits of none depend on the others."""
    shape = slices.shape[1:]
    y, x = torch.fft.fftfreq(shape[0]), torch.fft.rfftfreq(shape[1])
    factors = response(torch.hypot(y[:, None], x)).float().to(slices.device)
    images = [torch.fft.irfft2(torch.fft.rfft2(s) * factors, s=shape) for s in slices]
    return torch.stack(images)


class RefilteredDenoiser:
    """A denoiser for slices of another filter.

    Parameters
    ----------
    denoiser : Denoiser
    change : FilterChange
    """

    def __init__(self, denoiser: Denoiser, change: FilterChange) -> None:
        self._denoiser, self._change = denoiser, change
        self.card = denoiser.card
        self.sha256 = denoiser.sha256

    @property
    def on(self) -> "Callable[[str], RefilteredDenoiser] | None":
        """Gives the same on another device; None where the other denoiser can't."""
        return moving(self._denoiser, lambda moved: RefilteredDenoiser(moved, self._change))

    def __call__(self, slices: torch.Tensor, context: tuple[int, int] = (0, 0)) -> torch.Tensor:
        """See `Denoiser`."""
        around = () if context == (0, 0) else (context,)
        return self._change.as_here(self._denoiser(self._change.as_learned(slices), *around))

    def with_uncertainty(
        self, slices: torch.Tensor, context: tuple[int, int] = (0, 0)
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `UncertainDenoiser`; of a denoiser that is one.

        The half-widths are averaged as the window averages the errors, without regard to that some
        of these cancel: they hold more errors than the card promises, not fewer.
        """
        assert has_uncertainty(self._denoiser)
        made = self._denoiser.with_uncertainty(self._change.as_learned(slices), context)
        denoised, uncertainty = (self._change.as_here(image) for image in made)
        return denoised, uncertainty.clamp_min(0)


def refiltered(denoiser: Denoiser, config: ReconstructionConfig) -> Denoiser:
    """The same denoiser, or one that takes slices of this reconstruction's filter."""
    change = FilterChange.between(denoiser.card, config)
    return denoiser if change is None else RefilteredDenoiser(denoiser, change)
