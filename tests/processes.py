"""Processes that talk with a test over their standard streams, and are ended with it."""

import json
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
