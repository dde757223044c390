import argparse
import json
import shlex

import pytest
import torch

from tomogan_bluesky import cli
from tomogan_bluesky.commands import calibrate, train, train_data, train_stages
from tomogan_bluesky.denoise.denoiser import TorchScriptDenoiser
from tomogan_bluesky.errors import ConfigurationError, ModelNotFoundError, TrainingError
from tomogan_bluesky.models.artifact import load_generator, load_model
from tomogan_bluesky.training import collapse
from tomogan_bluesky.training.processes import World

SMALL = "--size 48 --angles 40 --slices 4 --batch 2 --crop 32 --threads 1"
QUICK = f"--simulated --steps 3 --seed 4 --base 4 {SMALL}"


def run(text: str) -> int:
    parser = argparse.ArgumentParser()
    train.add_parser(parser.add_subparsers())
    return train.run(parser.parse_args(["train", *shlex.split(text)]))


def test_from_simulation_to_a_model_that_denoises(tmp_path, capsys):
    assert run(f"{QUICK} --output {tmp_path} --name tiny --json") == 0
    card = json.loads(capsys.readouterr().out)
    assert card["name"] == "tiny"
    assert card["network"] == "unet4(base=4)"
    assert card["reconstruction"] == {"method": "gridrec", "filter": "ramlak"}
    assert card["metrics"]["psnr_db_noisy_at_0.25"] > card["metrics"]["psnr_db_noisy_at_0.1"]
    assert card["training"]["scans"][0]["size"] == 48
    denoiser = TorchScriptDenoiser(tmp_path / "model.ts")
    assert denoiser.card.name == "tiny"
    assert denoiser(torch.rand(1, 48, 48)).shape == (1, 48, 48)


@pytest.mark.parametrize("command", ["train", "calibrate unet4-simulated-v3"])
def test_a_folder_that_cannot_be_written_is_known_before_anything_is_simulated(
    command, tmp_path, capsys, monkeypatch
):
    for module in (train, calibrate):
        monkeypatch.setattr(module, "simulated_data", None)
    (tmp_path / "file").touch()
    words = f"{command} --simulated --output {tmp_path / 'file' / 'model'}"
    assert cli.main(shlex.split(words)) == 2
    assert "expected a folder to write the model to" in capsys.readouterr().err


def test_command_on_the_card_makes_the_same_model_again(tmp_path, capsys):
    run(f"{QUICK} --output {tmp_path / 'a'}")
    assert "denoised" in capsys.readouterr().out
    _, card = load_model(tmp_path / "a" / "model.ts")
    program, verb, *words = shlex.split(card.training_command)
    assert (program, verb) == ("tomogan-bluesky", "train")
    run(shlex.join(words).replace("DIR", str(tmp_path / "b")))
    again = load_model(tmp_path / "b" / "model.ts")[1]
    assert again.weights_sha256 == card.weights_sha256
    assert again.training_command == card.training_command


def test_resume_continues_and_cache_is_used(tmp_path, capsys):
    with pytest.raises(ModelNotFoundError, match="no checkpoint"):
        run(f"{QUICK} --output {tmp_path} --resume")
    run(f"{QUICK} --output {tmp_path} --cache {tmp_path / 'cache'}")
    _, first = load_model(tmp_path / "model.ts")
    assert len(list((tmp_path / "cache").iterdir())) == 2  # to learn from, and to score
    run(f"{QUICK} --output {tmp_path} --cache {tmp_path / 'cache'} --resume")
    assert load_model(tmp_path / "model.ts")[1].weights_sha256 == first.weights_sha256
    with pytest.raises(TrainingError, match="seed differ"):
        run(f"{QUICK} --output {tmp_path} --resume --seed 5")


def test_a_training_that_is_there_is_not_replaced(tmp_path):
    run(f"{QUICK} --output {tmp_path}")
    there = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ConfigurationError, match="expected a folder without a training"):
        run(f"{QUICK} --output {tmp_path} --seed 5")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == there


def test_default_is_the_recipe_of_the_shipped_model(tmp_path):
    parser = argparse.ArgumentParser()
    train.add_parser(parser.add_subparsers())
    args = parser.parse_args(["train", "--simulated", "--output", str(tmp_path)])
    config = train_stages.make_config(args, "pixel", World())
    assert config.minutes == 45
    assert config.learning_rate == 1e-3
    # A network that knows its work is changed with care.
    assert train_stages.make_config(args, "pixel", World(), "unet4(base=4)").learning_rate == 2e-4
    recipes, validation = train_data.simulated_recipes(args, config)
    assert sum(recipe.n_slices for recipe in recipes) == 680
    assert validation.doses == (1.0, 0.25, 0.1)


def test_usage(tmp_path):
    with pytest.raises(ConfigurationError, match="crop: .*16"):
        run(f"{QUICK} --output {tmp_path} --crop 3")
    with pytest.raises(ConfigurationError, match="unet4, tomogan3"):
        run(f"{QUICK} --output {tmp_path} --preset unet9")
    with pytest.raises(ConfigurationError, match="'tomogan3' has no option 'base'"):
        run(f"{QUICK} --output {tmp_path} --preset tomogan3")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SystemExit):
        run(f"--simulated --steps 1 --minutes 2 --output {tmp_path}")


def test_both_stages_and_the_command_that_repeats_them(tmp_path, capsys):
    cache = f"--cache {tmp_path / 'cache'}"
    words = f"{QUICK} {cache} --stage both --gan-steps 2 --output {tmp_path / 'a'} --json"
    assert run(words) == 0
    card = json.loads(capsys.readouterr().out)
    pixel, gan = card["training"]["stages"]
    assert (pixel["config"]["stage"], gan["config"]["stage"]) == ("pixel", "gan")
    assert (pixel["config"]["learning_rate"], gan["config"]["learning_rate"]) == (1e-3, 1e-4)
    assert gan["history"][-1]["discriminator"] > 0
    again = shlex.split(card["training_command"].replace("DIR", str(tmp_path / "b")))[2:]
    again += shlex.split(cache)
    assert run(shlex.join(again)) == 0
    assert load_model(tmp_path / "b" / "model.ts")[1].weights_sha256 == card["weights_sha256"]
    # The second stage alone, on from the first.
    alone = (
        shlex.join(again).replace("--stage both", "--stage gan").replace("--steps 3", "--steps 2")
    )
    with pytest.raises(ConfigurationError, match="got one with .*gan/checkpoint.safetensors; go"):
        run(alone)
    (tmp_path / "b" / "gan" / "checkpoint.safetensors").unlink()
    assert run(alone) == 0
    assert load_model(tmp_path / "b" / "model.ts")[1].weights_sha256 == card["weights_sha256"]


def test_collapse_exports_the_pixel_stage_and_says_so(tmp_path, capsys, monkeypatch):
    quick = f"{QUICK} --cache {tmp_path / 'cache'}"
    run(f"{quick} --output {tmp_path}")
    before = load_model(tmp_path / "model.ts")[1].weights_sha256
    monkeypatch.setattr(collapse, "_LOWEST_DISCRIMINATOR_LOSS", 9.0)
    monkeypatch.setattr(collapse, "WINDOW", 1)
    steps = quick.replace("--base 4", "")
    assert run(f"{steps} --stage gan --output {tmp_path}") == 1
    said = capsys.readouterr().err
    assert "the gan stage has collapsed" in said
    assert "network of the pixel stage was exported" in said
    assert load_model(tmp_path / "model.ts")[1].weights_sha256 == before


def test_finetune_begins_with_a_model(tmp_path):
    run(f"{QUICK} --output {tmp_path / 'a'}")
    model = tmp_path / "a" / "model.ts"
    steps = QUICK.replace("--base 4", "").replace("--seed 4", "--seed 5")
    run(f"{steps} --finetune {model} --learning-rate 1e-9 --output {tmp_path / 'b'}")
    first, tuned = (load_generator(tmp_path / d / "model.ts")[0] for d in "ab")
    for a, b in zip(first.parameters(), tuned.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    with pytest.raises(ConfigurationError, match=r"--base: .*unet4\(base=4\), got 8"):
        run(f"{steps} --base 8 --finetune {model} --output {tmp_path / 'c'}")
    with pytest.raises(ModelNotFoundError, match="no checkpoint"):
        run(f"{steps} --stage gan --output {tmp_path / 'c'}")


def test_review_is_512_columns_and_four_processes(tmp_path):
    parser = argparse.ArgumentParser()
    train.add_parser(parser.add_subparsers())
    words = ["train", "--simulated", "--recipe", "review", "--output", str(tmp_path)]
    args = parser.parse_args(words)
    config = train_stages.make_config(args, "pixel", World())
    assert (config.crop, config.batch, config.epochs, config.processes) == (512, 16, 200, 4)
    assert train_data.simulated_recipes(args, config)[0][0].size == 512
    args = parser.parse_args([*words, "--processes", "1", "--steps", "7"])
    config = train_stages.make_config(args, "pixel", World())
    assert (config.processes, config.steps, config.epochs) == (1, 7, None)


def test_a_deep_network_learns_from_volumes(tmp_path, capsys):
    words = QUICK.replace("--base 4", "--network unet3d --base 2 --depth 3")
    assert run(f"{words} --output {tmp_path} --json") == 0
    card = json.loads(capsys.readouterr().out)
    assert (card["network"], card["depth"]) == ("unet3d(base=2, depth=3)", 3)
    denoiser = TorchScriptDenoiser(tmp_path / "model.ts")
    assert denoiser(torch.rand(2, 48, 48)).shape == (2, 48, 48)
