"""Tiled: documents go in, runs are found again.

Enter: the address of a Tiled server, documents, the names that people have for runs. Leave: a
client, runs in the catalog, runs out of it. Nothing here knows of the embedded server: any Tiled
server with Bluesky runs will do.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from bluesky_tiled_plugins import TiledWriter
from tiled.client import from_profile
from tiled.client.base import BaseClient
from tiled.client.constructors import from_context
from tiled.client.context import Context
from tiled.profiles import load_profiles
from tiled.queries import Eq, KeyPresent, Like

from ..errors import PublishError, ServerAwayError
from ..intake.uris import path_of
from .access import as_private_as_raw, check_privacy
from .documents import ORIGINAL_RUN, SPEC, is_derived
from .explain import explain_connection, explain_request, in_words, kind_of, what_to_do
from .prompt import PromptPreviews
from .volume_documents import STREAM
from .volume_file import owner_of

# Seconds until a server that does not answer counts as down. Tiled's own client tries for up to 45.
_ANSWER_WITHIN = 5.0

# Events of a run that is not ours go to Tiled in batches: an HTTP request takes some 20 ms.
_BATCH = 32

_CANDIDATES = 10  # of an ambiguous name, or of no run at all, that a message lists


# A client --------------------------------------------------------------------------------------


def connect(target: BaseClient | str) -> BaseClient:
    """A Tiled client.

    Parameters
    ----------
    target : Tiled client or str
        A client is returned as it is. A string that starts with ``http`` is the address of a
        server, any other the name of a Tiled profile. The API key is taken from the environment
        variable ``TILED_API_KEY``. Nobody is asked for a password.

    Raises
    ------
    PublishError
        No such profile, no server there, or one that does not let us in.
    """
    if isinstance(target, BaseClient):
        return target
    if not target.startswith(("http://", "https://")):
        return _from_profile(target)
    if "api_key=" in target:
        raise PublishError(
            f"{target.partition('?')[0]}: expected an address without a key, got one with api_key= "
            "in it, which ends up in logs; put the key into the environment as TILED_API_KEY"
        )
    with explain_connection(target):
        _knock(target)
        context, path = Context.from_any_uri(target)
        try:
            about = context.server_info.authentication
            if about.required and not context.authenticated and not context.use_cached_tokens():
                raise ServerAwayError(
                    f"{target}: expected to be let in, but the server wants authentication; put "
                    "an API key into the environment as TILED_API_KEY, or log in once with: tiled "
                    "login"
                )
            return from_context(context, node_path_parts=path)
        except Exception:
            context.close()
            raise


def _from_profile(name: str) -> BaseClient:
    profiles = load_profiles()
    if name not in profiles:
        raise PublishError(
            f"{name!r}: expected the address of a Tiled server (http://…) or the name of a Tiled "
            f"profile, got neither; profiles here: {', '.join(sorted(profiles)) or 'none'}; "
            "see: tiled profile list (a profile with an api_key in it is skipped by Tiled)"
        )
    uri = profiles[name][1].get("uri")
    with explain_connection(f"profile {name!r}"):
        if uri is not None:
            _knock(uri)
        return from_profile(name)


def knock(client: BaseClient) -> None:
    """See whether a server answers and lets us in, without being patient as Tiled's client is.

    Raises
    ------
    ServerAwayError
    """
    with explain_connection(address_of(client)):
        http = client.context.http_client
        http.get(client.uri, timeout=_ANSWER_WITHIN).raise_for_status()


def address_of(client: BaseClient) -> str:
    """The address of a server, without a key."""
    return str(client.uri).partition("?")[0]


def _knock(uri: str) -> None:
    """Fail soon where nobody answers."""
    parts = urlsplit(uri)
    httpx.get(f"{parts.scheme}://{parts.netloc}/healthz", timeout=_ANSWER_WITHIN)


# Documents in ----------------------------------------------------------------------------------


class TiledPublisher:
    """Writes runs into a Tiled catalog; a callable for (name, document).

    Any number of runs at a time. Each has a writer of its own, which goes with its stop document.

    Parameters
    ----------
    client : Tiled client
    batch_size : int, optional
        How many events are sent together. None: as many as a slab has (the start key
        ``slab_rows`` of a derived run), so that every slab is readable as soon as its documents
        are here, at the price of one request; a few dozen for other runs.
    """

    def __init__(self, client: BaseClient, batch_size: int | None = None) -> None:
        self._client = client
        self._batch_size = batch_size
        self._writers: dict[str, TiledWriter] = {}
        self._run_of: dict[str, str] = {}

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document.

        Raises
        ------
        PublishError
            Tiled did not take it.
        """
        run_uid = self._run_uid(name, doc)
        derived = name == "start" and is_derived(doc)
        if derived:
            doc = as_private_as_raw(self._client, doc)
        try:
            if name == "start":
                # Arrays in events go to files, never into the table: it would make text of them.
                self._writers[run_uid] = TiledWriter(
                    self._client,
                    normalizer=PromptPreviews,
                    batch_size=self._batch_size_of(doc),
                    max_array_size=0,
                )
            for part in _in_two(doc) if name == "stream_datum" else [doc]:
                self._writers[run_uid](name, part)
        except Exception as error:
            self._forget(run_uid)
            raise kind_of(error)(
                f"run {run_uid}: expected Tiled to take the {name!r} document, got "
                f"{in_words(error)}; {what_to_do(error)}"
            ) from error
        if derived:
            check_privacy(self._client, doc)
        if name == "stop":
            self._forget(run_uid)
        elif "uid" in doc and name in ("descriptor", "resource", "stream_resource"):
            self._run_of[doc["uid"]] = run_uid

    def _batch_size_of(self, start_doc: Mapping[str, Any]) -> int:
        if self._batch_size is not None:
            return self._batch_size
        return int(start_doc.get("slab_rows", 1)) if is_derived(start_doc) else _BATCH

    def _run_uid(self, name: str, doc: Mapping[str, Any]) -> str:
        if name == "start":
            return str(doc["uid"])
        for key in ("run_start", "descriptor", "resource"):
            if key in doc:
                return self._run_of.get(doc[key], doc[key])
        raise PublishError(f"expected a document of a run, got a {name!r} that belongs to none")

    def _forget(self, run_uid: str) -> None:
        self._writers.pop(run_uid, None)
        for uid in [uid for uid, owner in self._run_of.items() if owner == run_uid]:
            del self._run_of[uid]


def _in_two(stream_datum: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The last point of a stream_datum apart from those before it.

    A TiledWriter that sends in batches keeps the first stream_datum in any case, and looks at the
    size of the batch when the next one comes. In two parts, a whole batch leaves at once.
    """
    first, second = dict(stream_datum), dict(stream_datum)
    for key in ("indices", "seq_nums"):
        start, stop = stream_datum[key]["start"], stream_datum[key]["stop"]
        first[key] = {"start": start, "stop": stop - 1}
        second[key] = {"start": stop - 1, "stop": stop}
    first["uid"] = f"{stream_datum['uid']}/first"
    return [part for part in (first, second) if part["indices"]["start"] < part["indices"]["stop"]]


# Runs out --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attempt:
    """One derived run of a derivation; `exit_status` is None until its stop document is there."""

    uid: str
    attempt: int
    exit_status: str | None


def attempts(client: BaseClient, derivation: str) -> list[Attempt]:
    """The attempts at a derivation, in their order. The final version is the one that succeeded.

    Parameters
    ----------
    client : Tiled client
    derivation : str
        See `documents.derivation_of`.
    """
    with explain_request("Tiled to say which runs it has"):
        found = [run.metadata for run in _search(client, Eq("start.derivation", derivation))]
    return sorted(
        (
            Attempt(
                md["start"]["uid"],
                md["start"]["attempt"],
                (md.get("stop") or {}).get("exit_status"),
            )
            for md in found
        ),
        key=lambda attempt: attempt.attempt,
    )


def unsuccessful(client: BaseClient, derivation: str) -> list[tuple[dict[str, Any], bool]]:
    """Start documents of the attempts that failed or have no stop document, and if they have one.

    Attempts at a raw run that ended early, which are as good as they can be, are not among them.
    """
    with explain_request("Tiled to say which runs it has"):
        found = [run.metadata for run in _search(client, Eq("start.derivation", derivation))]
    return [
        (dict(md["start"]), bool(md.get("stop")))
        for md in found
        if (md.get("stop") or {}).get("exit_status") in (None, "fail")
    ]


def final_version(client: BaseClient, derivation: str) -> str | None:
    """Uid of the attempt at a derivation that succeeded; None where none did yet."""
    return next((a.uid for a in attempts(client, derivation) if a.exit_status == "success"), None)


def may_hold_rows_twice(client: BaseClient, uid: str) -> bool:
    """Whether a connection broke while Tiled took rows of a run.

    TiledWriter then sends the rows again, whether Tiled has them or not, and notes it in the run.
    """
    with explain_request(f"Tiled to say what it has of run {uid}"):
        notes = client[uid].metadata.get("notes") or ()
    return any("forcing a retry" in note for note in notes)


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
        raw = client.search(KeyPresent(f"start.{ORIGINAL_RUN}", exists=False))
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


# Runs away -------------------------------------------------------------------------------------


def remove_derived_run(client: BaseClient, uid: str) -> Path | None:
    """Remove a run that we derived, and the file of its slices.

    Tiled leaves the files of registered data alone when their node is removed, which is right for
    raw data and would pile up volumes here.

    Parameters
    ----------
    client : Tiled client
        That may write.
    uid : str
        Of the derived run.

    Returns
    -------
    Path or None
        The file that was removed; None where there was none.

    Raises
    ------
    PublishError
        A raw run, a run or a file that is not ours, or no permission.
    """
    run = find_run(client, uid)
    start = run.metadata["start"]
    if not is_derived(start) or SPEC["name"] not in {spec.name for spec in run.specs}:
        raise PublishError(
            f"run {start['uid']}: expected a run that tomogan_bluesky derived from another, got "
            f"one of plan {start.get('plan_name', 'unknown')!r}; only derived runs can be computed "
            "again, so nothing else is removed"
        )
    files = sorted(path for path in _files(run) if path.exists())
    for path in files:
        owner = owner_of(path)
        if owner != start["uid"]:
            raise PublishError(
                f"{path}: expected the slices of run {start['uid']}, got a file of "
                f"{owner or 'somebody else'}; a file that this package did not write for this run "
                "is left alone: remove it by hand"
            )
    # Node first: slices without a node are waste, a node without slices is broken.
    remove_node(client, start["uid"])
    for path in files:
        try:
            path.unlink()
        except OSError as error:
            raise PublishError(
                f"{path}: run {start['uid']} is removed from the catalog, but its file could not "
                f"be ({error.strerror}); remove it by hand"
            ) from error
    return files[0] if files else None


def remove_node(client: BaseClient, uid: str) -> None:
    """Remove a run from a catalog; files that are registered with it stay.

    Raises
    ------
    PublishError
    """
    with explain_request(f"Tiled to remove run {uid}"):
        client[uid].delete(recursive=True, external_only=False)


def _files(run: Any) -> set[Path]:
    """Local files that are registered with a run."""
    if STREAM not in run:
        return set()
    stream = run[STREAM].base
    uris = {
        asset.data_uri
        for key in stream
        for source in stream[key].data_sources() or ()
        if source.management == "external"
        for asset in source.assets
    }
    return {path for uri in uris if (path := path_of(uri)) is not None}
