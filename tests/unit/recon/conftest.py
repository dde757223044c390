"""Objects whose projections are known exactly, and TomoPy's results on some of them."""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from tomogan_bluesky.geometry import ScanGeometry
from tomogan_bluesky.recon.flatfield import attenuation, transmission

DATA = Path(__file__).resolve().parents[2] / "data"


@dataclass
class Blobs:
    """Gaussian blobs (amplitude, sigma, x, y), in pixels from the rotation axis, y downwards."""

    blobs: np.ndarray

    def image(self, n_columns, origin):
        row, column = np.mgrid[:n_columns, :n_columns]
        y, x = row - origin[0], column - origin[1]
        values = sum(
            a * np.exp(-((x - bx) ** 2 + (y - by) ** 2) / (2 * s**2)) for a, s, bx, by in self.blobs
        )
        return torch.from_numpy(values.astype(np.float32))[None]

    def sinogram(self, geometry):
        t = np.arange(geometry.n_columns) - geometry.rotation_centre
        theta = geometry.theta[:, None]
        values = sum(
            a
            * s
            * np.sqrt(2 * np.pi)
            * np.exp(-((t - (bx * np.cos(theta) - by * np.sin(theta))) ** 2) / (2 * s**2))
            for a, s, bx, by in self.blobs
        )
        return torch.from_numpy(values.astype(np.float32))[None]


@pytest.fixture
def make_blobs():
    """Random blobs within a radius, smooth enough to be band-limited."""

    def make(radius, seed=0, n=8):
        rng = np.random.default_rng(seed)
        angle, distance = rng.uniform(0, 2 * np.pi, n), 0.8 * radius * np.sqrt(rng.uniform(0, 1, n))
        sigma, amplitude = rng.uniform(1.5, 0.1 * radius, n), rng.uniform(0.2, 1, n)
        x, y = distance * np.cos(angle), distance * np.sin(angle)
        return Blobs(np.stack((amplitude, sigma, x, y), axis=1))

    return make


@pytest.fixture(scope="session")
def golden():
    """Analytic sinograms of a foam and of Shepp and Logan's phantom, and TomoPy's slices."""
    with np.load(DATA / "tomopy_1.15.2_golden_cut.npz") as file:
        return {key: file[key] for key in file}


@pytest.fixture(scope="session")
def golden_geometry(golden):
    n_columns = golden["sinograms"].shape[2]
    return ScanGeometry(golden["theta"], float(golden["rotation_centre"]), n_columns)


@pytest.fixture(scope="session")
def circle():
    """Mask of the pixels within a part of the inscribed circle."""

    def make(n_columns, part=0.9):
        y, x = np.mgrid[:n_columns, :n_columns] - (n_columns - 1) / 2
        return np.hypot(x, y) < part * n_columns / 2

    return make


@pytest.fixture(scope="session")
def residual():
    """Relative error of an image to a reference after a fitted scale and offset."""

    def compute(image, reference, mask):
        values, wanted = (np.asarray(a)[mask].astype(float) for a in (image, reference))
        design = np.stack((values, np.ones_like(values)), axis=1)
        fit, *_ = np.linalg.lstsq(design, wanted)
        return np.linalg.norm(design @ fit - wanted) / np.linalg.norm(wanted)

    return compute


@pytest.fixture(scope="session")
def relative_error():
    """Norm of the difference by norm of the reference."""

    def compute(values, reference):
        return float((values - reference).norm() / reference.norm())

    return compute


@pytest.fixture
def geometry():
    """Odd numbers, an axis beside the middle, angles in no order."""
    theta = np.random.default_rng(1).permutation(np.arange(61)) * np.pi / 61
    return ScanGeometry(theta, 46.7, 97)


@pytest.fixture
def disc_mean(golden):
    """Mean of a slice within 0.8 radii of the golden disc, whose value is 1."""
    phantom = golden["disc_phantom"].astype(float)
    radius = np.sqrt(phantom.sum() / np.pi)

    def compute(image, origin):
        row, column = np.indices(image.shape)
        distance = np.hypot(row - origin[0], column - origin[1])
        return float(np.asarray(image)[distance < 0.8 * radius].mean())

    return compute


@pytest.fixture(autouse=True)
def one_or_more_threads():
    """Sets torch's number of threads for the length of a test; 1 suits its small arrays best."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def tooth_counts(shared_data):
    """A real scan: projections (row, angle, column), dark, flat (row, column), theta in radians."""
    with h5py.File(shared_data("tooth.h5")) as file:
        exchange = file["exchange"]
        projections = torch.from_numpy(exchange["data"][:]).permute(1, 0, 2)
        dark, flat = (
            torch.from_numpy(exchange[key][:]).mean(0) for key in ("data_dark", "data_white")
        )
        return projections, dark, flat, np.deg2rad(exchange["theta"][:])


@pytest.fixture
def tooth(tooth_counts, shared_data):
    """Attenuation, geometry, and TomoPy's slices, of the real scan."""
    projections, dark, flat, theta = tooth_counts
    corrected, n_clamped = attenuation(transmission(projections, dark, flat), 1e-6)
    assert n_clamped == 0
    with np.load(shared_data("tomopy_1.15.2_tooth_gridrec.npz")) as file:
        return corrected, ScanGeometry(theta, 295.75, 640), file["volume"]
