"""How well a network does on pairs that it has not seen.

Enters: a network and pairs. Leaves: mean scores by dose, each with that of the noisy slices beside
it, all against the noise-free reconstructions.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch

from .metrics import edge_f1, edge_fidelity, psnr, ssim
from .pairs import Pairs

Score = Callable[[np.ndarray, np.ndarray], float]
Network = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

ALL_SCORES: Mapping[str, Score] = {
    "psnr_db": psnr,
    "ssim": ssim,
    "edge_fidelity": edge_fidelity,
    "edge_f1": edge_f1,
}


def evaluate(
    network: Network,
    pairs: Pairs,
    scores: Mapping[str, Score] = ALL_SCORES,
    device: str = "cpu",
) -> dict[str, float]:
    """Mean scores of denoised and of noisy slices, by dose.

    Parameters
    ----------
    network : callable
        With the signature of `models.generator`, on `device`.
    pairs : Pairs
        Realisation j of all slices having the same dose.
    scores : mapping of str to callable
        What to measure; a callable takes a slice and its reference.
    device : str

    Returns
    -------
    dict of str to float
        Keys such as ``psnr_db_denoised_at_0.25`` and ``psnr_db_noisy_at_0.25``.
    """
    collected: dict[str, list[float]] = {}
    for dose, noisy, denoised, target in _denoised(network, pairs, device):
        for name, score in scores.items():
            for kind, image in (("noisy", noisy), ("denoised", denoised)):
                key = f"{name}_{kind}_at_{dose:g}"
                collected.setdefault(key, []).append(score(image, target))
    return {key: float(np.mean(values)) for key, values in collected.items()}


def _denoised(
    network: Network, pairs: Pairs, device: str
) -> Iterator[tuple[float, np.ndarray, np.ndarray, np.ndarray]]:
    """Dose, noisy slice, denoised slice and target of each pair."""
    for i, j in np.ndindex(*pairs.dose.shape):
        window = pairs.noisy[pairs.neighbours(i, getattr(network, "depth", 1)), j]
        x = window[None].to(device).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            denoised = network(x, pairs.noise[i, j][None].to(device))[0, 0].cpu()
        dose = float(pairs.dose[i, j])
        yield dose, pairs.noisy[i, j].numpy(), denoised.numpy(), pairs.target[i].numpy()
