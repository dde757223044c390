"""What worker processes of the tests do with their items."""

import os
import signal
import time

import numpy as np


class Handler:
    """Does what items say; the result of a group is what they said to keep."""

    def __init__(self, link, greeting):
        self.link = link
        self.greeting = greeting
        self.kept = {}
        self.given_up = {}

    def __call__(self, group, item):
        kept = self.kept.setdefault(group, [])
        match item:
            case {"keep": value}:
                kept.append(value)
            case {"sum": array}:
                kept.append([float(array.sum()), str(array.dtype), list(array.shape)])
            case {"emit": value}:
                self.link.emit(value)
            case {"call": value}:
                kept.append(self.link.call("double", value))
            case {"where": _}:
                kept.append([os.getpid(), os.getppid(), os.getsid(0), os.nice(0)])
            case {"sleep": seconds}:
                time.sleep(seconds)
            case {"crawl": seconds}:  # computes for a fifth of the time
                until = time.monotonic() + seconds
                while time.monotonic() < until:
                    started = time.process_time()
                    while time.process_time() < started + 0.04:
                        pass
                    time.sleep(0.16)
            case {"write": path}:
                with open(path, "w") as file:
                    file.write(str(sum(kept)))
            case {"raise": text}:
                raise RuntimeError(text)
            case {"once": path, "do": what}:
                if not os.path.exists(path):
                    open(path, "w").close()
                    _end(what)
            case {"always": what}:
                _end(what)
        return [self.greeting, list(kept), self.given_up.get(group)]

    def give_up(self, group, reason):
        self.given_up[group] = reason

    def close(self):
        if self.greeting == "tell me the end":
            self.link.emit("closed")

    def decode(self, value):
        return np.arange(value)


def _end(what):
    if what == "hang":
        time.sleep(600)
    elif what == "spin":
        while True:
            pass
    elif what == "exit":
        os._exit(3)
    else:
        os.kill(os.getpid(), getattr(signal, what))


def unable(link):
    raise ValueError("this handler can't be made")
