"""The frames of a scan in their order, and the account of every one of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tomogan_bluesky.config import ScanConfig
from tomogan_bluesky.errors import AnglesError, MissingFramesError
from tomogan_bluesky.intake.angles import Angles
from tomogan_bluesky.intake.documents import Frame
from tomogan_bluesky.intake.frame_store import FrameStore
from tomogan_bluesky.intake.scan import FrameAccount

SHAPE = (2, 3)


def frame(kind, number, value=0, time=None, dtype=np.uint16, shape=SHAPE):
    return Frame(
        kind, number, float(number if time is None else time), np.full(shape, value, dtype)
    )


def angles(without=()):
    """A tenth of a radian a point."""
    known = Angles(ScanConfig())
    for n in range(1, 20):
        if n not in without:
            known.at_point(n, 0.0, 0.1 * n)
    return known


def store_of(*frames, references=True):
    store = FrameStore(ScanConfig())
    for kind in ("dark", "flat", "projection"):
        store.expect_shape(kind, SHAPE)
    if references:
        store.add(frame("dark", 1, 1))
        store.add(frame("flat", 1, 9))
    for each in frames:
        store.add(each)
    return store


@given(st.permutations(range(1, 9)))
def test_the_order_of_arrival_changes_nothing(order):
    scan = store_of(*(frame("projection", n, n) for n in order)).scan(angles(), 8)
    assert [int(p[0, 0]) for p in scan.projections] == list(range(1, 9))
    np.testing.assert_allclose(scan.theta, 0.1 * np.arange(1, 9))
    assert scan.account == FrameAccount(expected=8, used=8)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_frames_of_one_point_the_later_recorded_counts(order):
    pair = [frame("projection", 2, 20, time=2.0), frame("projection", 2, 21, time=5.0)]
    scan = store_of(
        frame("projection", 1, 1), *(pair[i] for i in order), frame("projection", 3, 3)
    ).scan(angles(), 3)
    assert [int(p[0, 0]) for p in scan.projections] == [1, 21, 3]
    assert scan.account == FrameAccount(expected=4, used=3, superseded=1)


def test_a_promised_frame_that_never_came_is_missing():
    scan = store_of(frame("projection", 1), frame("projection", 3)).scan(angles(), 5)
    assert scan.account == FrameAccount(expected=5, used=2, missing=3)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (frame("projection", 2, shape=(2, 4)), "expected frames of 2 x 3 pixels, got 2 x 4"),
        (frame("projection", 2, np.nan, dtype=np.float32), "finite pixels"),
        (frame("projection", 2, "x", dtype="<U1"), "numbers as pixels"),
    ],
)
def test_a_frame_that_cannot_be_used_is_rejected_with_a_reason(bad, why):
    scan = store_of(frame("projection", 1), bad, frame("projection", 3)).scan(angles(), 3)
    assert scan.account.used == 2
    assert scan.account.missing == 0
    ((reason, number),) = scan.account.rejected.items()
    assert why in reason
    assert number == 1


def test_a_rejected_frame_that_is_taken_again_is_used():
    scan = store_of(
        frame("projection", 1), frame("projection", 1, 5, time=9.0), frame("projection", 2)
    ).scan(angles(), 2)
    assert scan.account == FrameAccount(expected=3, used=2, superseded=1)


def test_a_good_frame_is_not_replaced_by_an_earlier_bad_one():
    good, bad = frame("projection", 1, 5, time=9.0), frame("projection", 1, shape=(9, 9))
    scan = store_of(good, bad).scan(angles(), 1)
    assert scan.account == FrameAccount(expected=2, used=1, superseded=1)
    assert int(scan.projections[0][0, 0]) == 5


def test_a_frame_without_an_angle_is_rejected():
    scan = store_of(*(frame("projection", n, n) for n in (1, 2, 3))).scan(angles(without=[2]), 3)
    assert [int(p[0, 0]) for p in scan.projections] == [1, 3]
    np.testing.assert_allclose(scan.theta, [0.1, 0.3])
    assert scan.account.rejected == {"expected a finite angle, got none": 1}


def test_no_angle_at_all_is_an_error_that_names_the_settings():
    with pytest.raises(AnglesError, match="scan.angle_key.*scan.angle_stream.*scan.start_angles"):
        store_of(frame("projection", 1)).scan(Angles(ScanConfig()), 1)


def test_flats_drift_linearly_between_the_times_at_which_they_were_taken():
    store = FrameStore(ScanConfig(flat_drift="linear"))
    store.expect_shape("projection", SHAPE)
    store.add(frame("dark", 1, 0, time=0.0))
    for n, (time, value) in enumerate(((1.0, 100), (3.0, 102), (21.0, 200), (23.0, 202)), 1):
        store.add(frame("flat", n, value, time=time))
    for n in range(1, 12):
        store.add(frame("projection", n, time=6.0 + n))
    scan = store.scan(angles(), 11)
    np.testing.assert_allclose(scan.references.flats[:, 0, 0], [101, 201])
    np.testing.assert_allclose(scan.references.flat_times, [2.0, 22.0])
    weights = scan.references.weights_at(scan.times)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(weights[:, 1], (np.arange(7.0, 18.0) - 2) / 20, rtol=1e-6)


def test_frames_that_are_transmissions_need_no_references():
    store = FrameStore(ScanConfig(flat="none"))
    store.expect_shape("projection", SHAPE)
    store.add(frame("projection", 1, 0.5, dtype=np.float32))
    references = store.scan(angles(), 1).references
    assert not references.dark.any()
    assert (references.flats == 1).all()


def test_references_are_means():
    store = store_of(frame("projection", 1), references=False)
    for n, value in enumerate((1, 2, 6), 1):
        store.add(frame("dark", n, value))
        store.add(frame("flat", n, 60000 + value))
    scan = store.scan(angles(), 1)
    references = scan.references
    np.testing.assert_array_equal(references.dark, np.full(SHAPE, 3, np.float32))
    np.testing.assert_array_equal(references.flats, np.full((1, *SHAPE), 60003, np.float32))


@pytest.mark.parametrize("kind", ["projection", "dark", "flat"])
def test_a_kind_without_frames_is_named_with_its_remedy(kind):
    frames = [frame(k, 1) for k in ("projection", "dark", "flat") if k != kind]
    with pytest.raises(MissingFramesError, match=rf"one {kind} frame, got none; .*scan\.{kind}_st"):
        store_of(*frames, references=False).scan(angles(), None)


def test_all_frames_rejected_says_why():
    with pytest.raises(MissingFramesError, match="2 rejected: expected frames of 2 x 3"):
        store_of(*(frame("projection", n, shape=(1, 1)) for n in (1, 2))).scan(angles(), 2)


def test_an_account_that_does_not_add_up_is_impossible():
    with pytest.raises(AssertionError, match="unaccounted"):
        FrameAccount(expected=3, used=1)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 7)), max_size=6))
def test_slabs_are_rows_of_the_scan(parts):
    rows = 7
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 99, (rows, 3)) for _ in range(4)]
    store = FrameStore(ScanConfig())
    store.expect_shape("projection", (rows, 3))
    for n, pixels in enumerate(frames, 1):
        store.add(Frame("projection", n, n, pixels))
    for kind in ("dark", "flat"):
        store.add(Frame(kind, 1, 1.0, frames[0]))
    cuts = sorted((first, min(first + n, rows)) for first, n in parts)
    slabs = list(store.scan(angles(), 4).slabs(cuts))
    whole = np.stack(frames, axis=1)
    for slab, (start, stop) in zip(slabs, cuts, strict=True):
        np.testing.assert_array_equal(slab, whole[start:stop])
