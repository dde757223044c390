"""The part of `tomogan-bluesky replay` that works off many runs: `--query`."""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..torch_environment import TORCH_ENVIRONMENT
from .scan_options import QUERY_HELP


def add_arguments(parser: argparse.ArgumentParser, which: Any) -> None:
    """Options of a replay of many runs; `which` is the group of what names the runs."""
    which.add_argument(
        "--query",
        nargs="+",
        action="extend",
        metavar="KEY=VALUE",
        help=f"all runs that answer: {QUERY_HELP}; may be repeated",
    )
    which.add_argument(
        "--resume",
        action="store_true",
        help="all runs that have no final version of these settings, as after a crash",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--dask", metavar="ADDRESS", help="on a dask cluster, such as tcp://host:8786"
    )
    where.add_argument("--workers", type=int, metavar="N", help="in N processes of this machine")


def run(args: argparse.Namespace, settings: Any, model: str | None, device: str) -> int:
    """Replay all runs that answer the query; 1 where one of them failed."""
    from tqdm import tqdm

    from ..bulk import Order, find_runs, replay_here, replay_on, unfinished
    from ..errors import ConfigurationError

    if args.remove:
        raise ConfigurationError(
            "--remove: expected one run, by its uid or scan_id, got --query or --resume; name them "
            "one by one"
        )
    source = str(args.catalog)
    queries = args.query or []
    uids = find_runs(source, queries)
    if not uids:
        print(f"no run answers {' and '.join(queries) or 'at all'}", file=sys.stderr)
        return 0
    order = Order(
        source, str(args.into or source), model, settings, device=device, again=args.again
    )
    if args.resume:
        uids = unfinished(order, uids)
    with _cluster(args) as cluster:
        outcomes = replay_here(order, uids) if cluster is None else replay_on(cluster, order, uids)
        done = []
        for outcome in tqdm(outcomes, total=len(uids), unit="run", desc="replay", disable=None):
            done.append(outcome)
            if args.json:
                print(json.dumps(outcome.as_dict()), flush=True)
    if not args.json:
        _print_table(sorted(done, key=lambda outcome: uids.index(outcome.raw_uid)))
    return 1 if any(outcome.failed for outcome in done) else 0


@contextmanager
def _cluster(args: argparse.Namespace) -> Iterator[Any]:
    """The cluster that was asked for; None: this process."""
    if args.dask is None and args.workers is None:
        yield None
        return
    from ..errors import BackendUnavailableError, ConfigurationError

    try:
        from dask.distributed import Client, LocalCluster
    except ImportError as error:
        raise BackendUnavailableError(
            f"expected dask.distributed, got: {error}; pip install 'tomogan_bluesky[dask]'"
        ) from error
    if args.dask is not None:
        try:
            client = Client(args.dask, timeout="10s", set_as_default=False)
        except OSError as error:
            raise ConfigurationError(
                f"--dask {args.dask}: expected a dask scheduler to answer, got: {error}"
            ) from error
        with client:
            yield client
        return
    if args.workers < 1:
        raise ConfigurationError(f"--workers: expected 1 or more, got {args.workers}")
    threads = max(1, (os.cpu_count() or 1) // args.workers)
    with (
        LocalCluster(
            n_workers=args.workers,
            threads_per_worker=1,  # one run at a time in each: torch has threads of its own
            env=TORCH_ENVIRONMENT | {"OMP_NUM_THREADS": str(threads)},
            dashboard_address=None,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def _print_table(outcomes: list[Any]) -> None:
    print(f"{'raw run':36}  {'status':13}  {'projections':>11}  {'s':>7}  derived run, or why not")
    for outcome in outcomes:
        report = outcome.report
        frames, told = "", outcome.error
        if report is not None:
            told = report.reason if outcome.failed else report.derived_uid
            if not report.already_done:
                frames = f"{report.frames.used}/{report.frames.expected}"
        what = f"{outcome.raw_uid:36}  {outcome.status:13}  {frames:>11}"
        print(f"{what}  {outcome.seconds:7.1f}  {told}")
    for outcome in outcomes:
        if outcome.report is not None and outcome.report.reason and not outcome.failed:
            print(f"note  {outcome.raw_uid}: {outcome.report.reason}")
    statuses = Counter(outcome.status for outcome in outcomes)
    print(", ".join(f"{n} {status}" for status, n in statuses.items()))
