"""Denoised slices beside what they are compared with, as scores and as a picture."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from ..training.metrics import psnr, ssim

# What people reach for first, over the strengths that make sense; the best one is compared with.
_GAUSSIAN_SIGMAS = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
_MEDIAN_SIZES = (3, 5, 7)


def filtered(volume: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The volume through each classical filter, slice by slice."""
    from scipy import ndimage

    for sigma in _GAUSSIAN_SIGMAS:
        yield f"Gaussian, sigma {sigma:g}", ndimage.gaussian_filter(volume, (0, sigma, sigma))
    for size in _MEDIAN_SIZES:
        yield f"median, {size} x {size}", ndimage.median_filter(volume, (1, size, size))


def mean_score(
    score: Callable[[np.ndarray, np.ndarray], float], volume: np.ndarray, truth: np.ndarray
) -> float:
    """Mean over slices of a score inside the field of view."""
    return float(np.mean([score(s, t) for s, t in zip(volume, truth, strict=True)]))


def scores(
    reconstruction: np.ndarray, denoised: np.ndarray, noise_free: np.ndarray, truth: np.ndarray
) -> dict[str, float]:
    """PSNR in dB and SSIM of each volume against the truth.

    Parameters
    ----------
    reconstruction, denoised, noise_free, truth : float32 arrays, shape (slice, y, x)

    Returns
    -------
    dict
        ``psnr_<what>_db`` and ``ssim_<what>`` for reconstruction, filtered (the best of the
        classical filters by that score, chosen with knowledge of the truth), denoised, noise_free.
    """
    candidates = [volume for _, volume in filtered(reconstruction)]
    found: dict[str, float] = {}
    for name, score in (("psnr_{}_db", psnr), ("ssim_{}", ssim)):
        found[name.format("reconstruction")] = mean_score(score, reconstruction, truth)
        found[name.format("filtered")] = max(mean_score(score, v, truth) for v in candidates)
        found[name.format("denoised")] = mean_score(score, denoised, truth)
        found[name.format("noise_free")] = mean_score(score, noise_free, truth)
    return found


def table(found: Mapping[str, float]) -> str:
    """The scores as lines of text."""
    names = {
        "reconstruction": "reconstruction (low dose)",
        "filtered": "best median or Gaussian filter",
        "denoised": "denoised",
        "noise_free": "reconstruction without noise",
    }
    lines = [f"{'against the phantom':32s} {'PSNR/dB':>8s} {'SSIM':>6s}"]
    lines += [
        f"{label:32s} {found[f'psnr_{key}_db']:8.2f} {found[f'ssim_{key}']:6.3f}"
        for key, label in names.items()
    ]
    return "\n".join(lines)


def draw(
    path: Path,
    truth: np.ndarray,
    reconstruction: np.ndarray,
    denoised: np.ndarray,
    title: str,
    uncertainty: np.ndarray | None = None,
) -> None:
    """Write a picture of one slice: phantom, reconstruction, denoised, denoised less phantom, and
    the uncertainty where it is known.

    Parameters
    ----------
    path : Path
        PNG file.
    truth, reconstruction, denoised : float32 arrays, shape (y, x), 1/pixel
    title : str
    uncertainty : float32 array, shape (y, x), 1/pixel, optional
        Half-width of the interval that nine of ten errors are within. An error of denoising is the
        difference from the reconstruction without noise; that from the phantom is larger.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n = 4 if uncertainty is None else 5
    figure = Figure(figsize=(3.5 * n, 3.9), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, n)
    low, high = float(truth.min()), float(np.quantile(truth, 0.999))
    margin = 0.15 * (high - low)
    panels = (
        ("phantom", truth),
        ("reconstruction, low dose", reconstruction),
        ("denoised", denoised),
    )
    for axis, (name, image) in zip(axes, panels, strict=False):
        shown = axis.imshow(image, cmap="gray", vmin=low - margin, vmax=high + margin)
        axis.set_title(name)
    figure.colorbar(
        shown, ax=list(axes[:3]), label="attenuation (1/pixel)", pad=0.01, shrink=0.78, aspect=25
    )
    rest = denoised - truth
    limit = float(np.quantile(np.abs(rest), 0.995))
    shown = axes[3].imshow(rest, cmap="RdBu_r", vmin=-limit, vmax=limit)
    axes[3].set_title("denoised − phantom")
    figure.colorbar(shown, ax=axes[3], label="1/pixel", pad=0.02, shrink=0.78, aspect=25)
    if uncertainty is not None:
        shown = axes[4].imshow(uncertainty, cmap="magma", vmin=0, vmax=limit)
        axes[4].set_title("uncertainty of the denoising")
        figure.colorbar(shown, ax=axes[4], label="1/pixel", pad=0.02, shrink=0.78, aspect=25)
    _scale_bar(axes[0], truth.shape[1])
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
    figure.suptitle(title)
    figure.savefig(path)


def _scale_bar(axis, width: int) -> None:  # type: ignore[no-untyped-def]  # a matplotlib Axes
    length = max(n for n in (10, 20, 50, 100, 200, 500, 1000) if n <= max(10, width / 4))
    x, y = 0.04 * width, 0.95 * width
    axis.plot([x, x + length], [y, y], color="white", linewidth=3, solid_capstyle="butt")
    axis.text(
        x + length / 2,
        y - 0.015 * width,
        f"{length} pixels",
        color="white",
        ha="center",
        va="bottom",
        fontsize=8,
    )
