import pytest
import torch
from generators import CARD, export_deep
from hypothesis import given, settings
from hypothesis import strategies as st

from tomogan_bluesky.denoise.denoiser import TorchScriptDenoiser
from tomogan_bluesky.denoise.windows import WindowedDenoiser, window_indices


class Recorder:
    """Says which slices each window held: a slice's value is its number."""

    sha256 = "0" * 64

    def __init__(self, depth):
        self.card = CARD.model_copy(update={"depth": depth})
        self.seen = []

    def __call__(self, slices, context=(0, 0)):
        n, depth = len(slices), self.card.depth
        numbers = slices[:, 0, 0].tolist()
        middle = range(context[0], n - context[1])
        self.seen += [[numbers[k] for k in window_indices(i, n, depth)] for i in middle]
        return slices[context[0] : n - context[1]].clone()


def numbered(n):
    return torch.arange(float(n)).view(n, 1, 1).expand(n, 4, 4)


@pytest.mark.parametrize(
    ("i", "n", "depth", "expected"),
    [
        (0, 9, 3, [1, 0, 1]),
        (8, 9, 5, [6, 7, 8, 7, 6]),
        (4, 9, 1, [4]),
        (0, 1, 3, [0, 0, 0]),
        (0, 2, 7, [1, 0, 1, 0, 1, 0, 1]),
    ],
)
def test_windows_are_mirrored_at_the_ends(i, n, depth, expected):
    assert window_indices(i, n, depth) == expected


@settings(max_examples=200, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 9), min_size=1, max_size=8), depth=st.sampled_from([1, 3, 5, 7])
)
def test_any_slabs_give_the_windows_of_the_whole_volume(cuts, depth):
    """And a slab leaves as soon as what it needs is there, not later."""
    volume, denoiser = numbered(sum(cuts)), Recorder(depth)
    windows, out, there, done = WindowedDenoiser(denoiser), [], 0, 0
    for slab in volume.split(cuts):
        windows.add(slab)
        there += len(slab)
        while windows.ready:
            out.append(windows.take()["denoised"])
            done += len(out[-1])
            assert done + depth // 2 <= there
        assert len(out) == len(cuts) or done + cuts[len(out)] + depth // 2 > there
    windows.end()
    while windows.ready:
        out.append(windows.take()["denoised"])
    assert [len(slab) for slab in out] == cuts
    assert torch.equal(torch.cat(out), volume)
    expected = [window_indices(i, len(volume), depth) for i in range(len(volume))]
    assert denoiser.seen == expected


def test_a_gap_is_an_end_on_both_sides():
    denoiser = Recorder(3)
    windows, volume = WindowedDenoiser(denoiser), numbered(6)
    windows.add(volume[:3])
    assert not windows.ready
    windows.end()
    assert len(windows.take()["denoised"]) == 3
    assert not windows.ready
    windows.add(volume[4:])
    windows.end()
    assert len(windows.take()["denoised"]) == 2
    assert denoiser.seen == [[1, 0, 1], [0, 1, 2], [1, 2, 1], [5, 4, 5], [4, 5, 4]]


def test_slices_are_not_kept_longer_than_they_are_needed():
    windows = WindowedDenoiser(Recorder(5))
    for slab in numbered(40).split(4):
        windows.add(slab)
        while windows.ready:
            windows.take()
    assert sum(s is not None for s in windows._stretch.slices) <= 4 + 2 + 2


def test_a_slab_that_fails_is_gone_and_the_next_one_is_denoised():
    class Once(Recorder):
        def __call__(self, slices, context=(0, 0)):
            result = super().__call__(slices, context)
            if 2.0 in result[:, 0, 0]:
                raise ValueError
            return result

    windows = WindowedDenoiser(Once(3))
    for slab in numbered(6).split(2):
        windows.add(slab)
    windows.end()
    windows.take()
    with pytest.raises(ValueError):
        windows.take()
    assert windows.take()["denoised"][:, 0, 0].tolist() == [4, 5]


@pytest.mark.parametrize("network", ["unet4", "unet3d"])
def test_a_deep_model_gives_the_same_bits_for_any_slabs(network, tmp_path):
    denoiser = TorchScriptDenoiser(export_deep(tmp_path / "deep.ts", network, depth=5))
    generator = torch.Generator().manual_seed(4)
    volume = 0.01 + 1e-3 * torch.randn(7, 20, 20, generator=generator)
    whole = denoiser(volume)
    assert whole.shape == volume.shape
    for cuts in ([1] * 7, [3, 4], [2, 2, 2, 1]):
        windows, out = WindowedDenoiser(denoiser), []
        for slab in volume.split(cuts):
            windows.add(slab)
        windows.end()
        while windows.ready:
            out.append(windows.take()["denoised"])
        assert torch.equal(torch.cat(out), whole)
    other = volume.clone()
    other[6] += 1.0
    assert torch.equal(denoiser(other)[:4], whole[:4])
    assert not torch.equal(denoiser(other)[4], whole[4])
