"""Processes that talk with a test over their standard streams, and are ended with it."""

import json
import os
import random
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

TESTS = Path(__file__).parent


class Peer:
    """A process, its orders and its answers, one a line."""

    def __init__(self, *args, env=None, log=None):
        self._log = None if log is None else log.open("a")
        self.process = subprocess.Popen(
            [sys.executable, *map(str, args)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=env,
        )

    def tell(self, line):
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def hear(self):
        """The next line; a peer that ends instead fails the test."""
        line = self.process.stdout.readline()
        assert line, f"the process ended with {self.process.wait()}"
        return line.strip()

    def hear_json(self):
        return json.loads(self.hear())

    def kill(self):
        self.process.kill()
        self.process.wait()

    def end(self, signal):
        """Send a signal and wait; returns the exit code."""
        self.process.send_signal(signal)
        return self.process.wait(timeout=60)

    def close(self):
        if self.process.poll() is None:
            self.kill()
        self.process.stdin.close()
        self.process.stdout.close()
        if self._log is not None:
            self._log.close()


def light_profile(folder):
    """A profile with which a server needs no second process, and no model."""
    path = folder / "profile.yml"
    path.write_text("{version: 1, model: null, worker: {kind: thread}}")
    return path


def free_ports(n):
    """Ports that processes will listen at, and listen at again after they were killed.

    None of those that the system gives to outgoing connections: one of these may take a port while
    nobody listens at it, even by connecting to it. Each worker of pytest-xdist has its own.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = 20_000 + 1_000 * (worker % 12)
    found = []
    # Not by the generator that hypothesis seeds: another run of the tests would choose the same.
    for port in random.SystemRandom().sample(range(first, first + 1_000), 1_000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                found.append(port)
        if len(found) == n:
            break
    return found


def until(true, seconds=60):
    """Wait until something is true; what it is then."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


@contextmanager
def peers():
    """A function that starts peers; all are ended with the block."""
    started = []

    def start(*args, **options):
        peer = Peer(*args, **options)
        started.append(peer)
        return peer

    try:
        yield start
    finally:
        for peer in started:
            peer.close()
