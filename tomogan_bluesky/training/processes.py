"""One training in several processes, on several GPUs or nodes.

torchrun starts them, and DistributedDataParallel averages their gradients. Enters: the environment
that torchrun sets. Leaves: `World`, which is one process alone where it is
not set. All processes hold the same weights and take the same decisions; the first one writes.

    torchrun --nproc-per-node 4 -m tomogan_bluesky train …
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class World:
    """The processes of a training, and which of them this is."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """The same module, whose gradients are the mean of those of all processes."""
        if self.size == 1:
            return module
        return DistributedDataParallel(module)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            torch.distributed.barrier()

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean over all processes, the same bits in each."""
        if self.size > 1:
            torch.distributed.all_reduce(values)
            values /= self.size
        return values

    def from_first(self, value: Any) -> Any:
        """The value that the first process has."""
        if self.size == 1:
            return value
        values = [value]
        torch.distributed.broadcast_object_list(values)
        return values[0]


@contextmanager
def joined(device: str = "cpu") -> Iterator[tuple[World, str]]:
    """Join the processes that torchrun started: yields the world, and this process's device."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield World(), device
        return
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    torch.distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield World(torch.distributed.get_rank(), torch.distributed.get_world_size()), device
    finally:
        torch.distributed.destroy_process_group()
