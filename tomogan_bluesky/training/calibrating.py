"""Calibrating a network's uncertainty on pairs that it has not learned from.

Enter: an `UncertainGenerator`, and pairs by sample. Leave: its `Calibration`, and the `Familiarity`
of the slices that it is for; both are for its card.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from ..errors import TrainingError
from ..models.uncertainty import UncertainGenerator
from ..recon.phantoms import TRAINING_FAMILIES
from ..recon.volumes import VOLUME_FAMILIES
from ..trust.calibration import Calibration, Misses, calibrate, misses, noise_for_contrast
from ..trust.familiarity import Familiarity, traits
from .pairs import Pairs, SimulatedScans
from .reliability import Reliability, pixel_kinds, reliability
from .uncertainty import COVERAGE

_MOST_SLICES = 600  # at a tenth of a second each, a minute
# Streams of random numbers of their own, as `pairs.validation_scans` has.
_FLAT_SEED, _VOLUME_SEED = 998, 997
_FLAT_SAMPLES, _VOLUME_SLICES = 80, 240


@dataclass(frozen=True, eq=False)
class Unseen:
    """Pairs that a network has not learned from.

    Attributes
    ----------
    pairs : Pairs
    sample : str or None
        All are of one sample; None: each volume is one, or each slice where none has neighbours.
    """

    pairs: Pairs
    sample: str | None = None

    def unit(self, i: int) -> str:
        """What slice i belongs to, and is not independent of."""
        if self.sample is not None:
            return f"sample {self.sample}"
        volume = self.pairs.volume
        return f"slice {i}" if volume is None else f"volume {int(volume[i])}"


def calibration_scans(unseen: SimulatedScans, seen: SimulatedScans) -> tuple[SimulatedScans, ...]:
    """Recipes of scans to calibrate with: of new samples, at the doses of the training.

    Parameters
    ----------
    unseen : SimulatedScans
        Those of the validation, for their size; where they are of volumes, there will be single
        slices, too, since a model of several slices meets both.
    seen : SimulatedScans
        Of the training, for their doses.
    """
    free = {"doses": None, "dose_range": seen.dose_range, "realisations": 4}
    seed = unseen.seed - unseen.seed % 1000
    flat = {"families": TRAINING_FAMILIES, "n_slices": _FLAT_SAMPLES, "seed": seed + _FLAT_SEED}
    recipes = [unseen.model_copy(update={**free, **flat})]
    if unseen.volumes() is not None:
        deep = {"families": VOLUME_FAMILIES, "n_slices": _VOLUME_SLICES}
        deep["seed"] = seed + _VOLUME_SEED
        recipes.append(unseen.model_copy(update={**free, **deep}))
    return tuple(recipes)


@torch.no_grad()
def calibrated(
    generator: UncertainGenerator, unseen: Sequence[Unseen], errors: str, seed: int = 0
) -> tuple[Calibration, Familiarity]:
    """Calibrate a network.

    Parameters
    ----------
    generator : UncertainGenerator
        On the CPU.
    unseen : sequence of Unseen
        Some hundred of their slices are taken, at random.
    errors : str
        What errors are distances to, for the card.
    seed : int

    Raises
    ------
    TrainingError
        There are no slices.
    """
    all_ = [(g, *ij) for g, u in enumerate(unseen) for ij in np.ndindex(*u.pairs.dose.shape)]
    if not all_:
        raise TrainingError("there are no slices to calibrate with")
    order = np.random.default_rng(seed).permutation(len(all_))[:_MOST_SLICES]
    units: dict[tuple[int, str], int] = {}
    found, seen = [], []
    for k in tqdm(sorted(order), desc="calibrating", unit="slice", disable=None):
        group, i, j = all_[k]
        pairs, unit = unseen[group].pairs, unseen[group].unit(i)
        window = pairs.noisy[pairs.neighbours(i, generator.depth), j][None]
        noisy, noise, target = pairs.noisy[i, j], float(pairs.noise[i, j]), pairs.target[i].numpy()
        denoised, scale = generator(window, pairs.noise[i, j][None])[0]
        kinds = {name: there.ravel() for name, there in pixel_kinds(target).items()}
        error = np.abs(denoised.numpy() - target).ravel()
        without = np.abs(noisy.numpy() - target).ravel()
        # Slices of one sample are of one unit, whichever of the pairs they are in.
        of = -1 if unseen[group].sample is not None else group
        found.append(
            Misses(
                unit=units.setdefault((of, unit), len(units)),
                noise_for_contrast=noise_for_contrast(denoised, noise),
                of_scale=misses(error / scale.numpy().ravel(), kinds),
                of_noise=misses(without / noise, kinds),
            )
        )
        seen.append(traits(noisy))
    return calibrate(found, COVERAGE, errors=errors), Familiarity.of(seen)


@torch.no_grad()
def reliability_of(
    generator: UncertainGenerator, calibration: Calibration, pairs: Pairs, name: str
) -> list[Reliability]:
    """How far a network's intervals can be relied on, dose by dose.

    Parameters
    ----------
    generator : UncertainGenerator
        On the CPU.
    calibration : Calibration
    pairs : Pairs
        Realisation j of all slices having the same dose.
    name : str
        Of the model.
    """
    results = []
    for j, dose in enumerate(pairs.dose[0].tolist()):
        outputs = []
        for i in range(len(pairs)):
            window = pairs.noisy[pairs.neighbours(i, generator.depth), j][None]
            denoised, scale = generator(window, pairs.noise[i, j][None])[0]
            noise = noise_for_contrast(denoised, float(pairs.noise[i, j]))
            outputs.append(torch.stack([denoised, scale * calibration.factor(noise)]))
        denoised, half_width = torch.stack(outputs, 1).numpy()
        of = (denoised, half_width, pairs.target.numpy())
        results.append(reliability("unseen", dose, name, *of))
    return results
