"""Raw runs of a catalog, by what their start documents say.

Enters: what a person asks for, as ``KEY=VALUE`` or as a `ScanQuery`. Leave: the runs that answer.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from json import JSONDecodeError, loads
from typing import Any

from pydantic import BaseModel, ConfigDict
from tiled.queries import Comparison, Eq

from ..config import checked
from ..errors import ConfigurationError
from .identity import is_derived

DOSE_KEY = "dose"
"""Start key of the dose, as a fraction of the full one."""

# Where beamlines write the name of a sample.
_SAMPLE_KEYS = ("sample.name", "sample_name", "sample")

_NAMED = ("sample", "plan_name", "dose", "since", "until")
_SIGNS = ((">=", "at_least"), ("<=", "at_most"), ("=", "where"))

Value = str | int | float | bool


class ScanQuery(BaseModel):
    """Which raw runs of a catalog are wanted: those that answer all that is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sample: str | None = None
    """Name of the sample, under whichever key a beamline writes it."""
    plan_name: str | None = None
    dose: float | None = None
    """Fraction of the full dose; of pairs that of the low-dose scan."""
    since: datetime | None = None
    until: datetime | None = None
    """Not included."""
    where: Mapping[str, Value] = {}
    """Values of any other keys of the start document, such as ``{"technique": "tomography"}``."""
    at_least: Mapping[str, Value] = {}
    """Least values of keys."""
    at_most: Mapping[str, Value] = {}
    """Greatest values of keys."""


def parse_query(words: Sequence[str]) -> ScanQuery:
    """A query in words.

    Parameters
    ----------
    words : sequence of str
        ``KEY=VALUE``, ``KEY>=VALUE`` or ``KEY<=VALUE``. The key is sample, plan_name, dose, since,
        until, or any other of the start document, such as ``sample.number``; the value is text, or
        in JSON, and to compare with also an ISO date.

    Raises
    ------
    ConfigurationError
        A word without a sign, a key that is asked for twice, or a value that does not fit its key.
    """
    asked: dict[str, Any] = {"where": {}, "at_least": {}, "at_most": {}}
    for word in words:
        key, kind, text = _parts(word)
        named = kind == "where" and key in _NAMED
        into = asked if named else asked[kind]
        if key in into:
            raise ConfigurationError(f"--query: expected {key!r} once, got it again in {word!r}")
        into[key] = text if named else _value(text, is_date=kind != "where")
    return checked(ScanQuery, asked, "--query")


def raw_runs(catalog: Any, query: ScanQuery, any_dose: bool = False) -> list[Any]:
    """The raw runs that answer a query, in the order of their time.

    Parameters
    ----------
    catalog : Tiled client
    query : ScanQuery
    any_dose : bool
        Whatever dose the query asks for.
    """
    dose = None if any_dose else query.dose
    asked: list[tuple[str, str, Any]] = [
        ("eq", "plan_name", query.plan_name),
        ("eq", DOSE_KEY, dose),
        ("ge", "time", query.since and query.since.timestamp()),
        ("lt", "time", query.until and query.until.timestamp()),
        *(("eq", key, value) for key, value in query.where.items()),
        *(("ge", key, value) for key, value in query.at_least.items()),
        *(("le", key, value) for key, value in query.at_most.items()),
    ]
    found = catalog
    for operator, key, value in asked:
        if value is None:
            continue
        name = f"start.{key}"
        found = found.search(
            Eq(name, value) if operator == "eq" else Comparison(operator, name, value)
        )
    searches = [found]
    if query.sample is not None:
        searches = [found.search(Eq(f"start.{key}", query.sample)) for key in _SAMPLE_KEYS]
    runs = {start_of(run)["uid"]: run for search in searches for run in search.values()}
    raw = [run for run in runs.values() if not is_derived(start_of(run))]
    return sorted(raw, key=lambda run: float(start_of(run)["time"]))


def start_of(run: Any) -> Mapping[str, Any]:
    """Start document of a run."""
    start: Mapping[str, Any] = run.metadata["start"]
    return start


def _parts(word: str) -> tuple[str, str, str]:
    for sign, kind in _SIGNS:
        key, found, text = word.partition(sign)
        if found and key.strip() and not key.rstrip().endswith(("<", ">")):
            return key.strip(), kind, text.strip()
    raise ConfigurationError(
        "--query: expected KEY=VALUE, KEY>=VALUE or KEY<=VALUE with a key of the start document, "
        f"got {word!r}"
    )


def _value(text: str, is_date: bool) -> Value:
    try:
        value = loads(text)
    except JSONDecodeError:
        value = None
    if isinstance(value, str | int | float):
        return value
    if is_date:
        try:
            return datetime.fromisoformat(text).timestamp()
        except ValueError:
            pass
    return text
