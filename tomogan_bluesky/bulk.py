"""Many archived runs, on one machine or on a cluster.

Enter: a query for raw runs, and what to do with each. Leave: an `Outcome` for each of them. A run
whose final version is there is found and not computed again, so that the same order may be given
any number of times.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import dask
from tiled.queries import KeyPresent

from .callback import TomoGANCallback
from .config import Settings, plan_settings
from .errors import ModelError
from .publish.catalog import attempts
from .publish.explain import explain_request
from .publish.identity import ORIGINAL_RUN
from .publish.place import opened
from .publish.publishers import Publishers
from .publish.query import parse_query, raw_runs, start_of
from .replaying import replay
from .report import RunRecord, RunReport
from .run.derivation import Derivation
from .run.engine import Engine

if TYPE_CHECKING:
    from dask.distributed import Client

# How often a run is tried again whose worker was lost, or whose catalog could not be read.
_RETRIES = 3


@dataclass(frozen=True)
class Order:
    """What to do with each run. It travels to other machines, and holds no secrets.

    Attributes
    ----------
    source, target : str
        Where the raw runs are and where the derived ones go: a catalog's folder, or the address
        or profile of a Tiled server, whose key is in the environment of each worker.
    model : str or None
    settings : Settings
    device : str
    again : bool
    """

    source: str
    target: str
    model: str | None
    settings: Settings
    device: str = "auto"
    again: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of one raw run.

    Attributes
    ----------
    raw_uid : str
    report : RunReport or None
        None where it is no tomography scan, or where nothing could be done.
    error : str
        Why nothing could be done.
    seconds : float
        From its first document to its derived run.
    """

    raw_uid: str
    report: RunReport | None = None
    error: str = ""
    seconds: float = 0.0

    @property
    def status(self) -> str:
        """In a word or two: "success", "there already", "no scan", "abort", "fail"."""
        if self.report is None:
            return "fail" if self.error else "no scan"
        return "there already" if self.report.already_done else self.report.exit_status

    @property
    def failed(self) -> bool:
        return self.status in ("fail", "abort")

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        report = None if self.report is None else self.report.as_dict()
        return {**asdict(self), "report": report, "status": self.status}


def find_runs(source: str, queries: Sequence[str]) -> list[str]:
    """Uids of the raw runs that answer all queries and have ended, the oldest first.

    Parameters
    ----------
    source : str
        As in `Order`.
    queries : sequence of str
        See `parse_query`.

    Raises
    ------
    ConfigurationError
        A query that is none.
    PublishError
        The catalog cannot be asked.
    """
    query = parse_query(queries)
    with opened(source) as (client, _), explain_request("Tiled to say which runs it has"):
        found: Any = client
        for condition in (
            KeyPresent(f"start.{ORIGINAL_RUN}", exists=False),
            KeyPresent("stop.exit_status"),
        ):
            found = found.search(condition)
        return [str(start_of(run)["uid"]) for run in raw_runs(found, query)]


def unfinished(order: Order, raw_uids: Sequence[str]) -> list[str]:
    """Those of some raw runs for which there is no final version of an order.

    Of a raw run that ended early, a derived run that is complete as far as it goes is one.

    Raises
    ------
    TomoGANError
        A catalog cannot be reached, or a run asks for settings that there are not.
    """
    left = []
    with opened(order.source) as (source, _), opened(order.target, must_exist=False) as (target, _):
        engine = Engine(Publishers(target), order.model, order.settings, device=order.device)
        for uid in raw_uids:
            with explain_request(f"Tiled to show run {uid}"):
                start_doc, streams = source[uid].metadata["start"], set(source[uid])
            settings = order.settings.for_plan(plan_settings(start_doc), engine.plan_wins)
            derivation = Derivation(engine, settings, RunRecord(uid), start_doc)
            with suppress(ModelError):  # which the replay will tell
                derivation.load()
            scan = settings.scan
            own = all(streams.intersection(s) for s in (scan.dark_streams, scan.flat_streams))
            known = attempts(target, derivation.identify(own))
            if not any(attempt.is_complete for attempt in known):
                left.append(uid)
        engine.publishers.close()
    return left


def replay_one(order: Order, raw_uid: str) -> Outcome:
    """Replay one run, in this process.

    Raises
    ------
    TomoGANError
        A catalog cannot be reached, or has no such run.
    """
    started = time.monotonic()
    settings = order.settings
    with (
        # Tiled's arrays are read by dask, which in a worker of a cluster would ask the cluster for
        # it, and wait for itself.
        dask.config.set(scheduler="threads"),
        opened(order.source) as (source, _),
        opened(order.target, must_exist=False) as (target, volumes),
    ):
        publishing = settings.publishing
        if volumes is not None:  # what else a profile names, the catalog's own server can't read
            publishing = publishing.model_copy(update={"directory": volumes})
        with (
            explain_request(f"Tiled to show run {raw_uid}"),
            TomoGANCallback(
                target,
                order.model,
                scan=settings.scan,
                reconstruction=settings.reconstruction,
                denoising=settings.denoising,
                publishing=publishing,
                worker="thread",  # a worker of the cluster is a process already
                device=order.device,
                again=order.again,
            ) as callback,
        ):
            reports = replay(source[raw_uid], callback)
    seconds = time.monotonic() - started
    return Outcome(raw_uid, reports[0] if reports else None, seconds=seconds)


def replay_here(order: Order, raw_uids: Sequence[str]) -> Iterator[Outcome]:
    """Replay runs one after the other, in this process; an error ends one of them, not all."""
    for uid in raw_uids:
        try:
            yield replay_one(order, uid)
        except Exception as error:
            yield Outcome(uid, error=_in_words(error))


def replay_on(cluster: "Client", order: Order, raw_uids: Sequence[str]) -> Iterator[Outcome]:
    """Replay runs on a dask cluster, each on one of its workers, in whatever order they end.

    A run whose worker is lost, or whose catalog did not answer, is tried again on another.
    """
    from dask.distributed import as_completed

    futures = {
        cluster.submit(replay_one, order, uid, pure=False, retries=_RETRIES): uid
        for uid in raw_uids
    }
    for future in as_completed(futures, loop=cluster.loop):
        error = future.exception()
        yield future.result() if error is None else Outcome(futures[future], error=_in_words(error))


def _in_words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
