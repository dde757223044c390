"""Kill the worker at random instants of scans, and see that nothing is lost and nothing is left.

    python benchmarks/kill.py --count 100 [--seed 0] [--json]

A real RunEngine scans a simulated sample; the worker process gets SIGKILL once a scan, at a random
instant: in turn before the end of the scan, and between that and the end of its derived run. Then:
the scan must have succeeded, the derived run must have become final, with the bits of an
undisturbed one, once; and in the end no file of a failed attempt, no process, no descriptor and no
run in the spool is left.
The exit code is 1 where anything of that is wrong.

Each kill is a line on standard error, with what it found. SIGTERM ends it after the kill at hand,
with the figures so far; a scan that is not worked off within --limit seconds counts as
wrong, and ends it, too.
"""

import argparse
import hashlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from bluesky import RunEngine

from tomogan_bluesky import PublishingConfig, ReconstructionConfig, TomoGANCallback, WorkerConfig
from tomogan_bluesky.publish.catalog import attempts
from tomogan_bluesky.publish.server import serve_catalog
from tomogan_bluesky.recon.beam import Beam
from tomogan_bluesky.recon.phantoms import make_phantom
from tomogan_bluesky.report import RunReport
from tomogan_bluesky.sim.beamline import SimBeamline
from tomogan_bluesky.sim.plans import Plan, tomo_scan

ANGLES_DEG = np.linspace(0.0, 180.0, 61)
COLUMNS, ROWS = 64, 4


def make_beamline() -> SimBeamline:
    """One sample, one noise."""
    phantom = make_phantom("foam", 2 * COLUMNS, np.random.default_rng(1), ROWS)
    return SimBeamline(phantom, ANGLES_DEG, Beam(), rotation_centre=32.2)


def scan(beamline: SimBeamline) -> Plan:
    """The plan of a scan."""
    return tomo_scan(
        beamline.camera,
        beamline.rotation,
        beamline.shutter,
        beamline.sample,
        ANGLES_DEG,
        n_darks=2,
        n_flats=2,
    )


class Killer(threading.Thread):
    """Kills the worker once, some seconds after it was started."""

    def __init__(self, callback: TomoGANCallback, after_s: float) -> None:
        super().__init__(daemon=True)
        self._callback = callback
        self._after_s = after_s
        self.killed_at: float | None = None
        self.start()

    def run(self) -> None:
        """Wait, then kill."""
        time.sleep(self._after_s)
        pid = self._callback.worker_pid
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            self.killed_at = time.perf_counter()


def digest(run: Any) -> str:
    """Sha256 of the volumes of a derived run."""
    sha = hashlib.sha256()
    for key in ("reconstruction", "denoised"):
        sha.update(np.ascontiguousarray(run["primary"][key].read()).tobytes())
    return sha.hexdigest()


def children() -> list[str]:
    """The commands of all child processes that run our worker."""
    found = []
    for file in Path("/proc/self/task").glob("*/children"):
        for pid in file.read_text().split():
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            if "tomogan_bluesky.worker" in command:
                found.append(command)
    return found


def shared_memory() -> list[str]:
    """Descriptors of memory that was shared with a worker."""
    links = []
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one of this very look
            links.append(os.readlink(path))
    return [link for link in links if "tomogan-" in link and "memfd" in link]


class Tally:
    """What was found so far."""

    def __init__(self) -> None:
        names = ("scans", "reports", "derived runs", "volumes", "final versions")
        self.wrong = dict.fromkeys(names, 0)
        self.killed = self.during_scan = 0
        self.seconds: list[float] = []
        self.ending = threading.Event()

    def tell(self, number: int, count: int) -> None:
        """One line on standard error."""
        found = ", ".join(f"{n} {what} wrong" for what, n in self.wrong.items() if n)
        print(
            f"{time.strftime('%H:%M:%S')} kill {number} of {count}: {self.seconds[-1]:.1f} s, "
            f"{self.killed} killed, {self.during_scan} of them while scanning; "
            f"{found or 'nothing wrong'}",
            file=sys.stderr,
            flush=True,
        )


def measure(count: int, seed: int, limit_s: float, folder: str) -> list[tuple[str, float, str]]:
    """Metric, value and unit of each figure; one that ought to be 0 has no unit."""
    rng = np.random.default_rng(seed)
    os.environ["XDG_STATE_HOME"] = f"{folder}/state"
    tally = Tally()
    signal.signal(signal.SIGTERM, lambda *_: tally.ending.set())
    wrong = tally.wrong
    with serve_catalog(f"{folder}/catalog") as server:
        os.environ["TILED_API_KEY"] = server.api_key
        client = server.client()
        RE = RunEngine()
        callback = TomoGANCallback(
            server.uri,
            reconstruction=ReconstructionConfig(slab_rows=1),
            publishing=PublishingConfig(directory=server.volumes),
            worker=WorkerConfig(nice=0),  # this is about what is left, not about what is slowed
        )
        RE.subscribe(callback)

        def one() -> tuple[str, RunReport, float, float]:
            plan = scan(make_beamline())  # anew: its noise is the same in each scan
            start = time.perf_counter()
            RE(plan)
            scanned = time.perf_counter()
            (report,) = callback.wait(limit_s)
            return report.raw_uid, report, scanned, time.perf_counter() - start

        try:
            first = one()[1].derived_uid  # starts the worker
            started = time.perf_counter()
            _, report, scanned, span = one()
            scan_s = scanned - started
            if report.exit_status != "success":
                raise SystemExit(f"the undisturbed scan failed: {report.reason}")
            expected = digest(client[report.derived_uid])
            finals = {first, report.derived_uid}
            for number in range(count):
                if tally.ending.is_set():
                    break
                instants = (scan_s, span) if number % 2 else (0, scan_s)
                killer = Killer(callback, rng.uniform(*instants))
                try:
                    uid, report, scanned, took = one()
                except TimeoutError as error:
                    wrong["reports"] += 1
                    print(error, file=sys.stderr)
                    break
                killer.join()
                tally.killed += killer.killed_at is not None
                tally.during_scan += (killer.killed_at or np.inf) < scanned
                tally.seconds.append(took)
                wrong["scans"] += report.raw_uid != uid
                if report.exit_status != "success":
                    wrong["derived runs"] += 1
                    print(f"run {uid}: {report.reason}", file=sys.stderr)
                else:
                    derived = client[report.derived_uid]
                    wrong["volumes"] += digest(derived) != expected
                    found = attempts(client, derived.metadata["start"]["derivation"])
                    wrong["final versions"] += [a.exit_status for a in found] != ["success"]
                    finals.add(report.derived_uid)
                tally.tell(number + 1, count)
        finally:
            with suppress(TimeoutError):
                callback.close(limit_s)
        files = {path.stem for path in server.volumes.rglob("*.h5")}
    left = {
        "files left": len(files - finals),
        "processes left": len(children()),
        "pieces of shared memory left": len(shared_memory()),
        "runs in the spool": len(list(Path(folder).glob("state/*/spool/*/about.json"))),
    }
    return [
        ("kills", tally.killed, "kills"),
        ("kills while scanning", tally.during_scan, "kills"),
        ("undisturbed scan and derived run", span, "s"),
        ("with a kill, median", float(np.median(tally.seconds or [np.nan])), "s"),
        *((f"{name} wrong", n, "") for name, n in wrong.items()),
        *((name, n, "") for name, n in left.items()),
    ]


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20, help="how many kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=900.0, metavar="S", help="of a scan (900)")
    parser.add_argument("--quick", action="store_true", help="five kills")
    parser.add_argument("--json", action="store_true", help="one object a line")
    arguments = parser.parse_args()
    count = 5 if arguments.quick else arguments.count
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(count, arguments.seed, arguments.limit, folder)
    for metric, value, unit in figures:
        row = {"benchmark": "kill", "case": f"{count} kills", "method": "process", "metric": metric}
        if arguments.json:
            print(json.dumps({**row, "value": value, "unit": unit}))
        else:
            print(f"{metric:<34}{value:>10.4g} {unit}")
    return int(any(value for metric, value, unit in figures if not unit))


if __name__ == "__main__":
    sys.exit(main())
