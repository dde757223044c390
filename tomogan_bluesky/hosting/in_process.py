"""Runs that are processed in a process of their own: the RunEngine's side.

Enter: documents. Leave: reports. Derived runs that go to a client or a callable of this process
come back document by document and are published here, on a thread; for addresses and profiles the
worker makes its own client.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..config import Settings, WorkerConfig
from ..errors import ConfigurationError
from ..publish.targets import Target
from ..report import RunReport
from ..torch_environment import TORCH_ENVIRONMENT
from ..worker.process import ProcessWorker
from ..worker.state import WorkerState
from .desk import Desk, Progress

_GIB = 1 << 30
# Seconds for documents that wait to reach the worker, when this process is about to end.
_FLUSH_S = 10.0


class InProcess:
    """See `callback.Workplace`.

    Parameters
    ----------
    targets : sequence of Target
    model : str, Path or None
    settings : Settings
    config : WorkerConfig
    plan_wins, device, again, progress
        As in `engine.Engine`.
    report : callable
        Called with each `RunReport`.

    Raises
    ------
    ConfigurationError
        A model that is neither a name nor a path.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        model: Any,
        settings: Settings,
        config: WorkerConfig,
        *,
        plan_wins: bool,
        device: str,
        again: bool,
        progress: Progress | None,
        report: Callable[[RunReport], None],
    ) -> None:
        self._desk = Desk(targets, settings.publishing, progress, report)
        self._worker = ProcessWorker(
            "tomogan_bluesky.hosting.remote:make_runs",
            {
                "targets": [target if isinstance(target, str) else None for target in targets],
                "model": _portable(model),
                "settings": settings.model_dump(mode="json"),
                "plan_wins": plan_wins,
                "device": device,
                "again": again,
                "threads": config.threads,
            },
            self._desk,
            limit_bytes=_memory_bytes(config),
            hang_s=config.hang_s,
            nice=config.nice,
            linger_s=config.linger_s,
            environment=TORCH_ENVIRONMENT,
            share=config.copy_images,
        )

    def put(
        self, raw_uid: str, name: str, doc: dict[str, Any], n_bytes: int, *, must: bool, last: bool
    ) -> bool:
        return self._worker.put(raw_uid, (name, doc), n_bytes=n_bytes, must=must, last=last)

    def give_up(self, raw_uid: str, reason: str) -> None:
        self._worker.give_up(raw_uid, reason)

    def keep(self, raw_uid: str, array: Any) -> Any:
        return self._worker.place(raw_uid, array)

    def join(self, timeout: float | None) -> bool:
        return self._worker.join(timeout)

    def close(self, timeout: float | None) -> bool:
        ended = self._worker.close(timeout)
        if ended:
            self._desk.close()
        return ended

    def abandon(self) -> None:
        self._worker.abandon(_FLUSH_S)

    @property
    def pid(self) -> int | None:
        """Of the worker process, while there is one."""
        return self._worker.pid

    @property
    def state(self) -> WorkerState:
        return self._worker.state


def _memory_bytes(config: WorkerConfig) -> int:
    if config.memory_gib is not None:
        return int(config.memory_gib * _GIB)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4


def _portable(model: Any) -> str | None:
    """A model by its name or its path."""
    if model is None:
        return None
    if not isinstance(model, str | Path):
        raise ConfigurationError(
            f"model: expected a name or a path, got a {type(model).__name__}, which can't go to "
            "the worker process; export it to a file, or use worker='thread'"
        )
    path = Path(model)
    return str(path.absolute() if path.exists() else model)
