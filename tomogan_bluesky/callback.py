"""The callback that a beamline subscribes to its RunEngine.

Enter: the documents of every run. Leave: at once, everything; later, from a worker, a derived run
for each tomography scan.
"""

import logging
import queue
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

import numpy as np

from .config import (
    DEFAULT_MODEL,
    DenoisingConfig,
    LiveConfig,
    PublishingConfig,
    ReconstructionConfig,
    ScanConfig,
    Settings,
    WorkerConfig,
    load_profile,
)
from .errors import ConfigurationError
from .intake.routing import STRUCTURAL, Routing
from .publish.identity import is_derived
from .publish.publishers import Publishers
from .publish.targets import Target, as_targets
from .report import RunReport
from .worker.state import WorkerState

if TYPE_CHECKING:  # it imports torch
    from .denoise.denoiser import Denoiser

logger = logging.getLogger(__name__)

_OVERRUN = "too many documents were waiting, and some were left out"


class Workplace(Protocol):
    """Where runs are processed: `in_process.InProcess` or `in_thread.InThread`.

    Nothing here waits, apart from `join` and `close`.

    Attributes
    ----------
    pid : int or None
        Of the process that works; None where there is none.
    """

    @property
    def pid(self) -> int | None: ...

    @property
    def state(self) -> WorkerState: ...

    def put(
        self, raw_uid: str, name: str, doc: dict[str, Any], n_bytes: int, *, must: bool, last: bool
    ) -> bool:
        """Take a document; False where too much is waiting, unless it `must` be taken."""

    def give_up(self, raw_uid: str, reason: str) -> None:
        """Documents of a run were left out."""

    def keep(self, raw_uid: str, array: np.ndarray) -> Any:
        """Copy an array at once; returns what takes its place in a document."""

    def join(self, timeout: float | None) -> bool:
        """Wait until all is worked off; False when it is not in time."""

    def close(self, timeout: float | None) -> bool:
        """Work off what is waiting, then end; False when it is still busy."""


class TomoGANCallback:
    """Turns the documents of tomography scans into denoised slices, beside the scan.

    Subscribed to a RunEngine, it takes each document in microseconds and never raises: a scan
    can't be slowed or aborted by it. Reconstruction, denoising and publishing happen in a worker;
    what goes wrong there is logged, written into the stop document of the derived run, and
    returned by `wait`.

    Parameters
    ----------
    publish : Tiled client, str, callable(name, doc), or a list of these
        Where the derived runs go. A string that starts with "http" is the address of a Tiled
        server, another string a Tiled profile; the API key comes from ``TILED_API_KEY``. With a
        worker process, addresses and profiles are used there; a client or a callable is used on a
        thread of this process.
    model : str, Path, Denoiser or None
        Name of a shipped model, path of a model file, "registry:FOLDER", or (with
        ``worker="thread"``) a denoiser; None publishes the reconstruction alone.
    scan, reconstruction, live, denoising, publishing : configurations
        Frozen settings; the defaults find the detector and the angle in the descriptors.
    worker : "process", "thread" or WorkerConfig
        Where the work is done: in a process of its own, or on a thread of this one, which does not
        protect the scan from what takes a process down.
    device : str
        "auto", "cpu", "cuda", "cuda:1", …
    again : bool
        Compute again what a successful derived run of the same settings holds already.
    progress : callable, optional
        Called on a thread with (raw uid, slices done, slices in all) after each slab.

    Raises
    ------
    ConfigurationError
        A worker of another kind, something to publish to that is no such thing, a denoiser with a
        process. What can only be known later (a model that is missing, a server that is down) does
        not raise: it fails the derived run.

    Examples
    --------
    >>> tomogan = TomoGANCallback("http://localhost:8000")
    >>> RE.subscribe(tomogan)
    >>> RE(tomo_scan(...))
    >>> tomogan.wait()
    """

    def __init__(
        self,
        publish: "Target | Iterable[Target]",
        model: "str | Path | Denoiser | None" = DEFAULT_MODEL,
        *,
        scan: ScanConfig | None = None,
        reconstruction: ReconstructionConfig | None = None,
        live: LiveConfig | None = None,
        denoising: DenoisingConfig | None = None,
        publishing: PublishingConfig | None = None,
        worker: Literal["process", "thread"] | WorkerConfig = "process",
        device: str = "auto",
        again: bool = False,
        progress: Callable[[str, int, int], None] | None = None,
        _plan_wins: bool = False,
    ) -> None:
        settings = Settings(
            scan=scan or ScanConfig(),
            reconstruction=reconstruction or ReconstructionConfig(),
            live=live or LiveConfig(),
            denoising=denoising or DenoisingConfig(),
            publishing=publishing or PublishingConfig(),
        )
        config = _worker_config(worker)
        self._reports: queue.SimpleQueue[RunReport] = queue.SimpleQueue()
        options: dict[str, Any] = {
            "plan_wins": _plan_wins,
            "device": device,
            "again": again,
            "progress": progress,
            "report": self._reports.put,
        }
        self._workplace: Workplace
        if config.kind == "process":
            from .hosting.in_process import InProcess

            there = InProcess(as_targets(publish), model, settings, config, **options)
            # A program that ends, or forgets its callback, leaves the worker what it has.
            weakref.finalize(self, there.abandon)
            self._workplace = there
        else:
            from .hosting.in_thread import (
                InThread,  # and torch, which a process leaves to its worker
            )

            self._workplace = InThread(
                Publishers(publish, settings.publishing), model, settings, **options
            )
        self._copy_images = config.copy_images
        self._routing = Routing()
        self._open: set[str] = set()  # raw runs that were begun
        self._backlog: set[str] = set()  # those of them some of whose documents were refused

    @classmethod
    def from_profile(
        cls, path: Path | str, publish: "Target | Iterable[Target]", **options: Any
    ) -> Self:
        """A callback with the settings of a beamline.

        Parameters
        ----------
        path : Path
            A profile, such as ``profiles/hex/tomogan.yml``.
        publish
            As for the class.
        **options
            Any other argument of the class; it replaces what the profile says of it.

        Raises
        ------
        ConfigurationError
            There is no such profile, or it holds a setting that is unknown or wrong.
        """
        profile = load_profile(path)
        model = DEFAULT_MODEL if profile.model == "default" else profile.model
        said = {name: getattr(profile, name) for name in Settings.model_fields}
        said |= {"model": model, "device": profile.device, "worker": profile.worker}
        plan_wins = not set(options) & {"scan", "reconstruction"}
        return cls(publish, _plan_wins=plan_wins, **{**said, **options})

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        """Take a document: enqueue it and return. Never raises, never waits."""
        try:
            self._enqueue(name, doc)
        except Exception:
            logger.exception("a %r document could not be taken in", name)

    def wait(self, timeout: float | None = None) -> list[RunReport]:
        """Wait until all documents so far are worked off.

        Parameters
        ----------
        timeout : float, optional
            Seconds.

        Returns
        -------
        list of RunReport
            Of the scans that ended since the last call, in the order in which they ended.

        Raises
        ------
        TimeoutError
        """
        if not self._workplace.join(timeout):
            raise TimeoutError(
                f"expected all scans to be worked off within {timeout:g} s; wait again, the work "
                "goes on"
            )
        reports = []
        while not self._reports.empty():
            reports.append(self._reports.get())
        return reports

    def close(self, timeout: float | None = None) -> None:
        """Work off what was taken in, then end the worker. Later documents are ignored.

        A scan that goes on is left to a replay. Where previews of it were published, their derived
        run ends as "abort", and the replay makes another one in its place.

        Raises
        ------
        TimeoutError
            The worker is still busy after `timeout` seconds; it ends after the scan at hand.
        """
        self._open.clear()
        if not self._workplace.close(timeout):
            raise TimeoutError(
                f"expected the worker to end within {timeout:g} s; it is still busy, and ends "
                "after the scan at hand"
            )

    @property
    def worker_pid(self) -> int | None:
        """Process id of the worker; None where there is none (now): it starts with a document."""
        return self._workplace.pid

    @property
    def worker_state(self) -> WorkerState:
        """How many documents wait for the worker, and how often it had to be replaced."""
        return self._workplace.state

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # On the RunEngine's thread -----------------------------------------------------------------

    def _enqueue(self, name: str, doc: dict[str, Any]) -> None:
        raw_uid = self._routing.run_of(name, doc)
        last = name == "stop"
        if last:
            self._routing.forget(raw_uid)
        if name == "start" and not is_derived(doc):
            self._open.add(raw_uid)
        if raw_uid not in self._open:
            return
        if raw_uid in self._backlog and name not in STRUCTURAL:
            return
        n_bytes = _array_bytes(name, doc)
        if self._copy_images and n_bytes:
            doc = self._with_copies(raw_uid, doc)
        must = name in STRUCTURAL
        taken = self._workplace.put(raw_uid, name, doc, n_bytes, must=must, last=last)
        if last:
            self._open.discard(raw_uid)
            self._backlog.discard(raw_uid)
        if taken or must:
            return
        self._backlog.add(raw_uid)
        self._workplace.give_up(raw_uid, _OVERRUN)
        logger.error(
            "run %s: too many documents are waiting, the scan will have to be replayed", raw_uid
        )

    def _with_copies(self, raw_uid: str, doc: dict[str, Any]) -> dict[str, Any]:
        """A document with copies of its images, whose arrays will be used again."""
        data = {
            key: self._workplace.keep(raw_uid, value) if isinstance(value, np.ndarray) else value
            for key, value in doc["data"].items()
        }
        return {**doc, "data": data}


def _worker_config(worker: Any) -> WorkerConfig:
    if isinstance(worker, WorkerConfig):
        return worker
    if worker == "process" or worker == "thread":
        return WorkerConfig(kind=worker)
    raise ConfigurationError(
        f"worker: expected 'process', 'thread' or a WorkerConfig, got {worker!r}"
    )


def _array_bytes(name: str, doc: dict[str, Any]) -> int:
    """Memory for the arrays inside an event or a page of events."""
    if name == "event":
        return sum(getattr(value, "nbytes", 0) for value in doc["data"].values())
    if name == "event_page":
        return sum(
            len(values) * getattr(values[0], "nbytes", 0)
            for values in doc["data"].values()
            if len(values)
        )
    return 0
