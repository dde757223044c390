"""What a person asks of a catalog, in words."""

from datetime import datetime

import pytest

from tomogan_bluesky.errors import ConfigurationError
from tomogan_bluesky.publish.query import ScanQuery, parse_query


def test_words_become_a_query():
    words = ["sample=12", "dose=0.25", "since=2026-01-02", "technique=tomography", "hutch=B"]
    words += ["n=3", "dark=true", "label='x'", 'name="12"', "number<=2", "time>=2026-11-01"]
    query = parse_query(words)
    assert query == ScanQuery(
        sample="12",  # a name, even if it looks like a number
        dose=0.25,
        since=datetime(2026, 1, 2),
        where={
            "technique": "tomography",
            "hutch": "B",
            "n": 3,
            "dark": True,
            "label": "'x'",
            "name": "12",
        },
        at_most={"number": 2},
        at_least={"time": datetime(2026, 11, 1).timestamp()},
    )
    assert query.where["dark"] is True
    assert parse_query(["dose>=0.5", "scan_date=2026-11-01"]) == ScanQuery(
        at_least={"dose": 0.5}, where={"scan_date": "2026-11-01"}
    )


def test_a_key_is_asked_for_once():
    parse_query(["number>=1", "number<=2", "number=2"])
    for twice in (["a=1", "a=2"], ["sample=x", "sample=x"], ["n>=1", "n>=2"]):
        with pytest.raises(ConfigurationError, match="once, got it again in"):
            parse_query(twice)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("walnut", "expected KEY=VALUE, KEY>=VALUE or KEY<=VALUE .* got 'walnut'"),
        ("=7", "got '=7'"),
        (">=7", "got '>=7'"),
        ("dose=much", "--query: dose"),
        ("since=yesterday", "--query: since"),
    ],
)
def test_words_that_ask_nothing_are_named(word, message):
    with pytest.raises(ConfigurationError, match=message):
        parse_query([word])
