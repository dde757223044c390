"""Archived runs through the same callback as live ones.

Enters: a run of a Databroker or Tiled catalog, or an iterable of documents. Leave: its documents,
to the callback, and the reports of what became of them.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from .callback import TomoGANCallback
from .intake.archive import Progress, documents
from .report import RunReport


def replay(
    runs: Any, callback: TomoGANCallback, progress: Progress | None = None
) -> list[RunReport]:
    """Replay archived runs through a callback, and wait until they are worked off.

    Parameters
    ----------
    runs : BlueskyRun, iterable of (name, doc), or a list of these
        A run as a Databroker or Tiled catalog gives it, or its documents.
    callback : TomoGANCallback
    progress : callable, optional
        Called with the points handed over so far and the points in all.

    Returns
    -------
    list of RunReport
        One for each tomography scan.

    Raises
    ------
    IntakeError
        A run whose arrays and events do not belong together.
    """
    reports: list[RunReport] = []
    for run in _each(runs):
        for name, doc in documents(run, progress) if hasattr(run, "metadata") else run:
            callback(name, doc)
        reports += callback.wait()
    return reports


def _each(runs: Any) -> Iterator[Any]:
    """The runs, whether one was given or several: the documents of one run are pairs."""
    if hasattr(runs, "metadata") or not isinstance(runs, Iterable):
        yield runs
        return
    runs = list(runs)
    if runs and isinstance(runs[0], tuple) and isinstance(runs[0][0], str):
        yield runs
    else:
        yield from runs
