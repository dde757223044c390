"""When a gan stage counts as collapsed: the thresholds as they are."""

import math

import pytest

from tomogan_bluesky.errors import CollapseError
from tomogan_bluesky.training.collapse import WINDOW, CollapseWatch

CHANCE = math.log(2)


def after(measured):
    """A watch that has seen these pairs of discriminator's loss and spread."""
    watch = CollapseWatch(3.0)
    for step, (loss, spread) in enumerate(measured):
        watch.after_step(step, loss, spread)
    return watch


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        ((0.001, 1.0), "loss fell to 0.001: it tells all slices apart"),
        ((CHANCE, 0.02), "nearly constant: 0.02 of their target's contrast"),
    ],
)
def test_a_window_of_bad_steps_is_a_collapse(measured, message):
    watch = after([measured] * (WINDOW - 1))
    with pytest.raises(CollapseError, match=f"step 7: .*{message}.*lower adversarial_weight"):
        watch.after_step(7, *measured)


@pytest.mark.parametrize("bad", [(0.0, 1.0), (CHANCE, 0.0)])
def test_bad_steps_among_good_ones_are_none(bad):
    after([(CHANCE, 1.0), bad] * WINDOW)


@pytest.mark.parametrize("measured", [(math.nan, 1.0), (CHANCE, math.inf)])
def test_what_is_not_finite_is_one_at_once(measured):
    with pytest.raises(CollapseError, match="step 0: .*not finite"):
        after([measured])


def test_a_validation_may_cost_so_much_and_no_more():
    watch = CollapseWatch(3.0)
    watch.after_validation(5, 3.0)
    for cost in (3.1, math.nan):
        with pytest.raises(CollapseError, match="step 5: .*PSNR fell by"):
            watch.after_validation(5, cost)
