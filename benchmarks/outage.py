"""A Tiled server is away while scans go on: is anything lost, and how soon is it used again?

    python benchmarks/outage.py [--seconds 60] [--cases …] [--quick] [--json]

Cases:

- publishing: a real RunEngine scans a simulated sample again and again, with the callback in its
  default way; the Tiled server, a process of its own, gets SIGKILL in the middle of a scan, and is
  started again, on the same catalog and port, after so many seconds. Then every scan must have its
  one final version, with the bits of an undisturbed one, and nothing may be left in the spool.
- zmq, nats, tiled: what `tomogan-bluesky serve` receives from (bluesky's proxy, a NATS server, a
  Tiled server) is killed and started again, some times: seconds from the moment at which it takes
  connections to the one at which it is used.

The exit code is 1 where something is wrong, or something was not used again within 5 s.
"""

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bluesky import RunEngine
from kill import digest, make_beamline, scan
from tiled.queries import KeyPresent

from tomogan_bluesky import PublishingConfig, ReconstructionConfig, TomoGANCallback, WorkerConfig
from tomogan_bluesky.publish.catalog import attempts
from tomogan_bluesky.publish.connection import connect
from tomogan_bluesky.publish.spool import Spool, default_folder
from tomogan_bluesky.report import RunReport
from tomogan_bluesky.serving.inbox import Inbox, Source

Figures = list[tuple[str, float, str]]

# Seconds within which a peer that is back has to be used again.
GOAL_S = 5.0
LATE = "not within 5 s"
# Seconds after which somebody has waited in vain.
ENOUGH_S = 300.0

PROXY = """
import sys
from bluesky.callbacks.zmq import Proxy
Proxy(("127.0.0.1", int(sys.argv[1])), ("127.0.0.1", int(sys.argv[2]))).start()
"""


class Peer:
    """A process that listens at a port, and can be killed and started again."""

    def __init__(self, command: Callable[[int], list], log: Path) -> None:
        self.port = free_port()
        self._command, self._log = command, log
        self._process: subprocess.Popen | None = None
        self.start()

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        command = [str(part) for part in self._command(self.port)]
        with self._log.open("a") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        until(self._listens)

    def kill(self) -> None:
        """Without a chance to say good-bye."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def free_port() -> int:
    """One that nobody listens at, below those that the system gives to outgoing connections.

    Such a one could take it while its peer is away, even by connecting to it.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port


def until(true: Callable[[], object]) -> float:
    """Seconds until something is true."""
    start = time.perf_counter()
    while not true():
        if time.perf_counter() - start > ENOUGH_S:
            raise SystemExit("waited in vain; see the log")
        time.sleep(0.05)
    return time.perf_counter() - start


@contextmanager
def peer(command: Callable[[int], list], folder: Path) -> Iterator[Peer]:
    """A peer that ends with the block."""
    started = Peer(command, folder / "peer.log")
    try:
        yield started
    finally:
        started.kill()


def catalog_command(folder: Path) -> Callable[[int], list]:
    """A Tiled server on a folder; its key goes into the environment."""
    catalog = folder / "catalog"
    catalog.mkdir(exist_ok=True)
    os.environ["TILED_API_KEY"] = "f" * 64
    (catalog / "api_key").write_text(os.environ["TILED_API_KEY"])
    package = [sys.executable, "-m", "tomogan_bluesky"]
    return lambda port: [*package, "serve-catalog", catalog, "--port", port]


# Publishing ------------------------------------------------------------------------------------


def publishing(folder: Path, seconds: float, times: int) -> Figures:
    """Metric, value and unit; what ought to be 0 has no unit."""
    with peer(catalog_command(folder), folder) as tiled:
        uri = f"http://127.0.0.1:{tiled.port}"
        RE, killed, back = RunEngine(), threading.Event(), threading.Event()
        with TomoGANCallback(
            uri,
            reconstruction=ReconstructionConfig(slab_rows=1),
            publishing=PublishingConfig(directory=folder / "catalog" / "volumes"),
            worker=WorkerConfig(nice=0),  # this is about what is lost, not about what is slowed
        ) as callback:
            RE.subscribe(callback)
            RE(scan(make_beamline()))
            (undisturbed,) = callback.wait()
            if undisturbed.exit_status != "success":
                raise SystemExit(f"the undisturbed scan failed: {undisturbed.reason}")

            def come_back() -> None:
                killed.wait()
                time.sleep(seconds)
                tiled.start()
                back.set()

            watch = threading.Thread(target=come_back)
            watch.start()

            def kill(name: str, doc: dict) -> None:
                if name == "event" and doc["seq_num"] > 20 and not killed.is_set():
                    tiled.kill()
                    killed.set()

            uids: list[str] = []
            RE.subscribe(kill)
            RE.subscribe(lambda name, doc: uids.append(doc["uid"]), "start")
            while not back.is_set():
                RE(scan(make_beamline()))
                time.sleep(max(2.0, seconds / 30))  # some scans, not thousands
            client, spool = connect(uri), Spool(default_folder(), 1)
            ended = client.search(KeyPresent("stop.exit_status"))
            first_s = until(lambda: len(ended) > 1)  # one was there before
            RE(scan(make_beamline()))  # as if nothing had been
            reports = {report.raw_uid: report for report in callback.wait(ENOUGH_S)}
            all_s = first_s + until(lambda: not spool.waiting())
            watch.join()
            client.context.close()
        return [
            ("outage", seconds, "s"),
            ("scans meanwhile", len(uids) - 1, "scans"),
            ("derived runs that waited", sum(r.spooled for r in reports.values()), "runs"),
            ("server is back to its first run", first_s, "s"),
            ("server is back to all runs", all_s, "s"),
            *faults(uri, uids, reports, undisturbed),
            ("runs left in the spool", len(spool.waiting()), ""),
        ]


def faults(
    uri: str, uids: list[str], reports: dict[str, RunReport], undisturbed: RunReport
) -> Figures:
    """How many scans have what they ought not to have."""
    wrong = dict.fromkeys(("reports", "derived runs", "volumes", "final versions"), 0)
    client = connect(uri)
    expected = digest(client[undisturbed.derived_uid])
    for uid in uids:
        report = reports.get(uid)
        if report is None or report.exit_status != "success":
            wrong["reports"] += 1
            print(f"run {uid}: {report and report.reason}", file=sys.stderr)
            continue
        derived = client.get(report.derived_uid)
        if derived is None or (derived.metadata["stop"] or {}).get("exit_status") != "success":
            wrong["derived runs"] += 1
            continue
        wrong["volumes"] += digest(derived) != expected
        known = attempts(client, derived.metadata["start"]["derivation"])
        wrong["final versions"] += [a.exit_status for a in known] != ["success"]
    client.context.close()
    return [(f"{what} wrong", number, "") for what, number in wrong.items()]


# Serve -----------------------------------------------------------------------------------------


def zmq(folder: Path, seconds: float, times: int) -> Figures:
    """Bluesky's proxy."""
    from tomogan_bluesky.serving.zmq import ZmqSource

    with peer(lambda port: [sys.executable, "-c", PROXY, free_port(), port], folder) as proxy:
        return again(proxy, ZmqSource(str(proxy.port)), times)


def nats(folder: Path, seconds: float, times: int) -> Figures:
    """A NATS server with JetStream."""
    from tomogan_bluesky.serving.nats import NatsSource

    program = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin")
    if program is None:
        print("nats: left out, for there is no nats-server (a package of Debian)", file=sys.stderr)
        return []
    options = ["-a", "127.0.0.1", "-js", "-sd", folder / "nats"]
    with peer(lambda port: [program, *options, "-p", port], folder) as broker:
        url = f"nats://127.0.0.1:{broker.port}"
        make_stream(url)
        return again(broker, NatsSource(url, "events.volatile", "tomogan", None), times)


def make_stream(url: str) -> None:
    """The stream that bluesky-nats publishes to."""
    import asyncio

    from nats.aio.client import Client

    async def make() -> None:
        client = Client()
        await client.connect(url)
        await client.jetstream().add_stream(name="bluesky", subjects=["events.>"])
        await client.close()

    asyncio.run(make())


def tiled(folder: Path, seconds: float, times: int) -> Figures:
    """A Tiled server that is watched."""
    from tomogan_bluesky.serving.tiled_watch import TiledSource

    with peer(catalog_command(folder), folder) as server:
        return again(server, TiledSource(f"http://127.0.0.1:{server.port}", 3600.0), times)


def again(server: Peer, source: Source, times: int) -> Figures:
    """Kill what a source is connected to, and see how soon it is used when it is back."""
    source.start(Inbox(1 << 20))
    took = []
    try:
        until(lambda: source.connected)
        for n in range(times):
            server.kill()
            until(lambda: not source.connected)
            time.sleep(0.7 * n)  # so that it comes back at different moments of a source's wait
            server.start()
            took.append(until(lambda: source.connected))
    finally:
        source.close()
    return [
        ("kills", times, "kills"),
        ("used again after, mean", sum(took) / times, "s"),
        ("used again after, longest", max(took), "s"),
        (LATE, sum(t > GOAL_S for t in took), ""),
    ]


CASES = {"publishing": publishing, "zmq": zmq, "nats": nats, "tiled": tiled}


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of the outage (60)")
    parser.add_argument("--times", type=int, default=5, help="kills of what serve is fed by (5)")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--quick", action="store_true", help="1.5 s, and one kill of each")
    parser.add_argument("--json", action="store_true", help="one object a line")
    arguments = parser.parse_args()
    seconds, times = (1.5, 1) if arguments.quick else (arguments.seconds, arguments.times)
    wrong = False
    for case in arguments.cases:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["XDG_STATE_HOME"] = f"{folder}/state"
            figures = CASES[case](Path(folder), seconds, times)
        for metric, value, unit in figures:
            row = {"benchmark": "outage", "case": case, "method": "process", "metric": metric}
            if arguments.json:
                print(json.dumps({**row, "value": value, "unit": unit}), flush=True)
            else:
                print(f"{case:<12}{metric:<34}{value:>10.4g} {unit}", flush=True)
            # A short look on a busy machine says nothing of times.
            wrong |= bool(value) and not unit and not (arguments.quick and metric == LATE)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
