"""Runs in a Tiled catalog: found again by what they come from, and by the names that people use.

Enter: a client, a derivation or a name. Leave: runs, and what is known of them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tiled.client.base import BaseClient
from tiled.queries import Eq, KeyPresent, Like

from ..errors import PublishError
from .explain import explain_request
from .identity import ORIGINAL_RUN, is_derived
from .volume_documents import STREAM

_CANDIDATES = 10  # of an ambiguous name, or of no run at all, that a message lists


@dataclass(frozen=True)
class Attempt:
    """One derived run of a derivation.

    Attributes
    ----------
    uid : str
    attempt : int
        From 1.
    exit_status : str or None
        None until its stop document is there.
    is_complete : bool
        See `is_complete`.
    """

    uid: str
    attempt: int
    exit_status: str | None
    is_complete: bool


def is_complete(stop_doc: Mapping[str, Any] | None) -> bool:
    """Whether an attempt made what can be made of its raw run, by its stop document.

    One that failed did not, nor did one that has no stop document. Of those that end as "abort"
    some hold what there was of a raw run that ended early, which is as good as it can be; those
    that were closed in mid-scan have no slices.
    """
    stop_doc = stop_doc or {}
    if stop_doc.get("exit_status") == "abort":
        return STREAM in stop_doc.get("num_events", {})
    return stop_doc.get("exit_status") == "success"


def attempts(client: BaseClient, derivation: str) -> list[Attempt]:
    """The attempts at a derivation, in their order. The final version is the one that succeeded.

    Parameters
    ----------
    client : Tiled client
    derivation : str
        See `identity.derivation_of`.
    """
    with explain_request("Tiled to say which runs it has"):
        found = [run.metadata for run in _search(client, Eq("start.derivation", derivation))]
    return sorted(
        (
            Attempt(
                md["start"]["uid"],
                md["start"]["attempt"],
                (md.get("stop") or {}).get("exit_status"),
                is_complete(md.get("stop")),
            )
            for md in found
        ),
        key=lambda attempt: attempt.attempt,
    )


def unsuccessful(client: BaseClient, derivation: str) -> list[tuple[dict[str, Any], bool]]:
    """Start documents of the attempts that are not complete, and if they have a stop document."""
    with explain_request("Tiled to say which runs it has"):
        found = [run.metadata for run in _search(client, Eq("start.derivation", derivation))]
    return [
        (dict(md["start"]), bool(md.get("stop"))) for md in found if not is_complete(md.get("stop"))
    ]


def final_version(client: BaseClient, derivation: str) -> str | None:
    """Uid of the attempt at a derivation that succeeded; None where none did yet."""
    return next((a.uid for a in attempts(client, derivation) if a.exit_status == "success"), None)


def derived_runs(client: BaseClient, raw_start: Mapping[str, Any]) -> list[str]:
    """Uids of the runs that were derived from a run, the newest last."""
    with explain_request("Tiled to say which runs it has"):
        found = _search(client, Eq(f"start.{ORIGINAL_RUN}", raw_start["uid"]))
        return [run.metadata["start"]["uid"] for run in found]


def next_scan_id(client: Any) -> int:
    """A scan_id that no raw run of a catalog has: one more than the largest."""
    with explain_request("Tiled to say which runs it has"):
        numbered = client.search(KeyPresent("start.scan_id")).sort(("start.scan_id", -1))
        return int(numbered.values().first().metadata["start"]["scan_id"]) + 1 if numbered else 1


def find_run(client: BaseClient, name: str | int) -> Any:
    """The run that a person means.

    Parameters
    ----------
    client : Tiled client
    name : str or int
        A uid or the unique beginning of one, of any run; the scan_id of a raw run; or -1, -2, … for
        the newest raw run, the one before it, ….

    Raises
    ------
    PublishError
        No such run, or several.
    """
    text = str(name).strip()
    if not re.fullmatch(r"-?[0-9A-Za-z][0-9A-Za-z-]*", text):
        raise PublishError(
            f"run {text!r}: expected a uid, the beginning of one, a scan_id, or -1 for the newest"
        )
    with explain_request("Tiled to say which runs it has"):
        runs = client.search(KeyPresent("start.uid"))  # a catalog may hold other things, too
        raw = runs.search(KeyPresent(f"start.{ORIGINAL_RUN}", exists=False))
        if text.startswith("-"):
            found = _newest(raw, text)
        else:
            found = _search(raw, Eq("start.scan_id", int(text))) if text.isdecimal() else []
            found = found or _search(client, Like("start.uid", f"{text}%"))
        if len(found) == 1:
            return found[0]
        some = found or raw.values().tail(_CANDIDATES)
        listing = "; ".join(map(_describe, some)) or "no raw run at all"
    if found:
        raise PublishError(
            f"run {text!r}: expected one run, got {len(found)}: {listing}; name it by more of its "
            "uid"
        )
    raise PublishError(f"run {text!r}: expected a run of the catalog, got none; there is {listing}")


def _newest(raw: Any, text: str) -> list[Any]:
    if not text[1:].isdecimal() or int(text) == 0:
        raise PublishError(f"run {text!r}: expected -1 for the newest run, -2 for the one before …")
    try:
        return [raw.values()[int(text)]]
    except IndexError:
        return []


def _search(client: Any, *queries: Any) -> list[Any]:
    for query in queries:
        client = client.search(query)
    return list(client.values())


def _describe(run: Any) -> str:
    start = run.metadata["start"]
    sample = start.get("sample")
    words = [
        start["uid"],
        f"scan_id {start['scan_id']}" if "scan_id" in start else "",
        str(sample.get("name", "") if isinstance(sample, Mapping) else sample or ""),
        f"derived from {start[ORIGINAL_RUN]}" if is_derived(start) else "",
        datetime.fromtimestamp(start["time"]).isoformat(" ", "minutes"),
    ]
    return ", ".join(word for word in words if word)
