"""Options mean the same in every command that has them."""

import pytest

from tomogan_bluesky import cli

COMMANDS = {
    "replay": "replay --catalog c",
    "train": "train --catalog c --output o",
    "evaluate": "evaluate --catalog c",
    "calibrate": "calibrate m --catalog c --output o",
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("query", ["--query a=1 b=2", "--query a=1 --query b=2"])
def test_all_conditions_of_a_query_are_kept_however_they_are_given(command, query):
    args = cli.make_parser().parse_args([*COMMANDS[command].split(), *query.split()])
    assert args.query == ["a=1", "b=2"]
