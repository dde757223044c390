import numpy as np
import pytest
import torch
from scipy import ndimage

from tomogan_bluesky.errors import ReconstructionError
from tomogan_bluesky.recon.zingers import remove_zingers


@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize("shape", [(6, 4, 17), (1, 3, 9), (3, 2, 2)])
def test_replaces_what_exceeds_the_median_of_its_frame(size, shape):
    frames = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    medians = ndimage.median_filter(frames, size=(size, 1, size))
    exceeds = frames - medians >= np.float32(0.7)
    cleaned, n_replaced = remove_zingers(torch.from_numpy(frames), 0.7, size)
    np.testing.assert_array_equal(cleaned, np.where(exceeds, medians, frames))
    assert n_replaced == exceeds.sum() > 0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int32, torch.float32])
def test_takes_counts_and_leaves_them_alone(dtype):
    counts = torch.full((5, 3, 7), 100).to(dtype)
    counts[2, 1, 3] = 250
    cleaned, n_replaced = remove_zingers(counts, dif=50)
    assert (cleaned == 100).all()
    assert cleaned.dtype == torch.float32
    assert n_replaced == 1
    assert counts[2, 1, 3] == 250


def test_replaces_nothing_where_nothing_exceeds():
    frames = torch.rand(3, 4, 5)
    cleaned, n_replaced = remove_zingers(frames, dif=1.5)
    assert torch.equal(cleaned, frames)
    assert n_replaced == 0


def test_bits_do_not_depend_on_the_frames_beside_nor_on_slabs_with_margins():
    frames = torch.rand(9, 5, 33)
    together, _ = remove_zingers(frames, 0.4, 5)
    alone = torch.cat([remove_zingers(frames[:, i : i + 1], 0.4, 5)[0] for i in range(5)], dim=1)
    assert torch.equal(alone, together)
    with_margins, _ = remove_zingers(frames[1:8], 0.4, 5)
    assert torch.equal(with_margins[2:-2], together[3:6])


def test_refuses_what_makes_no_sense():
    frames = torch.rand(3, 4, 5)
    for size, dif in ((4, 1.0), (1, 1.0), (3, 0.0), (3, float("nan"))):
        with pytest.raises(ReconstructionError, match="odd size from 3 and a positive difference"):
            remove_zingers(frames, dif, size)
    with pytest.raises(ReconstructionError, match=r"got \(3, 4\)"):
        remove_zingers(frames[..., 0], 1.0)
    frames[1, 2, 3] = torch.inf
    with pytest.raises(ReconstructionError, match="inf at row 1, angle 2, column 3"):
        remove_zingers(frames, 1.0)


def test_real_scan_is_cleaned_as_by_tomopy(shared_data):
    with np.load(shared_data("tomopy_1.15.2_tooth_preprocessing.npz")) as file:
        angle, _, column = file["zinger_indices"].T
        frames = torch.from_numpy(file["transmission"])[None]
        frames[0, angle, column] += 2
        cleaned, n_replaced = remove_zingers(frames, dif=0.5, size=3)
        np.testing.assert_array_equal(cleaned[0], file["outlier_remove_outlier_dif0.5_size3"])
    assert n_replaced == len(angle)
