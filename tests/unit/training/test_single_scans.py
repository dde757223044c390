"""The benchmark of learning from the very scan shows networks the slices that they learn from."""

from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


class Window:
    """A network that returns the sum of the slices that it sees, each by its own power of ten."""

    def __init__(self, depth):
        self.depth = depth

    def __call__(self, x, noise):
        assert x.shape[1] == self.depth
        powers = 10.0 ** torch.arange(self.depth)
        return (x * powers[:, None, None]).sum(1, keepdim=True)


@pytest.mark.parametrize(
    ("depth", "volume", "seen"),
    [
        (1, [0, 0, 0], [1, 2, 3]),
        (3, [0, 1, 2], [111, 222, 333]),  # unrelated slices: the same again
        (3, [0, 0, 0], [212, 321, 232]),  # neighbours, mirrored at the ends
        (3, [0, 0, 1], [212, 121, 333]),
    ],
)
def test_a_network_sees_the_neighbours_of_its_volume(monkeypatch, depth, volume, seen):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import single_scans

    slices = torch.tensor([1.0, 2.0, 3.0])[:, None, None].expand(-1, 16, 16).contiguous()
    denoise = single_scans.denoiser(Window(depth), torch.tensor(volume))
    assert denoise(slices)[:, 3, 5].tolist() == seen
