import warnings

import numpy as np
import pytest
import torch
from scipy import ndimage

from tomogan_bluesky.errors import ReconstructionError
from tomogan_bluesky.recon.median import moving_median, reflected
from tomogan_bluesky.recon.stripes import remove_all_stripes, remove_stripes_by_sorting
from tomogan_bluesky.recon.wavelets import remove_stripes_by_wavelets, wavelet_filters

METHODS = [remove_stripes_by_sorting, remove_stripes_by_wavelets, remove_all_stripes]


@pytest.fixture(scope="module")
def tomopy():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TomoPy warns of optional libraries when imported
        return pytest.importorskip("tomopy", reason="TomoPy is not importable")


@pytest.fixture
def reference(shared_data):
    with np.load(shared_data("tomopy_1.15.2_tooth_preprocessing.npz")) as file:
        return {key: file[key] for key in file}


@pytest.fixture
def striped(reference):
    return torch.from_numpy(reference["attenuation"] + reference["stripe_profile"])[None]


@pytest.fixture
def blurred():
    """A smooth sinogram of little noise, and the same with two stripes."""
    t = np.arange(200) - 100
    theta = np.linspace(0, np.pi, 180)[:, None]
    clean = 1 + sum(
        np.exp(-((t - r * np.cos(theta + p)) ** 2) / (2 * w**2))
        for r, p, w in ((40, 0.3, 20), (60, 2.0, 10), (10, 4.0, 40))
    )
    clean = (clean + 0.01 * np.random.default_rng(0).normal(size=clean.shape)).astype(np.float32)
    stripes = np.zeros(200, np.float32)
    stripes[[90, 120, 121]] = 0.3, -0.2, -0.2
    return torch.from_numpy(clean)[None], torch.from_numpy(clean + stripes)[None]


@pytest.mark.parametrize("size", [1, 2, 5, 8, 21])
@pytest.mark.parametrize("shape", [(50, 7), (3, 2000), (1, 4)])
def test_moving_median_is_scipys(size, shape):
    values = np.random.default_rng(0).integers(0, 9, shape).astype(np.float32)  # with ties
    wanted = ndimage.median_filter(values, size=(size, 1))
    np.testing.assert_array_equal(moving_median(torch.from_numpy(values), size), wanted)


def test_reflection_goes_on_beyond_the_other_edge():
    assert reflected(3, 4, 5).tolist() == [2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0, 1]


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        (remove_stripes_by_sorting, {}),
        (remove_stripes_by_wavelets, {"level": 3}),
        (remove_all_stripes, {"la_size": 15, "sm_size": 5}),
    ],
)
def test_takes_stripes_out_and_leaves_the_sample(method, settings, blurred):
    clean, dirty = blurred
    before = (dirty - clean).norm()
    assert (method(dirty, **settings) - clean).norm() < 0.5 * before
    assert (method(clean, **settings) - clean).norm() < 0.35 * before


@pytest.mark.parametrize("size", [None, 4, 9])
def test_sorting_corrects_each_rank_by_the_columns_around(size):
    sinogram = np.random.default_rng(0).normal(size=(40, 70)).astype(np.float32)
    order = sinogram.argsort(0)
    ranked = np.take_along_axis(sinogram, order, 0)
    wanted = np.empty_like(sinogram)
    smooth = ndimage.median_filter(ranked, size=(1, size or 5))
    np.put_along_axis(wanted, order, smooth, 0)
    got = remove_stripes_by_sorting(torch.from_numpy(sinogram)[None], size)
    np.testing.assert_array_equal(got[0], wanted)


def test_sorting_is_tomopys_but_for_equal_counts(striped, reference):
    """Equal values of a column, of which counts have many, have no order of their own."""
    got = remove_stripes_by_sorting(striped)[0].numpy()
    wanted = reference["stripe_remove_stripe_based_sorting"]
    np.testing.assert_array_equal(np.sort(got, 0), np.sort(wanted, 0))
    assert np.linalg.norm(got - wanted) < 5e-4 * np.linalg.norm(wanted)


def test_all_is_tomopys_but_for_equal_counts(striped, reference):
    got = remove_all_stripes(striped)[0].numpy()
    wanted = reference["stripe_remove_all_stripe"]
    np.testing.assert_allclose(np.sort(got, 0), np.sort(wanted, 0), atol=1e-5)
    assert np.linalg.norm(got - wanted) < 5e-4 * np.linalg.norm(wanted)


@pytest.mark.parametrize("la_size", [31, 12])
def test_all_is_tomopys_where_no_values_are_equal(la_size, blurred, tomopy):
    """Dead columns inside and at both edges, of which those at the edges stay."""
    sinogram = blurred[1].clone()
    dead = [0, 50, 51, 130, 199]
    sinogram[0, :, dead] = torch.rand(180, 5, generator=torch.Generator().manual_seed(0)) * 3
    got = remove_all_stripes(sinogram, la_size=la_size, sm_size=5)
    theirs = sinogram.permute(1, 0, 2).numpy().copy()
    wanted = tomopy.remove_all_stripe(theirs, la_size=la_size, sm_size=5, ncore=1)
    np.testing.assert_allclose(got[0], wanted[:, 0], atol=1e-5)


def test_wavelets_are_tomopys(striped, reference):
    got = remove_stripes_by_wavelets(striped)[0].numpy()
    np.testing.assert_allclose(got, reference["stripe_remove_stripe_fw"], atol=5e-6)


def test_a_dead_column_is_interpolated():
    theta = np.linspace(0, np.pi, 180)[:, None]
    smooth = 2 + np.cos(theta + np.arange(120) / 400)
    noisy = (smooth + 0.01 * np.random.default_rng(0).normal(size=smooth.shape)).astype(np.float32)
    noisy[:, 60] = np.random.default_rng(1).uniform(0, 4, 180)
    cleaned = remove_all_stripes(torch.from_numpy(noisy)[None], la_size=31, sm_size=5)[0].numpy()
    assert np.abs(cleaned - smooth)[:, 55:66].max() < 0.1


@pytest.mark.parametrize("order", [1, 2, 5, 12, 20])
def test_wavelets_are_orthogonal_and_have_vanishing_moments(order):
    low, high = (np.array(f) for f in wavelet_filters(f"db{order}"))
    for shift in range(order):
        wanted = float(shift == 0)
        n = 2 * order - 2 * shift
        assert low[2 * shift :] @ low[:n] == pytest.approx(wanted, abs=1e-8)
        assert high[2 * shift :] @ low[:n] == pytest.approx(0, abs=1e-8)
    assert low.sum() == pytest.approx(np.sqrt(2))
    for power in range(min(order, 4)):
        assert high @ np.arange(2.0 * order) ** power == pytest.approx(0, abs=1e-5)


def test_haar_and_the_published_db2():
    assert wavelet_filters("haar")[0] == pytest.approx([2**-0.5] * 2)
    root = np.sqrt(3)
    published = np.array([1 + root, 3 + root, 3 - root, 1 - root]) / (4 * np.sqrt(2))
    assert wavelet_filters("db2")[0] == pytest.approx(published)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n_threads", [1, 2])
def test_bits_do_not_depend_on_the_rows_beside(method, n_threads, one_or_more_threads):
    one_or_more_threads(n_threads)
    sinograms = torch.rand(5, 61, 97)
    sinograms[3, :, 40:43] += 0.4
    before = sinograms.clone()
    together = method(sinograms)
    assert torch.equal(sinograms, before)
    for row in range(5):
        assert torch.equal(method(sinograms[row : row + 1])[0], together[row])
    assert method(sinograms[:0]).shape == (0, 61, 97)


@pytest.mark.parametrize("shape", [(1, 1, 9), (1, 2, 8), (2, 9, 300), (1, 300, 9)])
@pytest.mark.parametrize("method", METHODS)
def test_any_shape_comes_back_finite(method, shape):
    assert method(torch.rand(shape)).isfinite().all()
    assert method(torch.zeros(shape)).isfinite().all()


@pytest.mark.parametrize("method", METHODS)
def test_refuses_other_values(method):
    with pytest.raises(ReconstructionError, match=r"\(row, angle, column\), got \(9, 20\)"):
        method(torch.zeros(9, 20))
    with pytest.raises(ReconstructionError, match="expected float32"):
        method(torch.zeros(1, 9, 20).double())
    broken = torch.zeros(2, 9, 20)
    broken[1, 4, 7] = torch.nan
    with pytest.raises(ReconstructionError, match="nan at row 1, angle 4, column 7"):
        method(broken)


def test_refuses_settings_that_make_no_sense():
    sinograms = torch.rand(1, 9, 20)
    with pytest.raises(ReconstructionError, match="size from 1, got 0"):
        remove_stripes_by_sorting(sinograms, size=0)
    with pytest.raises(ReconstructionError, match="la_size from 1, got -3"):
        remove_all_stripes(sinograms, la_size=-3)
    with pytest.raises(ReconstructionError, match="snr=0"):
        remove_all_stripes(sinograms, snr=0)
    with pytest.raises(ReconstructionError, match="at least 8 columns.*and 7 columns"):
        remove_all_stripes(sinograms[..., :7])
    for wname in ("sym5", "db0", "db21", "db"):
        with pytest.raises(ReconstructionError, match=f"'db1' to 'db20', got '{wname}'"):
            remove_stripes_by_wavelets(sinograms, wname=wname)
    for level, sigma in ((0, 2.0), (3, 0.0)):
        with pytest.raises(ReconstructionError, match="a level from 1 and a positive sigma"):
            remove_stripes_by_wavelets(sinograms, level=level, sigma=sigma)
