"""The gan stage: what it adds, what it may cost, and how it ends when it goes wrong."""

from copy import deepcopy

import pytest
import torch
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import save_file
from unit.training.discs import discs, gan_config

from tomogan_bluesky.errors import CollapseError, ModelError, ModelNotFoundError, TrainingError
from tomogan_bluesky.models.generator import build_generator
from tomogan_bluesky.training import collapse, objective
from tomogan_bluesky.training.checkpoint import CHECKPOINT, averaged_generator, read_checkpoint
from tomogan_bluesky.training.processes import World
from tomogan_bluesky.training.settings import RECIPES, TrainingConfig
from tomogan_bluesky.training.state import TrainingState
from tomogan_bluesky.training.trainer import train

RUINOUS = {"adversarial_weight": 99.0, "learning_rate": 1.0, "checkpoint_every": 4}


def config(**changes):
    return gan_config(**({"steps": 4} | changes))


@pytest.fixture(scope="module")
def pairs():
    return discs()


@pytest.fixture(scope="module")
def start(pairs, tmp_path_factory):
    """The network of a pixel stage."""
    settings = TrainingConfig(
        options={"base": 4}, batch=4, crop=16, steps=120, averaging=0.9, learning_rate=3e-3
    )
    return train(settings, [pairs], tmp_path_factory.mktemp("pixel"))


def run(pairs, start, out_dir, settings, **options):
    return train(settings, [pairs], out_dir, start=start, validation=pairs, **options)


def same(a, b):
    one, other = a.state_dict(), b.state_dict()
    return all(torch.equal(v, other[k]) for k, v in one.items())


def test_all_terms_count_and_both_networks_learn(pairs, start, tmp_path):
    run(pairs, start, tmp_path, config(ssim_weight=0.01, ms_ssim_weight=0.01, largest_cost_db=2.0))
    _, progress, tensors = read_checkpoint(tmp_path / CHECKPOINT)
    entry = progress.history[-1]
    terms = ("pixel", "ssim", "ms_ssim", "feature", "adversarial")
    assert all(entry[name] > 0 for name in terms)
    assert entry["loss"] == pytest.approx(sum(entry[name] for name in terms), rel=1e-5)
    assert 0.5 < entry["discriminator"] < 0.9  # near log 2: it has just begun
    assert entry["cost_db"] == pytest.approx(
        max(v - entry[k] for k, v in progress.baseline.items() if "denoised" in k)
    )
    fresh = objective.PatchDiscriminator(1, base=4).state_dict()
    assert any((tensors[f"discriminator.{k}"] - v).abs().max() > 1e-4 for k, v in fresh.items())
    assert progress.kept_step == 4
    assert not same(averaged_generator(tmp_path / CHECKPOINT)[0], start)


def test_the_discriminator_learns_faster_and_at_first_alone(start):
    settings = config(steps=20, learning_rate=1e-4, critic_rate=4.0, critic_alone=99)
    state = TrainingState.begin(settings, 3, start, "cpu", World(), None)
    for step, waits in ((0, True), (3, True), (4, False)):  # a fifth of the steps at most
        state.progress.step = step
        state.set_rate(0.5)
        assert state.waits == waits
        assert state.optimiser.param_groups[0]["lr"] == pytest.approx(5e-5)
        assert state.critic.optimiser.param_groups[0]["lr"] == pytest.approx(2e-4)


def test_the_generator_stays_as_it_is_as_long_as_the_discriminator_learns_alone(
    pairs, start, tmp_path
):
    settings = config(steps=10, checkpoint_every=2, critic_alone=2)
    networks = []
    with pytest.MonkeyPatch.context() as patch:
        save = TrainingState.save
        patch.setattr(
            TrainingState,
            "save",
            lambda state, path: (
                networks.append((deepcopy(state.network), deepcopy(state.critic.discriminator))),
                save(state, path),
            ),
        )
        run(pairs, start, tmp_path, settings)
    (first, critic), (second, taught), (third, _), *_ = networks
    assert same(first, second)
    assert not same(critic, taught)
    assert not same(second, third)


@pytest.mark.parametrize("backbone", ["encoder", "fixed"])
def test_resumed_gan_stage_gives_the_same_bits(pairs, start, tmp_path, backbone):
    """Both networks, both optimisers and the frozen encoder are in the checkpoint."""
    settings = config(feature_backbone=backbone)
    run(pairs, start, tmp_path / "whole", settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objective.Critic, "learn", failing_at(3, objective.Critic.learn))
        with pytest.raises(Interrupted):
            run(pairs, start, tmp_path / "cut", settings)
    assert read_checkpoint(tmp_path / "cut" / CHECKPOINT)[1].step == 2
    train(settings, [pairs], tmp_path / "cut", tmp_path / "cut" / CHECKPOINT, validation=pairs)
    whole, cut = (read_checkpoint(tmp_path / d / CHECKPOINT) for d in ("whole", "cut"))
    assert whole[2].keys() == cut[2].keys()
    assert all(torch.equal(v, cut[2][k]) for k, v in whole[2].items())
    assert whole[1].history[-1] == cut[1].history[-1]


def test_a_checkpoint_of_another_versions_networks(pairs, start, tmp_path):
    path = tmp_path / CHECKPOINT
    run(pairs, start, tmp_path, config())
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = read_checkpoint(path)[2]
    tensors["discriminator.former"] = tensors.pop("discriminator.layers.0.bias")
    save_file(tensors, path, metadata)
    with pytest.raises(TrainingError, match="expected the discriminator of this version, got"):
        train(config(), [pairs], tmp_path, path, validation=pairs)


class Interrupted(Exception):
    pass


def failing_at(call, method):
    calls = []

    def maybe(*args):
        calls.append(1)
        if len(calls) == call:
            raise Interrupted
        return method(*args)

    return maybe


def test_half_precision_learns_about_the_same(pairs, start, tmp_path):
    """Convolutions of both networks in bfloat16; weights, losses and averages in float32."""
    for precision in ("float32", "bfloat16"):
        settings = config(precision=precision, ssim_weight=0.01, ms_ssim_weight=0.01)
        run(pairs, start, tmp_path / precision, settings)
    full, half = (read_checkpoint(tmp_path / p / CHECKPOINT) for p in ("float32", "bfloat16"))
    for name in ("pixel", "ssim", "ms_ssim", "feature", "adversarial", "discriminator"):
        exact, found = (progress.history[0][name] for _, progress, _ in (full, half))
        assert found == pytest.approx(exact, rel=0.03)
        assert found != exact
    assert all(v.dtype == torch.float32 for v in half[2].values())


def test_a_network_that_costs_too_much_is_not_kept(pairs, start, tmp_path, caplog):
    """The pixel stage's network is exported then, and the log says why."""
    settings = config(**RUINOUS, collapse_cost_db=99.0)
    kept = run(pairs, start, tmp_path, settings)
    progress = read_checkpoint(tmp_path / CHECKPOINT)[1]
    assert all(entry["cost_db"] > 0.3 for entry in progress.history)
    assert progress.kept_step == 0
    assert same(kept, start)
    assert "not kept" in caplog.text


@pytest.mark.parametrize(
    ("changes", "patched", "message"),
    [
        (
            RUINOUS | {"collapse_cost_db": 0.3},
            {},
            "PSNR fell by",
        ),
        ({}, {"_LOWEST_DISCRIMINATOR_LOSS": 5.0}, "discriminator's loss fell to 0.*tells all"),
        ({}, {"_LOWEST_SPREAD": 9.0}, "nearly constant"),
    ],
)
def test_collapse_stops_and_keeps_the_pixel_stage(
    pairs, start, tmp_path, monkeypatch, changes, patched, message
):
    for name, value in patched.items():
        monkeypatch.setattr(collapse, name, value)
        monkeypatch.setattr(collapse, "WINDOW", 2)
    with pytest.raises(CollapseError, match=f"collapsed: .*{message}.*lower adversarial_weight"):
        run(pairs, start, tmp_path, config(**changes))
    assert same(averaged_generator(tmp_path / CHECKPOINT)[0], start)


def test_collapse_to_nan(pairs, start, tmp_path):
    broken = build_generator("unet4", base=4)
    broken.load_state_dict(start.state_dict())
    torch.nn.init.constant_(broken.body.head.bias, float("nan"))
    with pytest.raises(CollapseError, match="step 0: .*not finite"):
        run(pairs, broken, tmp_path, config())


def test_a_gan_stage_needs_a_beginning_and_a_measure(pairs, start, tmp_path):
    with pytest.raises(TrainingError, match="begins with the network of a pixel stage"):
        train(config(), [pairs], tmp_path, validation=pairs)
    with pytest.raises(TrainingError, match="`validation`"):
        train(config(), [pairs], tmp_path, start=start)


def test_weights_of_vgg16_are_never_replaced_by_something_else(pairs, start, tmp_path):
    with pytest.raises(ValidationError, match="needs a file of its weights"):
        config(feature_backbone="vgg16")
    settings = config(feature_backbone="vgg16", vgg16_sha256="0" * 64)
    with pytest.raises(ModelNotFoundError, match="none was given"):
        run(pairs, start, tmp_path, settings)
    with pytest.raises(ModelNotFoundError, match=r"no weights of VGG-16 at .*absent"):
        run(pairs, start, tmp_path, settings, vgg16=tmp_path / "absent")
    (tmp_path / "other").write_bytes(b"other")
    with pytest.raises(ModelError, match="expected the file with sha256 000"):
        run(pairs, start, tmp_path, settings, vgg16=tmp_path / "other")
    sha256 = objective.vgg16_sha256(tmp_path / "other")
    with pytest.raises(ModelError, match="expected a file of weights"):
        run(
            pairs,
            start,
            tmp_path,
            config(feature_backbone="vgg16", vgg16_sha256=sha256),
            vgg16=tmp_path / "other",
        )


@pytest.mark.parametrize(
    "changes",
    [
        {"adversarial_weight": 0.0},
        {"stage": "pixel"},
        {"processes": 3},
        {"batch": 0},
    ],
)
def test_contradictions(changes):
    with pytest.raises(ValidationError):
        config(**changes)


def test_recipe_of_the_review():
    """Its hyperparameters, word by word."""
    for stage, settings in RECIPES["review"].items():
        found = TrainingConfig(stage=stage, vgg16_sha256="0" * 64, **settings)
        assert (found.network, found.crop, found.batch) == ("unet4", 512, 16)
        assert (found.learning_rate, found.epochs, found.processes) == (2e-4, 200, 4)
        assert found.pixel_loss == "l1"
    assert (found.adversarial_loss, found.feature_backbone) == ("bce", "vgg16")
    assert found.adversarial_weight > 0
    assert found.feature_weight > 0
