"""What to do when the memory of a GPU does not suffice.

Enter: the steps of a reconstruction, for any device, and a denoiser. Leave: their results, from
smaller parts, and in the end from the processor, and remarks that say so. Parts change no bit; the
processor rounds otherwise than a GPU.
"""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from ..denoise.windows import Denoiser, has_uncertainty
from ..models.card import ModelCard
from ..recon.backends import Reconstructor
from ..recon.preprocess import Preprocessing

logger = logging.getLogger(__name__)

_Made = TypeVar("_Made")


class Computation:
    """Preprocessing and reconstruction on one device, or on the processor when it is too small.

    Parameters
    ----------
    device : str
    make_preprocessing, make_reconstructor : callables
        Take a device. The reconstructor is made when it is needed.

    Attributes
    ----------
    preprocess : Preprocessing
    remarks : list of str
        What a reader of the result is to know.
    """

    def __init__(
        self,
        device: str,
        make_preprocessing: Callable[[str], Preprocessing],
        make_reconstructor: Callable[[str], Reconstructor],
    ) -> None:
        self._device = device
        self._make_preprocessing = make_preprocessing
        self._make_reconstructor = make_reconstructor
        self._reconstructor: Reconstructor | None = None
        self._at_once: int | None = None
        self.preprocess = make_preprocessing(device)
        self.remarks: list[str] = []

    @property
    def reconstructor(self) -> Reconstructor:
        """For this device."""
        if self._reconstructor is None:
            self._reconstructor = self._make_reconstructor(self._device)
        return self._reconstructor

    def attenuation(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, int]:
        """See `Preprocessing`."""
        try:
            return self.preprocess(*args, **kwargs)
        except torch.OutOfMemoryError as error:
            self._leave_gpu(error)
        return self.preprocess(*args, **kwargs)

    def reconstruct(self, attenuation: torch.Tensor) -> torch.Tensor:
        """See `Reconstructor`."""
        if self._device == "cpu":
            attenuation = attenuation.cpu()
        parts = attenuation.split(self._at_once or max(1, len(attenuation)))
        try:
            slices = [self.reconstructor(part) for part in parts]
            return slices[0] if len(slices) == 1 else torch.cat(slices)
        except torch.OutOfMemoryError as error:
            most = len(parts[0])
            if most > 1:
                self._at_once = most // 2
                self._note(f"the memory of {self._device} is too small for {most} slices at once")
            else:
                self._leave_gpu(error)
        return self.reconstruct(attenuation)

    def _leave_gpu(self, error: torch.OutOfMemoryError) -> None:
        if self._device == "cpu":
            raise error
        self._note(f"the memory of {self._device} is too small: the processor made the rest")
        self._device, self._at_once, self._reconstructor = "cpu", None, None
        self.preprocess = self._make_preprocessing("cpu")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _note(self, remark: str) -> None:
        logger.info("%s", remark)  # who reads the remarks says it aloud
        self.remarks.append(remark)


class DenoisingElsewhere:
    """A denoiser whose work the processor takes over, for this scan, when a GPU is too small.

    A denoiser works slice by slice and in tiles already, so there is nothing smaller to try.

    Parameters
    ----------
    denoiser : Denoiser
        Has a method ``on(device)`` that gives the same one on another device. Without it, the error
        of the GPU goes on to the caller.

    Attributes
    ----------
    card, sha256
        Of the denoiser.
    remarks : list of str
        What a reader of the result is to know.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        self._denoiser = denoiser
        self.card: ModelCard = denoiser.card
        self.sha256: str = denoiser.sha256
        self.remarks: list[str] = []

    def __call__(self, slices: torch.Tensor, context: tuple[int, int] = (0, 0)) -> torch.Tensor:
        """See `Denoiser`."""
        around = () if context == (0, 0) else (context,)
        return self._wherever(lambda denoiser: denoiser(slices, *around))

    def with_uncertainty(
        self, slices: torch.Tensor, context: tuple[int, int] = (0, 0)
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `UncertainDenoiser`; of a denoiser that is one."""

        def both(denoiser: Denoiser) -> tuple[torch.Tensor, torch.Tensor]:
            assert has_uncertainty(denoiser)
            return denoiser.with_uncertainty(slices, context)

        return self._wherever(both)

    def _wherever(self, work: Callable[[Denoiser], _Made]) -> _Made:
        """On the GPU, or else on the processor."""
        try:
            return work(self._denoiser)
        except torch.OutOfMemoryError:
            on = getattr(self._denoiser, "on", None)
            if self.remarks or on is None:
                raise
        self._denoiser = on("cpu")
        remark = "the memory of the GPU is too small for the denoiser: the processor denoised"
        logger.info("%s", remark)  # who reads the remarks says it aloud
        self.remarks.append(remark)
        return work(self._denoiser)
