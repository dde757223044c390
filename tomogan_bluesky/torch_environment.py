"""What torch reads from the environment, once, in processes that are ours alone.

Enters: nothing. Leave: environment variables for a process in which torch is not loaded yet. A
program of others that uses this package keeps its own.
"""

import os

TORCH_ENVIRONMENT = {
    # Threads that wait must not spin on cores that a beamline needs.
    "OMP_WAIT_POLICY": "PASSIVE",
    # Large tensors lie in pages of 2 MiB where the kernel has them. A network makes hundreds of MB
    # of them for each slice, and to touch fresh pages of 4 KiB took a quarter of its time.
    "THP_MEM_ALLOC_ENABLE": "1",
}


def prepare() -> None:
    """Set them in this process, except those that are set."""
    for name, value in TORCH_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
