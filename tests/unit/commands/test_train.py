import argparse
import json
import shlex

import pytest
import torch

from tomogan_bluesky.commands import train
from tomogan_bluesky.denoise import TorchScriptDenoiser
from tomogan_bluesky.errors import ConfigurationError, ModelNotFoundError, TrainingError
from tomogan_bluesky.models.artifact import load_model

SMALL = "--size 48 --angles 40 --slices 4 --batch 2 --crop 32 --threads 1"
QUICK = f"--simulated --steps 3 --seed 4 --base 4 {SMALL}"


@pytest.fixture(autouse=True)
def threads():
    """The command sets the number of threads for its process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


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


def test_default_is_the_recipe_of_the_shipped_model(tmp_path):
    parser = argparse.ArgumentParser()
    train.add_parser(parser.add_subparsers())
    args = parser.parse_args(["train", "--simulated", "--output", str(tmp_path)])
    assert train._config(args).minutes == 45
    recipes, validation = train._recipes(args)
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
