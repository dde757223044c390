"""Pieces of work that do not depend on each other, on the threads that torch may use.

Enters: a function and what to call it with. Leaves: nothing; the pieces write where they are told.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

# How many threads torch uses is a setting of each thread, and of the process for threads to come:
# one crew at a time sets both.
_setting = threading.Lock()


class Threads:
    """As many threads as torch may use here, each of which computes alone.

    torch shares out every single operation, so that small ones keep one processor busy, and where
    it cuts them can show in the last bit. These share out whole pieces of work, whose bits do not
    depend on how many threads there are. On a GPU the calling thread does all of it.

    Used in a ``with`` statement, at whose end the threads are gone.

    Parameters
    ----------
    device : torch.device
    """

    def __init__(self, device: torch.device) -> None:
        self._on_cpu = device.type == "cpu"
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Threads:
        if self._on_cpu:
            with _setting:
                n_threads = torch.get_num_threads()
                if n_threads > 1:
                    self._pool = _of_one_each(n_threads)
        return self

    def __exit__(self, *of_error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(self, work: Callable[..., None], *arguments: Iterable[Any]) -> None:
        """Call a function with each set of arguments, in any order; come back when all is done.

        The first error, in the order of the arguments, is raised.
        """
        apply = map if self._pool is None else self._pool.map
        for _ in apply(_as_here(work), *arguments):
            pass


def _as_here(work: Callable[..., None]) -> Callable[..., None]:
    """The function in this thread's mode, which others do not take over."""
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def in_mode(*arguments: Any) -> None:
        with torch.inference_mode() if inference else torch.set_grad_enabled(gradients):
            work(*arguments)

    return in_mode


def _of_one_each(n_threads: int) -> ThreadPoolExecutor:
    """Threads of which each gets one of torch's, where this one and new ones get `n_threads`."""
    pool = ThreadPoolExecutor(n_threads, "tomogan-reconstruct")
    settled = threading.Barrier(n_threads + 1)

    def settle() -> None:
        torch.get_num_threads()  # the first use in a thread, which else would set its number later
        torch.set_num_threads(1)
        settled.wait()

    try:
        for _ in range(n_threads):
            pool.submit(settle)
        settled.wait()
    except BaseException:
        settled.abort()
        pool.shutdown(cancel_futures=True)
        raise
    finally:
        torch.set_num_threads(n_threads)
    return pool
