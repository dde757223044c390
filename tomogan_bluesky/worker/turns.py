"""Long turns on the processor, which others may interrupt.

Enters: a time. Leaves: a process that the scan's program need not wait for.
"""

import ctypes
import os
import platform
import struct
import sys

# struct sched_attr of sched_setattr(2): size, policy, flags, nice, priority, runtime, deadline and
# period in nanoseconds.
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")
_SET, _GET = {"x86_64": (314, 315), "aarch64": (274, 275)}.get(platform.machine(), (None, None))


def take_long_turns(seconds: float) -> bool:
    """Let this thread, and threads to come, compute in turns of so long where nobody else wants to.

    Whoever wakes up on Linux since 6.12 interrupts a turn that is longer than its own would be, and
    waits for the end of one that is not, however nice that one is. So a nice worker with turns like
    everybody's keeps a scan waiting, which sleeps and wakes up at each event; one with long turns
    does not.

    Parameters
    ----------
    seconds : float
        At most 0.1 counts.

    Returns
    -------
    bool
        Whether that can be said to this system.
    """
    if sys.platform != "linux" or _SET is None:
        return False
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    size, batch = _ATTRIBUTES.size, os.SCHED_BATCH
    wanted = _ATTRIBUTES.pack(size, batch, 0, nice, 0, int(1e9 * seconds), 0, 0)
    done: int = ctypes.CDLL(None).syscall(_SET, 0, wanted, 0)
    return done == 0


def turn_of(pid: int) -> float | None:
    """Seconds of a turn of a process; None where the system does not tell."""
    if sys.platform != "linux" or _GET is None:
        return None
    found = ctypes.create_string_buffer(_ATTRIBUTES.size)
    if ctypes.CDLL(None).syscall(_GET, pid, found, _ATTRIBUTES.size, 0):
        return None
    runtime: int = _ATTRIBUTES.unpack(found.raw)[5]
    return runtime / 1e9
