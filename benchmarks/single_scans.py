"""Learning from the very scan that is to be denoised, for `denoising.py`.

Two cases. ``noise2inverse``: the slices of a pinned set at dose 1/4, as if they were one scan, of
which no clean data are known; the truth is known to the scores alone. ``tooth``: a real scan, whose
photons are divided at random into a share, which is denoised, and the rest, which is the reference:
its noise is independent (the scan itself would contain the noise of its share).

Times are of the processor, of all threads together: on one thread of a quiet machine they are those
of the clock, and on a busy one still the same work.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tomogan_bluesky.config import DEFAULT_MODEL, ReconstructionConfig
from tomogan_bluesky.denoise.windows import window_indices
from tomogan_bluesky.geometry import ScanGeometry
from tomogan_bluesky.models.artifact import load_generator
from tomogan_bluesky.models.generator import Generator, parse_generator
from tomogan_bluesky.pipeline.slabs import Fields, SlabPipeline, find_rotation_centre
from tomogan_bluesky.recon.gridrec import Gridrec
from tomogan_bluesky.training.noise2inverse import (
    angular_splits,
    averaged_splits,
    split_pairs,
)
from tomogan_bluesky.training.noise_profile import measure_noise, split_exposure
from tomogan_bluesky.training.pairs import Pairs
from tomogan_bluesky.training.pinned import PINNED_SETS, PinnedScans, PinnedSlices
from tomogan_bluesky.training.scoring import NOISY, Result, score
from tomogan_bluesky.training.settings import FINE_TUNING_RATE
from tomogan_bluesky.training.trainer import TrainingConfig, train
from tomogan_bluesky.trust.noise import estimate_noise

_DOSE = 0.25
_TOOTH_SHARES = (0.25, 0.1)
_DIVISIONS = 4  # of the photons, each at random: so noise of other halves is learned from, too

Denoise = Callable[[torch.Tensor], torch.Tensor]


def denoiser(generator: Generator, volume: torch.Tensor) -> Denoise:
    """A network as a function of slices, shape (slice, y, x), of which those of a volume adjoin."""

    def window(slices: torch.Tensor, i: int) -> torch.Tensor:
        there = torch.nonzero(volume == volume[i]).flatten().tolist()
        around = window_indices(there.index(i), len(there), generator.depth)
        return slices[[there[k] for k in around]]

    @torch.inference_mode()
    def denoise(slices: torch.Tensor) -> torch.Tensor:
        return torch.stack(
            [
                generator(window(slices, i)[None], estimate_noise(noisy[None]))[0, 0]
                for i, noisy in enumerate(slices)
            ]
        )

    return denoise


def learned(
    pairs: Sequence[Pairs], volume: torch.Tensor, minutes: float, start: str | None = None
) -> tuple[Denoise, int]:
    """A network that was trained on pairs of a scan, and the steps that fit into the time."""
    pairs = [replace(some, volume=volume) for some in pairs]
    options: dict = {"network": "unet4", "options": {"base": 16}}
    network = None
    if start is not None:
        network, card = load_generator(start)
        name, of_network = parse_generator(card.network)
        options = {"network": name, "options": of_network, "learning_rate": FINE_TUNING_RATE}

    def trained(steps: int) -> tuple[Generator, float]:
        config = TrainingConfig(steps=steps, checkpoint_every=10**6, **options)
        with tempfile.TemporaryDirectory() as folder:
            before = time.process_time()
            return train(config, pairs, folder, start=network), time.process_time() - before

    steps = steps_within(60 * minutes, lambda n: trained(n)[1])
    return denoiser(trained(steps)[0], volume), steps


def steps_within(seconds: float, spent: Callable[[int], float]) -> int:
    """How many steps of a training fit into a time, of which a few are tried first."""
    spent(1)  # the first one is slow
    one, four = spent(1), spent(4)
    return max(1, round((seconds - one) / max((four - one) / 3, 1e-4)))


def auto_denoise(splits: np.ndarray, minutes: float) -> tuple[np.ndarray, int]:
    """Slices of auto-denoise's Noise2Noise on the same splits in the same time, and its epochs.

    Averaged over its two inputs, as it does by itself.
    """
    from autoden import N2N
    from autoden.models.config import NetworkParamsUNet

    def trained(epochs: int) -> tuple[Any, np.ndarray, float]:
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002  # it draws from there
        algorithm = N2N(
            model=NetworkParamsUNet(n_features=16), batch_size=1, device="cpu", verbose=False
        )
        inputs, targets, mask = algorithm.prepare_data(splits)
        before = time.process_time()
        algorithm.train(inputs, targets, mask, epochs=epochs)
        return algorithm, inputs, time.process_time() - before

    epochs = steps_within(60 * minutes, lambda n: trained(n)[2])
    algorithm, inputs, _ = trained(epochs)
    return np.asarray(algorithm.infer(inputs), np.float32), epochs


def noise2inverse(
    times: Sequence[float], slices_a_kind: int | None, with_auto_denoise: bool
) -> Iterator[Result]:
    """The pinned set ``256`` at dose 1/4, learned from itself for so many minutes each."""
    recipe = PINNED_SETS["256"]
    scans = PinnedScans(recipe, slices_a_kind)
    measured = scans.measured(_DOSE)
    whole = Gridrec(scans.geometry, recipe.filter)
    noisy = whole(measured)
    slices = PinnedSlices(
        scans.families,
        whole(scans.clean()).numpy(),
        whole(scans.second_full_dose()).numpy(),
        {_DOSE: noisy.numpy()},
    )
    splits = _splits(measured, scans.geometry)
    pairs = split_pairs(splits)
    alone = torch.arange(len(noisy))  # each slice is a volume of its own
    simulated = denoiser(load_generator(DEFAULT_MODEL)[0], alone)(noisy).numpy()
    for minutes in times:
        case = f"256, {minutes:g} min"
        yield score(case, _DOSE, NOISY, noisy.numpy(), slices)
        denoise, steps = learned(pairs, alone, minutes)
        print(f"Noise2Inverse: {steps} steps", file=sys.stderr)
        averaged, full = averaged_splits(denoise, splits), denoise(noisy)
        yield score(case, _DOSE, "Noise2Inverse, averaged halves", averaged.numpy(), slices)
        yield score(case, _DOSE, "Noise2Inverse, full angle", full.numpy(), slices)
        if with_auto_denoise:
            images, epochs = auto_denoise(splits.numpy(), minutes)
            print(f"auto-denoise: {epochs} epochs", file=sys.stderr)
            yield score(case, _DOSE, "auto-denoise, averaged halves", images, slices)
        yield score(case, _DOSE, "simulated model", simulated, slices)
        adapted, steps = learned(pairs, alone, minutes, DEFAULT_MODEL)
        print(f"fine-tuned: {steps} steps", file=sys.stderr)
        yield score(case, _DOSE, "simulated model, fine-tuned", adapted(noisy).numpy(), slices)


def _splits(measured: torch.Tensor, geometry: ScanGeometry) -> torch.Tensor:
    """Reconstructions of even and of odd projections."""
    parts = []
    for angles in angular_splits(geometry.n_angles):
        theta = geometry.theta[angles]
        some = ScanGeometry(theta, geometry.rotation_centre, geometry.n_columns)
        parts.append(Gridrec(some)(measured[:, angles]))
    return torch.stack(parts)


def tooth(file: Path, times: Sequence[float]) -> Iterator[Result]:
    """A real scan, divided into a share of its photons and the rest."""
    import h5py

    with h5py.File(file) as data:
        exchange = data["exchange"]
        frames = exchange["data"][:].swapaxes(0, 1)
        flats, darks = exchange["data_white"][:], exchange["data_dark"][:]
        theta = np.deg2rad(exchange["theta"][:]) if "theta" in exchange else None
    if theta is None:
        theta = np.linspace(0, np.pi, frames.shape[1])
    profile = measure_noise(flats, darks)
    print(f"tooth: {profile}", file=sys.stderr)
    dark, flat = (f.mean(0, dtype=np.float32) for f in (darks, flats))
    fields = Fields(dark, flat[None], np.ones((len(theta), 1), np.float32))
    config = ReconstructionConfig()
    rows = (0, len(frames))
    centre = find_rotation_centre(
        lambda angles, part: frames[part][:, angles], theta, fields, rows, config
    ).centre
    geometry = ScanGeometry(theta, centre, frames.shape[2])
    pipeline = SlabPipeline(geometry, config, None, fields)
    rng = np.random.default_rng(0)
    for share in _TOOTH_SHARES:
        low, rest = split_exposure(frames, dark, profile, share, rng)
        sinograms, _ = pipeline.attenuation(*rows, low)
        noisy = pipeline.reconstruct(sinograms)
        reference = pipeline.reconstruct(pipeline.attenuation(*rows, rest)[0]).numpy()
        slices = PinnedSlices(("tooth",) * len(noisy), reference, reference, {})
        # With few angles, halves of them are full of streaks: halves of the photons are not.
        angles = split_pairs(_splits(sinograms, geometry))
        of_share = profile.model_copy(update={"gain": profile.gain / share})
        photons = []
        for _ in range(_DIVISIONS):
            parts = split_exposure(low, dark, of_share, 0.5, rng)
            halves = [pipeline.reconstruct(pipeline.attenuation(*rows, part)[0]) for part in parts]
            photons += split_pairs(torch.stack(halves))
        adjoining = torch.zeros(len(noisy))
        simulated = denoiser(load_generator(DEFAULT_MODEL)[0], adjoining)(noisy).numpy()
        for minutes in times:
            case = f"tooth, {minutes:g} min"
            yield score(case, share, NOISY, noisy.numpy(), slices)
            yield score(case, share, "simulated model", simulated, slices)
            for name, pairs, start in (
                ("Noise2Inverse on the scan", angles, None),
                ("halves of the photons", photons, None),
                ("simulated, fine-tuned on angles", angles, DEFAULT_MODEL),
                ("simulated, fine-tuned on photons", photons, DEFAULT_MODEL),
            ):
                denoise, steps = learned(pairs, adjoining, minutes, start)
                print(f"{name}: {steps} steps", file=sys.stderr)
                yield score(case, share, name, denoise(noisy).numpy(), slices)
