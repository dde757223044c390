"""`tomogan-bluesky serve`: the engine on another machine, fed from a network."""

import argparse
import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .scan_options import model_named

if TYPE_CHECKING:
    from ..report import RunReport
    from ..serving.inbox import Source

PRINTS_REPORTS = True

_EXAMPLES = """\
examples:
  tomogan-bluesky serve --zmq 5578 --publish http://localhost:8000
      documents from a bluesky 0MQ proxy of this machine; its publishers need a serializer:
      Publisher("localhost:5577", serializer=tomogan_bluesky.serving.messages.pack)
  tomogan-bluesky serve --tiled http://localhost:8000 --directory /data/derived
      each raw run when it has ended, no proxy needed
  tomogan-bluesky serve --zmq 5578 --tiled http://localhost:8000
      live from the proxy, and what was lost there from Tiled
  tomogan-bluesky serve --tiled http://localhost:8000 --device cuda:1 --share 2/2
      the second of two servers that share the runs
  tomogan-bluesky serve --nats nats://daq.example.org:4222 --publish https://tiled.example.org
      from a broker that keeps what was not worked off; start it on as many machines as you like
  tomogan-bluesky serve --zmq daq.example.org:5578 --curve-secret me.key_secret \\
      --curve-server proxy.key --publish https://tiled.example.org
      from another machine: with keys alone

The key of the Tiled server is taken from the environment variable TILED_API_KEY. Ctrl-C and SIGTERM
end it after the run at hand, a second one at once.
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "serve",
        help="reconstruct and denoise scans as they come over a network",
        description="Reconstruct and denoise the scans whose documents come over a network, as the "
        "callback does beside a RunEngine.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sources = parser.add_argument_group("where the documents come from")
    sources.add_argument(
        "--zmq", metavar="HOST:PORT", help="out-address of a 0MQ proxy; a port is of this machine"
    )
    sources.add_argument(
        "--nats", metavar="URL", help="a NATS server that bluesky-nats publishes to"
    )
    sources.add_argument(
        "--nats-subject",
        default="events.volatile",
        metavar="S",
        help="subject of the documents, without their names (events.volatile)",
    )
    sources.add_argument(
        "--nats-credentials", type=Path, metavar="FILE", help="credentials for NATS"
    )
    sources.add_argument(
        "--kafka", metavar="SERVERS", help="Kafka servers that bluesky-kafka publishes to"
    )
    sources.add_argument(
        "--kafka-topic",
        action="append",
        metavar="T",
        help="topic of documents; may be repeated",
    )
    sources.add_argument(
        "--kafka-config", type=Path, metavar="FILE", help="settings of librdkafka in YAML"
    )
    sources.add_argument(
        "--group",
        default="tomogan",
        metavar="NAME",
        help="servers of one group share the runs of a broker (tomogan)",
    )
    sources.add_argument(
        "--tiled", metavar="URI", help="address or profile of a Tiled server with raw runs"
    )
    sources.add_argument("--prefix", default="", help="take only 0MQ messages with this prefix")
    sources.add_argument("--curve-secret", type=Path, metavar="FILE", help="our secret CURVE key")
    sources.add_argument("--curve-server", type=Path, metavar="FILE", help="the proxy's public key")
    sources.add_argument(
        "--max-message-mib", type=int, default=256, metavar="N", help="refuse larger ones (256)"
    )
    sources.add_argument(
        "--since-hours",
        type=float,
        default=24.0,
        metavar="H",
        help="work off what ended in Tiled up to so long before (24)",
    )
    where = parser.add_argument_group("what is done, and where it goes")
    where.add_argument(
        "--publish",
        metavar="URI",
        help="address or profile of the Tiled server of derived runs (default: that of --tiled)",
    )
    where.add_argument(
        "--directory", type=Path, metavar="DIR", help="folder of HDF5 files that Tiled can read"
    )
    where.add_argument("--profile", type=Path, metavar="FILE", help="settings of a beamline")
    where.add_argument("--model", help="name or path of a model, or none")
    where.add_argument("--device", default=None, help="auto, cpu, cuda, cuda:1, …")
    where.add_argument(
        "--allow-root",
        type=Path,
        action="append",
        metavar="DIR",
        help="read the files that documents refer to from here alone; may be repeated",
    )
    where.add_argument(
        "--share",
        type=share,
        default=(1, 1),
        metavar="I/N",
        help="work off the I-th of N parts of the runs: one process a GPU",
    )
    where.add_argument(
        "--memory-gib", type=float, default=4.0, metavar="G", help="of documents that wait (4)"
    )
    parser.add_argument(
        "--metrics-port", type=int, metavar="N", help="serve numbers for Prometheus on this port"
    )
    parser.add_argument("--json", action="store_true", help="print each report as a line of JSON")
    return parser


def share(text: str) -> tuple[int, int]:
    """Parse "I/N"."""
    index, _, of = text.partition("/")
    try:
        pair = int(index), int(of)
        if not 1 <= pair[0] <= pair[1]:
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a part of the runs as I/N with 1 <= I <= N, for example 1/4, got {text!r}"
        ) from None
    return pair


def run(args: argparse.Namespace) -> int:
    from ..serving.server import Server, Share
    from ..serving.status import StatusLine

    sources = _sources(args)
    status = StatusLine(sys.stderr)
    told: list[Callable[[RunReport], object]] = [status.count]

    def tell(report: "RunReport") -> None:
        for each in told:
            each(report)

    with ExitStack() as stack:
        callback = stack.enter_context(_callback(args))
        server = Server(
            callback,
            sources,
            share=Share(*args.share),
            inbox_bytes=int(args.memory_gib * 2**30),
            on_report=tell,
            on_tick=status.show,
        )
        if args.metrics_port is not None:
            metrics = _metrics(server, _profile(args).publishing)
            told.append(metrics.record)
            stack.enter_context(metrics.served(args.metrics_port))
        told.append(lambda report: _tell(report, args.json))  # who reads it finds it counted
        handlers = {
            number: signal.signal(number, lambda *_: server.end())
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            server.run()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            status.end()
    return 0


@contextmanager
def _installed(extra: str) -> Iterator[None]:
    from ..errors import BackendUnavailableError

    try:
        yield
    except ImportError as error:
        raise BackendUnavailableError(
            f"expected the package for --{extra}, got: {error}; "
            f"pip install 'tomogan_bluesky[{extra}]'"
        ) from error


def _sources(args: argparse.Namespace) -> "list[Source]":
    from ..errors import ConfigurationError

    sources: list[Source] = []
    if args.zmq:
        with _installed("zmq"):
            from ..serving.zmq import ZmqSource
        if (args.curve_secret is None) != (args.curve_server is None):
            raise ConfigurationError(
                "expected both --curve-secret and --curve-server, or none of them, got one"
            )
        curve = (args.curve_secret, args.curve_server) if args.curve_secret else None
        sources.append(ZmqSource(args.zmq, args.prefix, curve, args.max_message_mib << 20))
    if (args.nats or args.kafka) and args.share != (1, 1):
        raise ConfigurationError(
            "expected --share for --zmq and --tiled alone; the servers of a --group share the runs "
            "of a broker"
        )
    if args.kafka:
        with _installed("kafka"):
            from ..serving.kafka import KafkaSource

        if not args.kafka_topic:
            raise ConfigurationError("expected --kafka-topic with --kafka, got none")
        sources.append(KafkaSource(args.kafka, args.kafka_topic, args.group, args.kafka_config))
    if args.nats:
        with _installed("nats"):
            from ..serving.nats import NatsSource

        sources.append(NatsSource(args.nats, args.nats_subject, args.group, args.nats_credentials))
    if args.tiled:
        from ..serving.tiled_watch import TiledSource

        sources.append(TiledSource(args.tiled, args.since_hours * 3600))
    if not sources:
        raise ConfigurationError(
            "expected a source of documents, got none; give --zmq, --nats, --kafka or --tiled"
        )
    return sources


def _profile(args: argparse.Namespace) -> Any:
    from ..config import Profile, load_profile

    return load_profile(args.profile) if args.profile else Profile(version=1)


def _callback(args: argparse.Namespace) -> Any:
    from ..callback import TomoGANCallback
    from ..errors import ConfigurationError

    publish = args.publish or args.tiled
    if publish is None:
        raise ConfigurationError(
            "expected where derived runs go, got nothing; give --publish with the address of a "
            "Tiled server"
        )
    profile = _profile(args)
    # No scan runs beside this process for whom its worker would have to be nice.
    update: dict[str, Any] = {"nice": 0}
    if args.tiled or args.nats or args.kafka:
        # Where this process dies, the run comes again: nobody else may finish it.
        update["linger_s"] = 0.0
    options: dict[str, Any] = {"worker": profile.worker.model_copy(update=update)}
    if args.directory is not None:
        options["publishing"] = profile.publishing.model_copy(
            update={"directory": args.directory.absolute()}
        )
    options["model"] = model_named(args.model or profile.model or "none")
    if args.device is not None:
        options["device"] = args.device
    if args.allow_root and args.profile:
        raise ConfigurationError(
            "expected --allow-root or --profile, got both; the profile has scan.allowed_roots"
        )
    if args.allow_root:
        roots = tuple(root.absolute() for root in args.allow_root)
        options["scan"] = profile.scan.model_copy(update={"allowed_roots": roots})
    if args.profile:
        return TomoGANCallback.from_profile(args.profile, publish, **options)
    return TomoGANCallback(publish, **options)


def _metrics(server: Any, publishing: Any) -> Any:
    from ..publish.spool import Spool, default_folder

    with _installed("metrics"):
        from ..metrics import Metrics

    metrics = Metrics()
    inbox = server.inbox
    metrics.watch("waiting_documents", "Documents that wait", lambda: inbox.n_items)
    metrics.watch("waiting_bytes", "Size of the documents that wait", lambda: inbox.n_bytes)
    metrics.watch_worker(lambda: server.worker_state)
    spool = Spool(publishing.spool or default_folder(), publishing.spool_gib)
    metrics.watch("spool_bytes", "What waits on disk for Tiled", spool.used_bytes)
    metrics.watch("spool_runs", "Derived runs that wait for Tiled", lambda: len(spool.waiting()))
    metrics.watch("open_runs", "Runs that go on", lambda: len(server.open_runs))
    for source in server.sources:
        metrics.watch(
            "connected",
            "Whether a source of documents is there",
            partial(_connected, source),
            source=source.name,
        )
    return metrics


def _connected(source: "Source") -> float:
    return source.connected


def _tell(report: "RunReport", as_json: bool) -> None:
    if as_json:
        print(json.dumps(report.as_dict()), flush=True)
        return
    frames = report.frames
    text = f"{report.raw_uid}  {report.exit_status}  "
    text += (
        f"there already as {report.derived_uid}"
        if report.already_done
        else f"{frames.used} of {frames.expected} projections -> {report.derived_uid}"
    )
    print(text, flush=True)
    if report.reason:
        print(f"  {report.reason}", file=sys.stderr, flush=True)
