"""Memory for slices: whole, aligned, and the same again as scratch."""

import numpy as np
import pytest
import torch

from tomogan_bluesky.geometry import ScanGeometry
from tomogan_bluesky.recon.inverse import InverseTransform, half_bytes
from tomogan_bluesky.recon.kernel import FourierGrid
from tomogan_bluesky.recon.memory import Scratch, empty

CPU = torch.device("cpu")


@pytest.mark.parametrize("shape", [(1,), (3, 5, 7), (2, 1024, 1024)])
def test_memory_is_as_long_as_asked_and_begins_at_a_cache_line(shape):
    memory = empty(shape, CPU)
    assert memory.dtype == torch.float32
    assert memory.shape == shape
    assert memory.is_contiguous()
    assert memory.data_ptr() % 64 == 0
    memory.fill_(1)
    assert memory.sum(dtype=torch.float64) == memory.numel()


def test_scratch_is_the_same_memory_until_more_is_needed():
    scratch = Scratch(CPU)
    first = scratch(4, 6)
    assert scratch(3, 8).data_ptr() == scratch(5).data_ptr() == first.data_ptr()
    more = scratch(5, 6)
    assert more.shape == (5, 6)
    assert scratch(4, 6).data_ptr() == more.data_ptr()


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("oversampling", [1.25, 1.5, 2.0])
@pytest.mark.parametrize("n_columns", [31, 96, 257, 600, 601, 1000, 1024, 2048])
def test_what_is_told_of_half_transformed_slices_is_what_they_take(
    n_columns, oversampling, transposed
):
    """Lines are padded, by 3 % where there are many of them: that is counted, too."""
    geometry = ScanGeometry(np.array([0.0, 1.0]), n_columns / 2, n_columns)
    grid = FourierGrid(geometry, oversampling, transposed=transposed)
    half = InverseTransform(grid, CPU, 8).half(2)
    assert half_bytes(2, n_columns, grid.size) == half.untyped_storage().nbytes()
