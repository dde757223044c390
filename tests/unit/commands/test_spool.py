"""`tomogan-bluesky spool` where nothing waits; else see faults/test_network.py."""

import pytest

from tomogan_bluesky.cli import main


@pytest.mark.parametrize("action", ["list", "flush"])
def test_that_nothing_waits_is_said(action, tmp_path, capsys):
    assert main(["spool", action, "--spool", str(tmp_path)]) == 0
    assert "nothing waits in" in capsys.readouterr().out


@pytest.mark.parametrize("action", ["list", "flush"])
def test_a_run_that_does_not_wait_is_an_error_that_names_it(action, tmp_path, capsys):
    assert main(["spool", action, "3f2a", "--spool", str(tmp_path)]) == 1
    assert "'3f2a'" in capsys.readouterr().err
