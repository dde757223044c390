"""What the documentation tells people to type and to follow is there."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from tomogan_bluesky import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "profiles").rglob("*.md")]
EXAMPLES = {name: import_module(f"tomogan_bluesky.commands.{name}") for name in cli._COMMANDS}


def blocks(text):
    """The lines of a page's code blocks, continued ones joined."""
    code = "\n".join(re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S))
    return code.replace("\\\n", " ").splitlines()


def words(line, program):
    """What stands behind a program in a line, up to a comment or another command."""
    behind = shlex.split(line.split(f"{program} ", 1)[1], comments=True)
    ends = [i for i, word in enumerate(behind) if word in ("&&", "|", ">", ">>", ";", "&")]
    return behind[: min(ends, default=len(behind))]


def understood(line, capsys):
    """Whether the command line takes a line; else why not."""
    try:
        cli.make_parser().parse_args(words(line, "tomogan-bluesky"))
    except SystemExit as ended:
        return "" if ended.code == 0 else capsys.readouterr().err.splitlines()[-1]
    return ""


def wrong(lines, capsys):
    lines = [line for line in lines if re.search(r"(^|[ (])tomogan-bluesky \w", line)]
    return {line.strip(): why for line in lines if (why := understood(line, capsys))}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    here = [link for link in links if not re.match(r"\w+:", link)]
    assert [link for link in here if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_a_page_exist(page, capsys):
    text = page.read_text()
    assert wrong(blocks(text), capsys) == {}
    verbs = set(re.findall(r"`tomogan-bluesky ([a-z][a-z-]*)", text))
    assert {verb for verb in verbs if verb.replace("-", "_") not in cli._COMMANDS} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_scripts_of_a_page_exist_with_their_options(page):
    text = page.read_text().replace("\\\n", " ")
    for script, line in re.findall(r"((?:benchmarks|examples)/\w+\.py)([^\n`]*)", text):
        source = (ROOT / script).read_text()
        options = re.findall(r"(?<= )--[a-z][\w-]*", line.split("#")[0])
        assert [o for o in options if f'"{o}"' not in source and o != "--help"] == [], script


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_of_a_command_are_understood(name, capsys):
    text = EXAMPLES[name]._EXAMPLES.replace("\\\n", " ")
    assert "tomogan-bluesky" in text
    assert wrong(text.splitlines(), capsys) == {}
