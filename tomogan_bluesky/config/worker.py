"""Where and how the work is done."""

from typing import Literal

from pydantic import Field

from .base import Config


class WorkerConfig(Config):
    """Where and how the work is done. Nothing here decides a pixel."""

    kind: Literal["process", "thread"] = "process"
    """"thread": in the process of the RunEngine, which is weaker; the other settings are for a
    process."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of a computation on the CPU; None: as many as torch takes."""
    nice: int = Field(default=19, ge=0, le=19)
    """How much the process gives way to others: 19 is most."""
    memory_gib: float | None = Field(default=None, gt=0.0)
    """Most memory for documents, with the images inside them, of scans that are not finished; what
    comes beyond is left out, and the scan has to be replayed. None: a quarter of the machine's."""
    copy_images: bool = False
    """The detector uses the array of an image again for the next one: copy it at once."""
    hang_s: float = Field(default=600.0, gt=0.0)
    """Seconds without getting on after which the process is killed, and another one takes over: by
    the clock where it does nothing, of processor time where it computes."""
    linger_s: float = Field(default=3600.0, ge=0.0)
    """Seconds for which the process finishes what it has after the program has ended."""
