import sys
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from unit.training.discs import config, discs

from tomogan_bluesky.errors import BackendUnavailableError, ModelNotFoundError, TrainingError
from tomogan_bluesky.training import crops, trainer
from tomogan_bluesky.training.pairs import Pairs
from tomogan_bluesky.training.trainer import (
    CHECKPOINT,
    averaged_generator,
    read_checkpoint,
    train,
)


@pytest.fixture(scope="module")
def pairs():
    """At two sizes."""
    return [discs(32), discs(24, seed=1)]


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    one, other = a.state_dict(), b.state_dict()
    return one.keys() == other.keys() and all(torch.equal(v, other[k]) for k, v in one.items())


def test_it_learns(pairs, tmp_path):
    settings = config(steps=160, batch=4, checkpoint_every=40, learning_rate=3e-3, averaging=0.95)
    generator = train(settings, pairs, tmp_path, validation=pairs[0])
    history = read_checkpoint(tmp_path / CHECKPOINT)[1].history
    last = history[-1]
    assert last["loss"] < 0.9 * history[0]["loss"]
    for dose in ("1", "0.25"):
        gain = last[f"psnr_db_denoised_at_{dose}"] - last[f"psnr_db_noisy_at_{dose}"]
        assert gain > 1.5
    assert not generator.training


def test_resumed_training_gives_the_same_bits(pairs, tmp_path, monkeypatch):
    """Interrupted in its cool-down and resumed, a training ends as one that was not."""
    whole = train(config(steps=12), pairs, tmp_path / "whole")

    class Interrupted(Exception):
        pass

    draw, drawn = crops.Crops.draw, []

    def draw_ten(self, rng):
        drawn.append(1)
        if len(drawn) > 10:
            raise Interrupted
        return draw(self, rng)

    with monkeypatch.context() as patch:
        patch.setattr(crops.Crops, "draw", draw_ten)
        with pytest.raises(Interrupted):
            train(config(steps=12), pairs, tmp_path / "cut")
    checkpoint = tmp_path / "cut" / CHECKPOINT
    assert read_checkpoint(checkpoint)[1].step == 8
    resumed = train(config(steps=12), pairs, tmp_path / "cut", checkpoint)
    assert same(resumed, whole)
    ends = [read_checkpoint(tmp_path / d / CHECKPOINT)[2] for d in ("whole", "cut")]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(v, ends[1][k]) for k, v in ends[0].items())


def test_same_seed_same_bits_and_global_random_state_is_left_alone(pairs, tmp_path):
    torch.manual_seed(1)
    first = train(config(steps=3), pairs, tmp_path / "a")
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after)
    assert same(first, train(config(steps=3), pairs, tmp_path / "b"))
    assert not same(first, train(config(steps=3, seed=4), pairs, tmp_path / "c"))


def test_loss_does_not_depend_on_the_units(pairs, tmp_path):
    """Slices in other units train to the same network."""
    scaled = [Pairs.of(512 * p.noisy, 512 * p.target, p.dose) for p in pairs]
    for name, data in (("a", pairs), ("b", scaled)):
        train(config(steps=4), data, tmp_path / name)
    losses = [read_checkpoint(tmp_path / n / CHECKPOINT)[1].history[0]["loss"] for n in "ab"]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_time_budget_decides_the_steps_and_steps_repeat_it(pairs, tmp_path, monkeypatch):
    """A training by the clock is repeated, to the bit, by the number of steps it found."""
    clock = iter(np.arange(0.0, 1e4))  # a second a step
    # The trainer's own clock alone: other threads of the process look at the real one.
    monkeypatch.setattr(trainer, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    by_clock = train(config(minutes=20 / 60), pairs, tmp_path / "clock")
    progress = read_checkpoint(tmp_path / "clock" / CHECKPOINT)[1]
    assert progress.step == progress.steps
    assert progress.steps in (19, 20, 21)
    by_steps = train(config(steps=progress.steps), pairs, tmp_path / "steps")
    assert same(by_clock, by_steps)


def test_averaged_generator_is_what_training_returned(pairs, tmp_path):
    trained = train(config(steps=5), pairs, tmp_path)
    generator, settings, progress = averaged_generator(tmp_path / CHECKPOINT)
    assert same(generator, trained)
    assert settings == config(steps=5)
    assert progress.step == 5
    assert not generator.training


def test_average_follows_the_weights_behind(pairs, tmp_path):
    train(config(steps=5), pairs, tmp_path)
    tensors = read_checkpoint(tmp_path / CHECKPOINT)[2]
    key = "body.head.weight"
    now, average = tensors[f"network.{key}"], tensors[f"average.{key}"]
    assert 0 < average.norm() < now.norm()  # the head starts at zero


def test_loss_that_is_not_finite(pairs, tmp_path):
    broken = [replace(p, contrast=p.contrast * float("nan")) for p in pairs]
    with pytest.raises(TrainingError, match=r"step 0: expected a finite loss.*learning_rate"):
        train(config(steps=5), broken, tmp_path)


def test_checkpoint_of_another_configuration(pairs, tmp_path):
    train(config(steps=2), pairs, tmp_path)
    with pytest.raises(TrainingError, match="batch, seed differ"):
        train(config(steps=2, batch=3, seed=9), pairs, tmp_path, tmp_path / CHECKPOINT)


def test_checkpoint_that_is_none(pairs, tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"no checkpoint at .*absent"):
        train(config(steps=2), pairs, tmp_path, tmp_path / "absent")
    (tmp_path / "text").write_text("not a checkpoint")
    with pytest.raises(TrainingError, match="not a checkpoint of this version"):
        train(config(steps=2), pairs, tmp_path, tmp_path / "text")


def test_refuses_data_it_can_not_crop(pairs, tmp_path):
    with pytest.raises(TrainingError, match="at least 48 pixels.*got 24"):
        train(config(steps=1, crop=48), pairs, tmp_path)
    with pytest.raises(TrainingError, match="no pairs"):
        train(config(steps=1), [], tmp_path)


@pytest.mark.parametrize("budget", [{}, {"steps": 5, "minutes": 1.0}, {"steps": 0}])
def test_one_budget(budget):
    with pytest.raises(ValidationError):
        config(**budget)


def test_crops_are_the_same_place_of_both_images(pairs):
    """A crop's noise is what was added there, whatever the turn, and crops differ."""
    clean = [Pairs.of(p.noisy, p.noisy[:, 0], p.dose) for p in pairs]
    for group in clean:
        group.noisy[:, 1] = group.noisy[:, 0]
    batch = crops.Crops(clean, config(steps=1, batch=32)).draw(np.random.default_rng(0))
    assert torch.equal(batch.noisy, batch.target)
    assert batch.noisy.shape == (32, 1, 16, 16)
    assert batch.noise.shape == batch.contrast.shape == (32,)
    assert len({n.numpy().tobytes() for n in batch.noisy}) > 25


def test_batches_that_are_cut_out_ahead_are_the_same(pairs):
    """And the random state that a checkpoint holds is that of the batches that were taken."""
    some = crops.Crops(pairs, config(steps=1))
    rng, ahead_rng = np.random.default_rng(0), np.random.default_rng(0)
    with closing(some.batches(ahead_rng, ahead=True)) as batches:
        for _ in range(3):
            expected, found = some.draw(rng), next(batches)
            assert torch.equal(found.noisy, expected.noisy)
            assert torch.equal(found.target, expected.target)
            assert ahead_rng.bit_generator.state == rng.bit_generator.state


def test_early_stop_keeps_the_best(pairs, tmp_path, monkeypatch):
    """Scores rise, then fall: the network of the best is exported, and the rest is spared."""
    scores = iter([20.0, 22.0, 21.0, 21.5, 30.0])
    validated = {}

    def scored(network, *_):
        score = next(scores)
        validated[score] = {k: v.clone() for k, v in network.state_dict().items()}
        return {"psnr_db_denoised_at_1": score}

    monkeypatch.setattr(trainer, "evaluate", scored)
    settings = config(steps=20, checkpoint_every=2, patience=2)
    kept = train(settings, pairs, tmp_path, validation=pairs[0])
    progress = read_checkpoint(tmp_path / CHECKPOINT)[1]
    assert progress.step == 8
    assert progress.kept_step == 4
    assert progress.stopped == "no better validation since step 4"
    assert all(torch.equal(v, validated[22.0][k]) for k, v in kept.state_dict().items())
    again = train(settings, pairs, tmp_path, tmp_path / CHECKPOINT, validation=pairs[0])
    assert same(again, kept)
    with pytest.raises(TrainingError, match="give `validation`"):
        train(settings, pairs, tmp_path)


def test_epochs_are_steps_in_which_every_slice_could_be_seen(pairs, tmp_path):
    train(config(epochs=0.5), pairs, tmp_path)  # half of 12 slices, 2 a step
    assert read_checkpoint(tmp_path / CHECKPOINT)[1].step == 3


def test_training_goes_on_from_a_network(pairs, tmp_path):
    first = train(config(steps=4, seed=9), pairs, tmp_path / "first")
    second = train(config(steps=1, averaging=0.0), pairs, tmp_path / "second", start=first)
    fresh = train(config(steps=1, averaging=0.0), pairs, tmp_path / "fresh")
    far, near = (
        sum((a - b).norm() for a, b in zip(first.parameters(), n.parameters(), strict=True))
        for n in (fresh, second)
    )
    assert near < 0.1 * far


def test_adjacent_slices_are_seen_and_only_those_of_a_volume(tmp_path):
    volumes = discs(n=6, volumes=True)
    volumes.noisy[:, :] = torch.arange(6.0).view(6, 1, 1, 1)
    settings = config(steps=1, batch=64, options={"base": 4, "depth": 3})
    batch = crops.Crops([volumes], settings).draw(np.random.default_rng(0))
    seen = {tuple(window[:, 0, 0].tolist()) for window in batch.noisy}
    assert seen == {(1, 0, 1), (0, 1, 2), (1, 2, 1), (4, 3, 4), (3, 4, 5), (4, 5, 4)}
    train(config(steps=1, options={"base": 4, "depth": 3}), [volumes], tmp_path, validation=volumes)
    single = discs(n=1)
    single.noisy[:] = 7.0
    batch = crops.Crops([volumes, single], settings).draw(np.random.default_rng(0))
    assert (7, 7, 7) in {tuple(window[:, 0, 0].tolist()) for window in batch.noisy}
    with pytest.raises(TrainingError, match="3 adjacent slices learns from volumes"):
        train(settings, [discs()], tmp_path)


def test_curves_for_tensorboard(pairs, tmp_path, monkeypatch):
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    train(config(steps=8), pairs, tmp_path, validation=pairs[0], board=tmp_path / "board")
    curves = event_accumulator.EventAccumulator(str(tmp_path / "board")).Reload()
    losses = [(event.step, event.value) for event in curves.Scalars("loss")]
    history = read_checkpoint(tmp_path / CHECKPOINT)[1].history
    assert losses == [(e["step"], pytest.approx(e["loss"])) for e in history]
    assert "psnr_db_denoised_at_1" in curves.Tags()["scalars"]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(BackendUnavailableError, match=r"tomogan_bluesky\[tensorboard\]"):
        train(config(steps=1), pairs, tmp_path, board=tmp_path / "board")
