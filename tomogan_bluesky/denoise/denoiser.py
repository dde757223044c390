"""From reconstructed slices to denoised ones.

Enters: slices (slice, y, x) in 1/pixel. Leaves: slices of the same shape and units. The noise of
each slice is estimated from the slice itself, unless it is given.
"""

import logging
from pathlib import Path
from typing import Self

import torch

from ..config import ReconstructionConfig
from ..errors import ConfigurationError, ModelError
from ..models.artifact import load_model
from ..models.card import ModelCard, network_of
from ..models.files import model_sha256
from ..trust.calibration import noise_for_contrast
from ..trust.noise import estimate_noise
from .refiltered import FilterChange
from .tiles import Tiling
from .windows import Denoiser, WindowedDenoiser, has_uncertainty, window_indices

__all__ = [
    "Denoiser",
    "TorchScriptDenoiser",
    "WindowedDenoiser",
    "check_reconstruction",
]

logger = logging.getLogger(__name__)

# Wider images are cut into tiles of this width: at 2048 columns unet4 needs about a gigabyte.
_LARGEST_WHOLE = 2048


class TorchScriptDenoiser:
    """A denoiser from a model file, one slice after another.

    One at a time, because on a CPU that is quicker than batches, and because the bits of a slice
    then depend neither on the slices beside it nor on how many go through at once.

    Parameters
    ----------
    path_or_name : path or str
        See `models.artifact.load_model`.
    device : str
        "cpu", "cuda", …; "auto" is the GPU where there is one.
    noise : float, optional
        Standard deviation of the noise of all slices in 1/pixel; None: estimated for each slice.
    tile : int, optional
        Width of the tiles that larger slices are cut into (see `tiles`), in pixels; None: 2048.
    sha256 : str, optional
        Of the only file that may be loaded; None: any.

    Attributes
    ----------
    card : ModelCard
    sha256 : str
        Of the model's file.

    Raises
    ------
    ModelNotFoundError, ModelError
        No such model, or a file that can't be used.
    ConfigurationError
        A negative noise; tiles that are too small for the network.
    """

    def __init__(
        self,
        path_or_name: Path | str,
        device: str = "cpu",
        noise: float | None = None,
        tile: int | None = None,
        sha256: str | None = None,
    ) -> None:
        if noise is not None and not 0 <= noise < float("inf"):
            raise ConfigurationError(f"noise: expected 0 or more, in 1/pixel, got {noise}")
        self._made_with = (path_or_name, noise, tile)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self._noise = noise
        self._module, self.card = load_model(path_or_name, self.device, sha256)
        self.sha256 = sha256 or model_sha256(path_or_name)
        network = network_of(self.card)
        if network.depth != self.card.depth:
            raise ModelError(
                f"model {self.card.name!r}: its card says a depth of {self.card.depth} slices, but "
                f"names the network {self.card.network}, which takes {network.depth}; export it "
                "again"
            )
        self._tiling = Tiling(tile or _LARGEST_WHOLE, network.reach, network.multiple)

    def on(self, device: str) -> Self:
        """The same denoiser on another device; nothing is loaded but the very same file.

        Raises
        ------
        ModelNotFoundError, ModelError
            The file is gone or has changed.
        """
        path_or_name, noise, tile = self._made_with
        return type(self)(path_or_name, device, noise, tile, self.sha256)

    def __call__(self, slices: torch.Tensor, context: tuple[int, int] = (0, 0)) -> torch.Tensor:
        """Denoise slices.

        Parameters
        ----------
        slices : torch.Tensor, float32, shape (slice, y, x)
            In 1/pixel, on any device.
        context : tuple of int
            How many slices at the beginning and at the end are there as neighbours alone.

        Returns
        -------
        torch.Tensor, float32, shape (slice, y, x)
            In 1/pixel, on the device of `slices`; without the context.

        Raises
        ------
        ModelError
            Another shape, or a result that is not finite.
        """
        return self._outputs(slices, context)[0]

    def with_uncertainty(
        self, slices: torch.Tensor, context: tuple[int, int] = (0, 0)
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Denoise slices, and say how far off each pixel may be; in one pass.

        Returns
        -------
        denoised, uncertainty : torch.Tensor, float32, shape (slice, y, x)
            In 1/pixel: the truth is within the uncertainty of the denoised value for such a share
            of the pixels as the card's calibration says.

        Raises
        ------
        ModelError
            As `__call__`, and where the model has no such output.
        """
        if not has_uncertainty(self):
            raise ModelError(
                f"model {self.card.name!r}: expected one that gives its uncertainty, got one that "
                f"does not; add it with: tomogan-bluesky calibrate {self.card.name}"
            )
        denoised, uncertainty = self._outputs(slices, context)
        return denoised, uncertainty

    @torch.no_grad()
    def _outputs(self, slices: torch.Tensor, context: tuple[int, int]) -> torch.Tensor:
        """What the card names as outputs, calibrated, shape (output, slice, y, x)."""
        first, last = context[0], len(slices) - context[1]
        shape = (len(self.card.outputs), last - first, *slices.shape[1:])
        outputs = slices.new_empty(shape)
        for i, out in zip(range(first, last), outputs.unbind(1), strict=True):
            x = slices[window_indices(i, len(slices), self.card.depth)].to(self.device)
            middle = x[self.card.depth // 2][None]
            level = estimate_noise(middle) if self._noise is None else x.new_tensor([self._noise])
            x = x[None].contiguous(memory_format=torch.channels_last)
            out.copy_(self._tiling(self._module, x, level)[0])
            if self.card.calibration is not None:
                out[1] *= self.card.calibration.factor(noise_for_contrast(out[0], float(level)))
            if not torch.isfinite(out).all():
                came = "finite" if torch.isfinite(slices[i]).all() else "not finite either"
                raise ModelError(
                    f"model {self.card.name!r}: expected finite values, but the denoised slice "
                    f"{i - first} of {last - first} is not; its reconstruction is {came}"
                )
        return outputs


def check_reconstruction(card: ModelCard, config: ReconstructionConfig) -> str | None:
    """Say whether a model was trained on slices that were reconstructed in another way.

    The method decides the spectrum of the noise, which is what a network has learned, and so does
    the filter of those methods that have one. A smoother filter than that of the training is no
    matter: see `refiltered`.

    Returns
    -------
    str or None
        The text of a warning, or None where all agrees. The caller decides what to do with it.
    """
    trained = _way(card.reconstruction.method, card.reconstruction.filter)
    if trained == (here := _way(config.method, config.filter)):
        return None
    if FilterChange.between(card, config) is not None:
        return None
    return (
        f"model {card.name!r} was trained on slices from {trained}, but these come from {here}: "
        "expect worse results; set the reconstruction to the same, or use a model that was trained "
        "on it"
    )


def _way(method: str, filter: str) -> str:
    return f"{method} with the filter {filter!r}" if method in ("gridrec", "fbp") else method
