"""Shared memory: what was placed is found, groups do not touch each other, all is given back."""

import mmap
import os

import numpy as np
import pytest

from tomogan_bluesky.worker.arena import Arena, view

KIB = 1024


def seen(arena, place):
    """As another process would see it."""
    segment = arena.segment(place.segment)
    return view(mmap.mmap(segment.fd, segment.size, access=mmap.ACCESS_READ), place)


@pytest.fixture
def arena():
    arena = Arena(64 * KIB)
    yield arena
    before = len(os.listdir("/proc/self/fd"))
    arena.close()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_arrays_of_any_layout_are_found_as_they_were(arena):
    rng = np.random.default_rng(0)
    block = rng.integers(0, 60000, (50, 60), dtype=np.uint16)
    arrays = [block, block[::2, ::-3], block.T, block.astype(np.float64), block[:0], block[0, 0]]
    places = [arena.place("one", np.asarray(array)) for array in arrays]
    for array, place in zip(arrays, places, strict=True):
        np.testing.assert_array_equal(seen(arena, place), array)
        assert seen(arena, place).dtype == array.dtype
        assert not seen(arena, place).flags.writeable


def test_groups_have_memory_of_their_own_which_is_used_again(arena):
    first = [arena.place("one", np.full(40 * KIB, n, np.uint8)) for n in range(4)]
    second = arena.place("two", np.full(KIB, 9, np.uint8))
    assert len({place.segment for place in first} | {second.segment}) == 5
    gone = arena.free("one")
    assert len(gone) == 2  # two are kept for later
    again = arena.place("three", np.full(KIB, 7, np.uint8))
    assert again.segment in {place.segment for place in first} - set(gone)
    assert (seen(arena, second) == 9).all()


def test_an_array_larger_than_a_segment_has_one_of_its_own_size(arena):
    place = arena.place("one", np.zeros(100 * KIB, np.uint8))
    assert arena.segment(place.segment).size == 100 * KIB
    assert arena.free("one") == [place.segment]


def test_prepared_memory_is_what_the_next_group_gets(arena):
    arena.prepare()
    arena.prepare()
    place = arena.place("one", np.ones(KIB))
    assert place.segment == 1
