"""What people denoise slices with, without a network: competitors for `denoising.py`.

Enters: the slices of a pinned set at one dose. Leaves: denoised ones. Where a method has a
strength to choose, each slice gets the one that is best for it, chosen with knowledge of the truth:
no method is beaten by a bad setting. Results are kept on disk, by their input, since BM3D takes
minutes.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from scipy import ndimage

from tomogan_bluesky.training.goals import BM3D_ESTIMATED, BM3D_ORACLE, BM3D_SPECTRUM
from tomogan_bluesky.training.metrics import field_of_view, psnr

GAUSSIAN = "Gaussian, best sigma"
MEDIAN = "median, best size"
NLM = "NLM, best strength"
TV = "TV, best weight"

Method = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Takes a slice, the truth, and the noise of all slices of its kind."""


def true_sigma(image: np.ndarray, clean: np.ndarray) -> float:
    """Standard deviation of the noise inside the field of view."""
    return float((image - clean)[field_of_view(len(image))].std())


def _best(clean: np.ndarray, candidates: Iterator[np.ndarray]) -> np.ndarray:
    return max(candidates, key=lambda image: psnr(image, clean))


def gaussian(image: np.ndarray, clean: np.ndarray, _: np.ndarray) -> np.ndarray:
    """Gaussian filter."""
    sigmas = (0.4, 0.5, 0.6, 0.75, 1.0, 1.25, 1.5, 2.0)
    return _best(clean, (ndimage.gaussian_filter(image, s) for s in sigmas))


def median(image: np.ndarray, clean: np.ndarray, _: np.ndarray) -> np.ndarray:
    """Median filter."""
    return _best(clean, (ndimage.median_filter(image, n) for n in (3, 5, 7)))


def nlm(image: np.ndarray, clean: np.ndarray, _: np.ndarray) -> np.ndarray:
    """Non-local means, told the true noise."""
    from skimage.restoration import denoise_nl_means

    sigma = true_sigma(image, clean)

    def candidates() -> Iterator[np.ndarray]:
        for h in (0.4, 0.6, 0.8, 1.0):
            yield denoise_nl_means(image, 5, 7, h=h * sigma, sigma=sigma, fast_mode=True)

    return _best(clean, candidates())


def tv(image: np.ndarray, clean: np.ndarray, _: np.ndarray) -> np.ndarray:
    """Total variation after Chambolle."""
    from skimage.restoration import denoise_tv_chambolle

    sigma = true_sigma(image, clean)
    weights = (0.5, 1.0, 1.5, 2.5)
    return _best(clean, (denoise_tv_chambolle(image, w * sigma) for w in weights))


def bm3d_estimated(image: np.ndarray, _: np.ndarray, __: np.ndarray) -> np.ndarray:
    """BM3D for white noise, of the deviation that scikit-image's `estimate_sigma` finds."""
    from skimage.restoration import estimate_sigma

    return _bm3d(image, float(estimate_sigma(image)))


def bm3d_oracle(image: np.ndarray, clean: np.ndarray, _: np.ndarray) -> np.ndarray:
    """BM3D for white noise, of the true deviation."""
    return _bm3d(image, true_sigma(image, clean))


def bm3d_spectrum(image: np.ndarray, clean: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """BM3D for coloured noise, of the true spectrum: of the noise of all slices of its kind,
    smoothed, with the true deviation."""
    size = len(image)
    power = np.mean(np.abs(np.fft.fft2(noise)) ** 2, axis=0)
    power = ndimage.gaussian_filter(power, 0.7 * size / 256, mode="wrap")
    power *= true_sigma(image, clean) ** 2 * size**2 / power.mean()
    return _bm3d(image, power)


def _bm3d(image: np.ndarray, sigma_or_spectrum: float | np.ndarray) -> np.ndarray:
    """BM3D, which expects images between 0 and 1."""
    if not hasattr(np, "trapz"):
        setattr(np, "trapz", np.trapezoid)  # noqa: B010  # bm3d 4.0.3 asks numpy 2.4 for its old name
    from bm3d import bm3d

    low, span = float(image.min()), float(np.ptp(image))
    scale = span if np.isscalar(sigma_or_spectrum) else span**2
    return bm3d((image - low) / span, sigma_or_spectrum / scale) * span + low


METHODS: Mapping[str, tuple[Method, str]] = {
    GAUSSIAN: (gaussian, "scipy"),
    MEDIAN: (median, "scipy"),
    NLM: (nlm, "skimage"),
    TV: (tv, "skimage"),
    BM3D_ESTIMATED: (bm3d_estimated, "bm3d"),
    BM3D_ORACLE: (bm3d_oracle, "bm3d"),
    BM3D_SPECTRUM: (bm3d_spectrum, "bm3d"),
}
"""Each method with the package that it needs."""


def run(
    name: str,
    images: np.ndarray,
    clean: np.ndarray,
    families: tuple[str, ...],
    cache: Path | None,
) -> tuple[np.ndarray, float]:
    """Denoise the slices of a set.

    Returns
    -------
    denoised : float32 array, shape (slice, y, x)
    ms_a_slice : float
        Wall time, all strengths of a method counted; of when it was computed.
    """
    method, _ = METHODS[name]
    denoised, seconds = np.empty_like(images), []
    for i, family in enumerate(families):
        same = np.array([f == family for f in families])
        noise = (images - clean)[same]
        path = None
        if cache is not None:
            key = hashlib.sha256(name.encode() + images[i].tobytes() + clean[i].tobytes())
            if name == BM3D_SPECTRUM:
                key.update(noise.tobytes())
            path = cache / f"classical-{key.hexdigest()[:24]}.npz"
            if path.exists():
                with np.load(path) as stored:
                    denoised[i] = stored["image"]
                    seconds.append(float(stored["seconds"]))
                continue
        start = time.perf_counter()
        denoised[i] = method(images[i], clean[i], noise)
        seconds.append(time.perf_counter() - start)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial.npz")
            np.savez(partial, image=denoised[i], seconds=seconds[-1])
            partial.replace(path)
    return denoised, 1000 * float(np.mean(seconds))
