from unittest.mock import Mock

import pytest
import torch

from tomogan_bluesky.config import LiveConfig
from tomogan_bluesky.run.previews import Previews, PreviewSchedule


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def work(schedule, clock, seconds):
    with schedule.work():
        clock.now += seconds


def preview(schedule, clock, n_arrived, seconds):
    with schedule.preview(n_arrived):
        clock.now += seconds


def test_every_so_many_projections_or_seconds(clock):
    schedule = PreviewSchedule(LiveConfig(preview_every=5, preview_every_s=60.0), clock)
    assert [n for n in range(9) if schedule.due(n)] == [5, 6, 7, 8]
    preview(schedule, clock, 5, 0.0)
    assert [n for n in range(5, 12) if schedule.due(n)] == [10, 11]
    clock.now = 61.0
    assert [n for n in range(5, 9) if schedule.due(n)] == [6, 7, 8], "and there is something new"


def test_never_where_neither_decides(clock):
    config = LiveConfig(preview_every=None, preview_every_s=None)
    schedule = PreviewSchedule(config, clock)
    clock.now = 1e9
    assert not schedule.due(1000)
    assert not config.previews


def test_previews_are_left_out_when_the_work_does_not_keep_up(clock):
    schedule = PreviewSchedule(LiveConfig(preview_every=1, preview_every_s=None), clock)
    work(schedule, clock, 1.0)
    assert schedule.due(2), "what a preview costs is not known before the first"
    with schedule.work():
        preview(schedule, clock, 2, 3.0)
    for n in range(3, 10):  # documents that wait already leave no time
        work(schedule, clock, 1.0)
        assert not schedule.due(n)
    clock.now += 2.9
    work(schedule, clock, 1.0)
    assert not schedule.due(10)
    clock.now += 0.2
    work(schedule, clock, 1.0)
    assert schedule.due(11)


def test_a_single_projection_is_no_preview(clock):
    schedule = PreviewSchedule(LiveConfig(preview_every=1), clock)
    assert not schedule.due(1)


class Derived(Mock):
    """A derivation that nobody has made yet, with a run and somewhere to send it."""

    final_uid = denoiser = None


def test_those_before_one_that_failed_count():
    slices = torch.zeros(1, 2, 2), 0.5
    live = Mock(n_arrived=10, preview_rows=[0])
    live.preview.side_effect = [slices, slices, RuntimeError("no picture"), slices]
    config = LiveConfig(preview_every=1, preview_every_s=None)
    derivation = Derived()
    previews = Previews(
        PreviewSchedule(config, clock=lambda: 0.0), live, derivation, lambda: {"made": "so"}
    )
    for _ in range(4):
        previews.advance(has_references=True)
        live.n_arrived += 10
    assert (previews.n_published, derivation.run.preview.call_count) == (2, 2)
    assert live.preview.call_count == 3, "one that fails is the last"
    assert (previews.has_started, previews.started_with) == (True, {"made": "so"})
    derivation.make.assert_called_once()
