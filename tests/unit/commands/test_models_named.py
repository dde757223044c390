"""The model and the device that a command line or a profile names."""

import pytest

from tomogan_bluesky import cli
from tomogan_bluesky.commands import replay
from tomogan_bluesky.config import DEFAULT_MODEL


def parsed(text, *more):
    return cli.make_parser().parse_args([*text.split(), *map(str, more)])


@pytest.fixture
def profile(tmp_path):
    def write(content):
        path = tmp_path / "tomogan.yml"
        path.write_text(f"version: 1\n{content}")
        return path

    return write


@pytest.mark.parametrize("command", ["serve --tiled http://127.0.0.1:9", "replay -1 --catalog c"])
def test_a_model_that_there_is_not_is_known_at_once(command, profile, capsys, monkeypatch):
    monkeypatch.setattr("tomogan_bluesky.serving.server.Server.run", lambda _: None)
    for words in (["--model", "unet9"], ["--profile", str(profile("model: unet9"))]):
        assert cli.main([*command.split(), *words]) == 1
        assert f"no model is called 'unet9'; expected one of: {DEFAULT_MODEL}" in (
            capsys.readouterr().err
        )


def test_a_command_line_wins_over_a_profile(profile):
    path = profile("model: null\ndevice: cuda:1")
    for words, found in (
        ([], (None, "cuda:1")),
        (["--device", "cpu", "--model", "default"], (DEFAULT_MODEL, "cpu")),
    ):
        args = parsed("replay -1 --catalog c --profile", path, *words)
        assert replay._settings(args)[1:] == found
    assert replay._settings(parsed("replay -1 --catalog c"))[1:] == (DEFAULT_MODEL, "auto")
