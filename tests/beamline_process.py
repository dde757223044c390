"""A RunEngine in a process of its own, for tests of servers: takes orders on its standard input.

Run as a script with the options below. It prints "ready", then, for each line "scan N" it runs a
scan of N projections, waits in its middle for a line "go on" where the order was "scan N hold"
(after it has printed "held"), and prints the uid of the run.
"""

import argparse
import sys
import time

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import numpy as np
from bluesky import RunEngine
from scans import COLUMNS, DARK, FLAT, ROWS, disc_frames


class Device:
    """Reads whatever it was given last."""

    parent = None

    def __init__(self, name, key):
        self.name = name
        self._key = {"source": "test", **key}
        self.value = None

    def describe(self):
        return {self.name: self._key}

    def read(self):
        return {self.name: {"value": self.value, "timestamp": time.time()}}

    def describe_configuration(self):
        return {}

    def read_configuration(self):
        return {}


camera = Device("camera", {"dtype": "array", "shape": [ROWS, COLUMNS], "dtype_numpy": "<u2"})
rotation = Device("rotation", {"dtype": "number", "shape": [], "units": "deg"})


def say(text):
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def tomography(n_angles, hold):
    frames, angles = disc_frames(n_angles), np.linspace(0, 180, n_angles)

    @bpp.run_decorator(md={"plan_name": "tomo_scan"})
    def inner():
        for stream, level in (("dark", DARK), ("flat", FLAT)):
            camera.value = np.full((ROWS, COLUMNS), level, np.uint16)
            yield from bps.create(stream)
            yield from bps.read(camera)
            yield from bps.save()
        for i, angle in enumerate(angles):
            if hold and i == n_angles // 2:
                say("held")
                assert sys.stdin.readline().strip() == "go on"
            camera.value, rotation.value = frames[i], float(angle)
            yield from bps.create("primary")
            yield from bps.read(camera)
            yield from bps.read(rotation)
            yield from bps.save()

    return inner()


def publishers(args):
    if args.tiled:
        from tomogan_bluesky.publish.connection import connect
        from tomogan_bluesky.publish.tiled_publisher import TiledPublisher

        yield TiledPublisher(connect(args.tiled))
    if args.zmq:
        from bluesky.callbacks.zmq import Publisher

        from tomogan_bluesky.serving.messages import pack

        publisher = Publisher(args.zmq, serializer=pack)
        time.sleep(0.5)  # 0MQ drops what is sent before it has connected
        yield publisher
    if args.kafka:
        from bluesky_kafka import Publisher

        yield Publisher("scans", args.kafka, key="beamline", flush_on_stop_doc=True)
    if args.nats:
        yield nats_publisher(args.nats)


def nats_publisher(url):
    """As the documentation of bluesky-nats has it."""
    from bluesky_nats.nats_publisher import NATSPublisher
    from bluesky_nats.nats_runtime import NatsRuntime
    from bluesky_nats.outbox import Delivery, Outbox
    from nats.aio.client import Client

    runtime, client = NatsRuntime(), Client()

    async def connect():
        await client.connect(url, max_reconnect_attempts=-1, reconnect_time_wait=0.2)
        return client

    runtime.connect(connect())
    outbox = Outbox(runtime, client, delivery=Delivery.CRITICAL)
    return NATSPublisher(outbox, client.jetstream())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tiled")
    parser.add_argument("--zmq")
    parser.add_argument("--nats")
    parser.add_argument("--kafka")
    args = parser.parse_args()
    RE = RunEngine()
    for publisher in publishers(args):
        RE.subscribe(publisher)
    say("ready")
    for line in sys.stdin:
        _, number, *hold = line.split()
        (uid,) = RE(tomography(int(number), bool(hold)))
        say(uid)


if __name__ == "__main__":
    main()
