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
from ..models.artifact import ModelCard, load_model, model_sha256, network_of
from .tiles import Tiling
from .windows import Denoiser, WindowedDenoiser, window_indices

__all__ = [
    "Denoiser",
    "TorchScriptDenoiser",
    "WindowedDenoiser",
    "check_reconstruction",
    "estimate_noise",
]

logger = logging.getLogger(__name__)

# Noise is looked for within this fraction of the half width around the centre, where the sample
# is: outside the circle that all projections see, a reconstruction means nothing.
_NOISE_RADIUS = 0.7
# Wider images are cut into tiles of this width: at 2048 columns unet4 needs about a gigabyte.
_LARGEST_WHOLE = 2048
# Median of the absolute value of a standard normal variable.
_NORMAL_MAD = 0.6745


def estimate_noise(slices: torch.Tensor) -> torch.Tensor:
    """Standard deviation of the noise of each slice, blind.

    The median absolute value of the diagonal details of the Haar transform (Donoho and Johnstone,
    Biometrika 81, 425, 1994), within a disc around the centre. Reconstruction noise is not white,
    so this is a level rather than the exact deviation: networks are trained with the same one.

    Parameters
    ----------
    slices : torch.Tensor, float32, shape (N, H, W)
        H and W at least 2; on any device.

    Returns
    -------
    torch.Tensor, float32, shape (N,)
        In the slices' units, on their device.

    Raises
    ------
    ModelError
        An input of another shape.
    """
    if slices.ndim != 3 or min(slices.shape[1:]) < 2:
        raise ModelError(
            "slices: expected (slice, y, x) with at least 2 x 2 pixels to estimate noise from, got "
            f"{tuple(slices.shape)}"
        )
    height, width = (n // 2 for n in slices.shape[1:])
    even = slices[:, : 2 * height, : 2 * width]
    details = (
        even[:, ::2, ::2] - even[:, 1::2, ::2] - even[:, ::2, 1::2] + even[:, 1::2, 1::2]
    ) / 2
    y, x = ((torch.arange(n, device=slices.device) - (n - 1) / 2) * 2 / n for n in (height, width))
    disc = y[:, None] ** 2 + x**2 <= _NOISE_RADIUS**2
    return details[:, disc].abs().median(dim=1).values / _NORMAL_MAD


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

    @torch.no_grad()
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
        first, last = context[0], len(slices) - context[1]
        denoised = torch.empty_like(slices[first:last])
        for i, out in zip(range(first, last), denoised, strict=True):
            x = slices[window_indices(i, len(slices), self.card.depth)].to(self.device)
            middle = x[self.card.depth // 2][None]
            level = estimate_noise(middle) if self._noise is None else x.new_tensor([self._noise])
            x = x[None].contiguous(memory_format=torch.channels_last)
            out.copy_(self._tiling(self._module, x, level)[0, 0])
            if not torch.isfinite(out).all():
                came = "finite" if torch.isfinite(slices[i]).all() else "not finite either"
                raise ModelError(
                    f"model {self.card.name!r}: expected finite values, but the denoised slice "
                    f"{i - first} of {len(denoised)} is not; its reconstruction is {came}"
                )
        return denoised


def check_reconstruction(card: ModelCard, config: ReconstructionConfig) -> str | None:
    """Say whether a model was trained on slices that were reconstructed in another way.

    The method decides the spectrum of the noise, which is what a network has learned, and so does
    the filter of those methods that have one.

    Returns
    -------
    str or None
        The text of a warning, or None where all agrees. The caller decides what to do with it.
    """
    trained = _way(card.reconstruction.method, card.reconstruction.filter)
    if trained == (here := _way(config.method, config.filter)):
        return None
    return (
        f"model {card.name!r} was trained on slices from {trained}, but these come from {here}: "
        "expect worse results; set the reconstruction to the same, or use a model that was trained "
        "on it"
    )


def _way(method: str, filter: str) -> str:
    return f"{method} with the filter {filter!r}" if method in ("gridrec", "fbp") else method
