"""The callback's side of a worker process, inside that process.

Enter: documents from the process of the RunEngine. Leave: derived runs; to publishers that are
here, or over the link to those that are there. What lies there and can't travel (the frames of an
archive that somebody has a client of) is read over the link.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch

from ..config import Settings
from ..errors import AssetError, PublishError, TomoGANError
from ..intake.archive import CatalogFrames
from ..intake.frames import StoredFrame
from ..publish.catalog import Attempt
from ..publish.publishers import Publishers
from ..run.engine import Engine
from ..worker.host import Link
from .runs import Runs

logger = logging.getLogger(__name__)


class RemoteRuns:
    """The handler of a worker process: one group of items is one raw run."""

    def __init__(self, link: Link, engine: Engine) -> None:
        self._link = link
        self._runs = Runs(engine)
        self._publishers = engine.publishers
        self._sources: WeakValueDictionary[int, RemoteFrames] = WeakValueDictionary()

    def __call__(self, group: str, item: Sequence[Any]) -> dict[str, Any] | None:
        name, doc = item
        report = self._runs(name, doc)
        return None if report is None else report.as_dict()

    def give_up(self, group: str, reason: str) -> None:
        self._runs.give_up(group, reason)

    def close(self) -> None:
        self._runs.close()
        self._publishers.close()

    def decode(self, value: Sequence[Any]) -> StoredFrame:
        """A frame that the other side keeps."""
        handle, index, about = value
        source = self._sources.get(handle)
        if source is None:
            source = self._sources[handle] = RemoteFrames(self._link, handle, about)
        return StoredFrame(source, index)


def make_runs(
    link: Link,
    *,
    targets: Sequence[str | None],
    model: str | None,
    settings: Mapping[str, Any],
    plan_wins: bool,
    device: str,
    again: bool,
    threads: int | None,
) -> RemoteRuns:
    """The handler, with its model loaded already: the first scan must not wait for it.

    Parameters
    ----------
    link : Link
    targets : sequence of str or None
        Where to publish: addresses and profiles, and None for what the other side publishes to.
    model, settings, plan_wins, device, again
        As in `Engine`, as plain values.
    threads : int, optional
        Of a computation; None leaves that to torch.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    said = Settings.model_validate(settings)
    engine = Engine(
        Publishers([_target(link, i, target) for i, target in enumerate(targets)], said.publishing),
        model,
        said,
        plan_wins,
        device,
        again,
        lambda *progress: link.emit(progress),
    )
    try:
        engine.denoiser()
    except TomoGANError as error:  # every scan will say so
        logger.debug("no model is preloaded: %s", error)
    return RemoteRuns(link, engine)


def _target(link: Link, index: int, target: str | None) -> "str | RemoteTarget":
    return RemoteTarget(link, index) if target is None else target


class RemoteTarget:
    """A client or a callable in the other process; see `Publishers`."""

    def __init__(self, link: Link, index: int) -> None:
        self._link = link
        self._index = index
        self._numbers = count(1)

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Not for runs: `sink` is."""
        raise AssertionError("a remote target takes the documents of a run through a sink")

    def sink(self) -> "RemoteSink":
        """For one run."""
        number = next(self._numbers)
        return RemoteSink(
            partial(self._call, "publish", number), partial(self._call, "finish", number)
        )

    def attempts(self, derivation: str) -> list[Attempt]:
        """The attempts at a derivation that are known there."""
        return [Attempt(**attempt) for attempt in self._call("attempts", derivation)]

    def find_run(self, uid: str) -> "RemoteRun | None":
        """An archived run that is there."""
        found = self._call("documents", uid)
        return None if found is None else RemoteRun(*found)

    def _call(self, method: str, *args: Any) -> Any:
        try:
            return self._link.call(method, self._index, *args)
        except (RuntimeError, ConnectionError) as error:
            raise PublishError(str(error)) from error


class RemoteSink:
    """Publishes one run in the other process.

    Attributes
    ----------
    waiting : str or None
        Why the run waits in the spool there.
    finish : callable
        Waits until all documents so far have arrived.

    Raises
    ------
    PublishError
        When called: a document was not taken.
    """

    def __init__(
        self,
        publish: Callable[[str, Mapping[str, Any]], str | None],
        finish: Callable[[], None],
    ) -> None:
        self._publish = publish
        self.finish = finish
        self.waiting: str | None = None

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        self.waiting = self._publish(name, doc)


class RemoteRun:
    """An archived run of the other process, as `intake.archive.documents` takes it."""

    specs = ()

    def __init__(
        self, stop: dict[str, Any] | None, documents: Sequence[tuple[str, dict[str, Any]]]
    ) -> None:
        self._documents = documents
        self.metadata = {"start": documents[0][1], "stop": stop}

    def documents(self) -> Sequence[tuple[str, dict[str, Any]]]:
        return self._documents


class RemoteFrames(CatalogFrames):
    """Frames of a catalog that the other process reads.

    Parameters
    ----------
    link : Link
    handle : int
        By which they are known there.
    about : mapping
        What can be known of them without reading; see `desk.describe`.
    """

    def __init__(self, link: Link, handle: int, about: Mapping[str, Any]) -> None:
        self._link = link
        self._handle = handle
        self._about = about
        self.frames_a_point = about["frames_a_point"]
        self.resource = about["resource"]

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self._about["dtype"])

    @property
    def frame_shape(self) -> tuple[int, ...]:
        return tuple(self._about["frame_shape"])

    def count(self, at_least: int) -> int:
        return int(self._about["count"])

    def read(self, indices: slice | list[int], rows: slice) -> np.ndarray:
        if isinstance(indices, slice):
            wanted = {"block": [indices.start, indices.stop]}
        else:
            wanted = {"single": [int(i) for i in indices]}
        try:
            frames = self._link.call("read", self._handle, wanted, [rows.start, rows.stop])
            return np.asarray(frames)
        except (RuntimeError, ConnectionError) as error:
            raise AssetError(str(error)) from error

    def close(self) -> None:
        """The other side closes what it opened."""
