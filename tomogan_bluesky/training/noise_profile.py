"""What a detector adds to the photons: its noise profile.

Enter: single darks and flats of a run. Leaves: a `NoiseProfile`, by photon transfer (Janesick,
Photon Transfer, SPIE 2007): the variance of flats grows with their mean, and the slope is the gain.
With it a scan at full dose is split into two honest ones at lower dose.
"""

import math

import numpy as np
from pydantic import BaseModel, ConfigDict

from ..errors import MissingFramesError
from ..models.card import ModelCard

_FEWEST_FRAMES = 2
_LOWEST_CORRELATION = 0.02  # of neighbours
_SURE = 3  # standard deviations, by which a correlation must differ from none
_WIDEST_BLUR_PX = 3.0
# What counts as another detector, or another way of using it.
_GAIN_RATIO, _READ_RATIO, _BLUR_PX = 1.25, 1.5, 0.3


class NoiseProfile(BaseModel):
    """Noise of a detector, in electrons: what photons become before they are counts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gain: float
    """Counts an electron: the variance of flats over their mean. Where the light of one photon
    spreads over pixels, these electrons are what a pixel's noise is that of; there are more than
    there were photons."""
    read_noise: float
    """Standard deviation of a frame without light, in electrons."""
    flat_electrons: float
    """Mean of the flats, in electrons a pixel and frame: what the full dose is."""
    flat_pattern: float
    """Standard deviation of the flat field between pixels, as a fraction of its mean."""
    blur_px: float
    """Standard deviation of the blur that the noise of neighbours shares, in pixels."""

    def differences(self, other: "NoiseProfile") -> list[str]:
        """In what another detector differs, in words; empty where it is the same."""
        found = []
        for name, ratio, unit in (
            ("gain", _GAIN_RATIO, "counts an electron"),
            ("read_noise", _READ_RATIO, "electrons"),
        ):
            ours, theirs = getattr(self, name), getattr(other, name)
            # Noise below an electron is the rounding to counts.
            if max(ours, theirs) > ratio * max(min(ours, theirs), 1e-3 if name == "gain" else 1):
                found.append(f"{name.replace('_', ' ')} {theirs:.3g} {unit} instead of {ours:.3g}")
        if abs(self.blur_px - other.blur_px) > _BLUR_PX:
            found.append(f"blur {other.blur_px:.2f} px instead of {self.blur_px:.2f}")
        return found


def measure_noise(flats: np.ndarray, darks: np.ndarray) -> NoiseProfile:
    """The noise profile of a detector.

    Parameters
    ----------
    flats, darks : arrays, shape (frame, row, column)
        Single frames as recorded, at least two of each; more are better.

    Raises
    ------
    MissingFramesError
        Too few frames, other shapes, or flats that are no brighter and no noisier than darks.
    """
    if (
        min(len(flats), len(darks)) < _FEWEST_FRAMES
        or flats.ndim != 3
        or flats.shape[1:] != darks.shape[1:]
    ):
        raise MissingFramesError(
            f"noise profile: expected {_FEWEST_FRAMES} flats and {_FEWEST_FRAMES} darks or more, "
            f"(frame, row, column) of one detector; got {flats.shape} and {darks.shape}"
        )
    dark = darks.mean(0, dtype=np.float64)
    signal = flats - dark
    # The beam is not equally bright in all flats: that is none of the detector's noise.
    signal *= signal.mean() / signal.mean((1, 2), keepdims=True)
    mean = signal.mean(0)
    usable = np.abs(mean - np.median(mean)) < 0.5 * abs(np.median(mean))  # neither dead nor hot
    noise = (signal - mean) * math.sqrt(len(flats) / (len(flats) - 1))
    dark_noise = (darks - dark) * math.sqrt(len(darks) / (len(darks) - 1))
    variance = float((noise**2).mean(0)[usable].mean()) if usable.any() else 0.0
    read_variance = float((dark_noise**2).mean(0)[usable].mean()) if usable.any() else 0.0
    level = float(mean[usable].mean()) if usable.any() else 0.0
    if not (level > 0 and variance > read_variance):
        raise MissingFramesError(
            f"noise profile: expected flats brighter and noisier than darks, got {level:.3g} "
            f"counts more with a variance of {variance:.3g} against {read_variance:.3g}; are the "
            "frames what their streams say, and single exposures?"
        )
    shared = [_shared(noise, usable, axis) - _shared(dark_noise, usable, axis) for axis in (1, 2)]
    lengths = [n for n in flats.shape[1:] if n > 1]
    correlation = sum(shared) / max(len(lengths), 1) / (variance - read_variance)
    chance = _SURE / math.sqrt(max(len(lengths), 1) * usable.sum() * (len(flats) - 1))
    gain = (variance - read_variance) / level
    return NoiseProfile(
        gain=gain,
        read_noise=math.sqrt(read_variance) / gain,
        flat_electrons=level / gain,
        flat_pattern=float(mean[usable].std()) / level,
        blur_px=_blur_of(correlation) if correlation > chance else 0.0,
    )


def relative_noise(n_columns: int, electrons: float, n_angles: int) -> float:
    """Noise of a slice relative to its attenuation, but for a factor that scans have in common.

    Noise in 1/pixel falls with the root of all photons, and attenuation in 1/pixel with the columns
    over which a sample is spread that lets so much of the beam through.

    Parameters
    ----------
    n_columns : int
    electrons : float
        Of the open beam, a pixel and projection.
    n_angles : int
    """
    return n_columns / math.sqrt(electrons * n_angles)


def detector_mismatch(card: ModelCard, here: NoiseProfile) -> str | None:
    """Say whether a model has learned from another detector than that of a scan.

    Returns
    -------
    str or None
        The text of a warning; None where they are the same, or the card does not say.
    """
    if card.detector is None:
        return None
    found = NoiseProfile.model_validate(card.detector).differences(here)
    if not found:
        return None
    return (
        f"model {card.name!r} was trained on scans of another detector: {', '.join(found)}; expect "
        "worse results, or adapt it: tomogan-bluesky train --finetune"
    )


def split_exposure(
    frames: np.ndarray,
    dark: np.ndarray,
    profile: NoiseProfile,
    share: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Two scans from one: of a share of its photons, and of the rest.

    Each electron goes to one of the two at random, so that their noise is independent: the rest is
    a reference for the share. The scan itself is none, since it contains the same noise. Of a
    detector whose neighbours share noise (`blur_px`), they still share that of neighbours. Read
    noise is added where the share of it is too small. Both are scaled to the exposure of the scan,
    so that its flats fit.

    Parameters
    ----------
    frames : array, shape (row, angle, column)
        As recorded.
    dark : float32 array, shape (row, column)
        Mean dark of these rows.
    profile : NoiseProfile
    share : float
        In (0, 1): the dose of the first, as a fraction of the scan's.
    rng : numpy.random.Generator

    Returns
    -------
    two float32 arrays, shape (row, angle, column)
    """
    offset = dark[:, None]
    electrons = np.rint((frames - offset) / profile.gain).clip(0).astype(np.int64)
    low = rng.binomial(electrons, share)
    parts = []
    for part, fraction in ((low, share), (electrons - low, 1 - share)):
        missing = profile.read_noise * math.sqrt(1 - fraction**2)
        noisy = part + rng.normal(0.0, missing, part.shape) if missing else part
        parts.append((profile.gain * noisy / fraction + offset).astype(np.float32))
    return parts[0], parts[1]


def _shared(noise: np.ndarray, usable: np.ndarray, axis: int) -> float:
    """Mean product of the noise of neighbours along an axis; 0 where there are none."""
    if noise.shape[axis] < 2:
        return 0.0
    one, two = (
        [slice(None), slice(None), slice(None)],
        [slice(None), slice(None), slice(None)],
    )
    one[axis], two[axis] = slice(1, None), slice(None, -1)
    both = usable[tuple(one[1:])] & usable[tuple(two[1:])]
    return float((noise[tuple(one)] * noise[tuple(two)]).mean(0)[both].mean())


def _kernel(sigma_px: float) -> np.ndarray:
    offsets = np.arange(-12, 13)
    kernel = np.exp(-(offsets**2) / (2 * max(sigma_px, 1e-3) ** 2))
    normal: np.ndarray = kernel / kernel.sum()
    return normal


def _blur_of(correlation: float) -> float:
    """The Gaussian blur after which neighbours have that correlation, in pixels."""
    if correlation < _LOWEST_CORRELATION:
        return 0.0
    sigmas = np.linspace(0.1, _WIDEST_BLUR_PX, 300)
    found = [float((k[1:] * k[:-1]).sum() / (k**2).sum()) for k in map(_kernel, sigmas)]
    return float(np.interp(correlation, found, sigmas))
