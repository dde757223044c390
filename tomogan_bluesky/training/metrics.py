"""Image quality: how near a slice is to a reference, inside the field of view.

Enters: a slice and its reference, arrays (y, x). Leaves: one number. All metrics look at the
circle that holds the sample (`field_of_view`): outside it a reconstruction means nothing, and the
air around a sample would flatter every method.
"""

import math

import numpy as np

from ..errors import ConfigurationError

FIELD_OF_VIEW = 0.9  # of half the image's width
_WINDOW = 7  # pixels, of the structural similarity
_CORRELATED = 0.5
_EDGE_SHARE = 0.1  # the strongest tenth of the reference's gradients are its edges


def field_of_view(size: int) -> np.ndarray:
    """Pixels of the centred circle of radius 0.9 of half the width: bool (size, size)."""
    axis = (np.arange(size) - (size - 1) / 2) * 2 / size
    return axis[:, None] ** 2 + axis**2 <= FIELD_OF_VIEW**2


def psnr(image: np.ndarray, reference: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB; the peak is the reference's range. Equal images: inf."""
    inside = _inside(image, reference)
    error = image[inside].astype(np.float64) - reference[inside]
    mean_square = float(np.mean(error**2))
    if mean_square == 0:
        return math.inf
    return 10 * math.log10(_range(reference, inside) ** 2 / mean_square)


def ssim(image: np.ndarray, reference: np.ndarray) -> float:
    """Structural similarity (Wang et al., IEEE Trans. Image Process. 13, 600, 2004).

    With 7 x 7 windows, sample covariances and K = (0.01, 0.03), as scikit-image has it.
    """
    inside = _inside(image, reference)
    x, y = (np.asarray(a, np.float64) for a in (image, reference))
    small_1, small_2 = ((k * _range(reference, inside)) ** 2 for k in (0.01, 0.03))
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    sample = _WINDOW**2 / (_WINDOW**2 - 1)
    variance_x, variance_y, covariance = (
        sample * (_window_mean(a * b) - _window_mean(a) * _window_mean(b))
        for a, b in ((x, x), (y, y), (x, y))
    )
    luminance = (2 * mean_x * mean_y + small_1) / (mean_x**2 + mean_y**2 + small_1)
    structure = (2 * covariance + small_2) / (variance_x + variance_y + small_2)
    return float((luminance * structure)[inside].mean())


def _window_mean(image: np.ndarray) -> np.ndarray:
    """Mean over the window around each pixel, borders mirrored."""
    for axis in (0, 1):
        image = np.moveaxis(image, axis, 0)
        half = _WINDOW // 2
        padded = np.pad(image, [(half, half), (0, 0)], mode="symmetric")
        shifted = (padded[i : i + len(image)] for i in range(_WINDOW))
        image = np.moveaxis(sum(shifted, np.zeros_like(image)) / _WINDOW, 0, axis)
    return image


def edge_fidelity(image: np.ndarray, reference: np.ndarray) -> float:
    """1 minus the relative error of the Sobel magnitude over the reference's edges.

    Edges are the pixels whose magnitude in the reference is in the top tenth. Noisy images score
    high too: read it beside the score of the noisy image, and beside `edge_f1`.
    """
    inside = _inside(image, reference)
    there, wanted = (sobel_magnitude(a)[inside] for a in (image, reference))
    edges = wanted > np.quantile(wanted, 1 - _EDGE_SHARE)
    return float(1 - np.abs(there - wanted)[edges].sum() / wanted[edges].sum())


def edge_f1(image: np.ndarray, reference: np.ndarray) -> float:
    """F1 score of the image's edge map: the pixels above the reference's threshold for edges."""
    inside = _inside(image, reference)
    there, wanted = (sobel_magnitude(a)[inside] for a in (image, reference))
    threshold = np.quantile(wanted, 1 - _EDGE_SHARE)
    found, edges = there > threshold, wanted > threshold
    return float(2 * (found & edges).sum() / (found.sum() + edges.sum()))


def fourier_ring_correlation(
    image: np.ndarray, reference: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Correlation of two slices by spatial frequency.

    Van Heel, Ultramicroscopy 21, 95 (1987), of what is inside a circle with a soft border. Rings
    are one frequency of the image wide. Against a reference without noise it says how faithful each
    frequency is; two images that one network made agree in what the network makes up, too.

    Returns
    -------
    frequency : array, shape (ring,)
        In cycles a pixel, up to 0.5.
    correlation : array, shape (ring,)
        In [-1, 1].
    """
    inside = _inside(image, reference)
    size = len(inside)
    axis = (np.arange(size) - (size - 1) / 2) * 2 / size
    radius = np.hypot(axis[:, None], axis) / FIELD_OF_VIEW
    window = np.where(radius < 1, np.cos(np.pi / 2 * np.clip(radius * 5 - 4, 0, 1)) ** 2, 0)
    one, two = (
        np.fft.rfft2(window * (a - np.average(a, weights=window)))
        for a in (np.asarray(image, np.float64), np.asarray(reference, np.float64))
    )
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    ring = np.rint(frequency * size).astype(int)
    n_rings = size // 2 + 1

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(ring.ravel(), values.ravel(), ring.max() + 1)[1:n_rings]

    power = total(np.abs(one) ** 2) * total(np.abs(two) ** 2)
    correlation = total((one * two.conj()).real) / np.sqrt(np.maximum(power, 1e-300))
    return np.arange(1, n_rings) / size, correlation


def frc_frequency(image: np.ndarray, reference: np.ndarray) -> float:
    """Frequency, in cycles a pixel, up to which the Fourier ring correlation is at least 1/2."""
    frequency, correlation = fourier_ring_correlation(image, reference)
    below = np.flatnonzero(correlation < _CORRELATED)
    return float(frequency[below[0]] if len(below) else frequency[-1])


def sobel_magnitude(image: np.ndarray) -> np.ndarray:
    """Magnitude of the Sobel gradient, borders replicated: float64 (y, x)."""
    padded = np.pad(np.asarray(image, np.float64), 1, mode="edge")
    smooth_y = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    smooth_x = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    return np.hypot(smooth_x[2:] - smooth_x[:-2], smooth_y[:, 2:] - smooth_y[:, :-2])


def _inside(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    shape = np.shape(reference)
    if len(shape) != 2 or shape[0] != shape[1] or np.shape(image) != shape:
        raise ConfigurationError(
            f"expected two square slices of one size, got {np.shape(image)} and {shape}"
        )
    inside = field_of_view(shape[0])
    if _range(reference, inside) == 0:
        raise ConfigurationError("the reference is constant: there is nothing to compare with")
    return inside


def _range(reference: np.ndarray, inside: np.ndarray) -> float:
    return float(np.ptp(reference[inside]))
