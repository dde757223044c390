"""The callback that a beamline subscribes to its RunEngine.

Enter: the documents of every run. Leave: at once, everything; later, from a worker, a derived run
for each tomography scan.
"""

import logging
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self

from .config import (
    DenoisingConfig,
    PublishingConfig,
    ReconstructionConfig,
    ScanConfig,
    Settings,
    load_profile,
)
from .denoise import Denoiser
from .engine import Engine, Progress
from .errors import ConfigurationError
from .models.artifact import DEFAULT_MODEL
from .publish.publishers import Publishers, Target
from .report import RunReport
from .routing import STRUCTURAL, Routing
from .runs import Runs
from .worker.thread import ThreadWorker

logger = logging.getLogger(__name__)

# Documents that wait for the worker. A scan of 10,000 projections fits many times over; the bound
# is there so that a worker that hangs for hours does not take the memory of the beamline.
_QUEUE_LIMIT = 100_000

# Takes the place of the documents that were refused, so that their run knows.
_BACKLOG = "backlog"


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
        server, another string a Tiled profile; the API key comes from ``TILED_API_KEY``.
    model : str, Path, Denoiser or None
        Name of a shipped model, path of a model file, or a denoiser; None publishes the
        reconstruction alone.
    scan, reconstruction, denoising, publishing : configurations
        Frozen settings; the defaults find the detector and the angle in the descriptors.
    worker : "thread"
        Where the work is done.
    device : str
        "auto", "cpu", "cuda", "cuda:1", …
    again : bool
        Compute again what a successful derived run of the same settings holds already.
    progress : callable, optional
        Called in the worker with (raw uid, slices done, slices in all) after each slab.

    Raises
    ------
    ConfigurationError
        A worker of another kind. What can only be known later (a model that is missing, a server
        that is down) does not raise: it fails the derived run.

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
        model: str | Path | Denoiser | None = DEFAULT_MODEL,
        *,
        scan: ScanConfig | None = None,
        reconstruction: ReconstructionConfig | None = None,
        denoising: DenoisingConfig | None = None,
        publishing: PublishingConfig | None = None,
        worker: Literal["thread"] = "thread",
        device: str = "auto",
        again: bool = False,
        progress: Progress | None = None,
    ) -> None:
        if worker != "thread":
            raise ConfigurationError(f"worker: expected 'thread', got {worker!r}")
        settings = Settings(
            scan=scan or ScanConfig(),
            reconstruction=reconstruction or ReconstructionConfig(),
            denoising=denoising or DenoisingConfig(),
            publishing=publishing or PublishingConfig(),
        )
        publishers = Publishers(publish, settings.publishing)
        self._engine = Engine(publishers, model, settings, False, device, again, progress)
        self._worker = ThreadWorker(self._handle, "worker", _QUEUE_LIMIT)
        self._runs = Runs(self._engine)
        self._routing = Routing()
        self._backlog: set[str] = set()  # raw runs some of whose documents were refused
        self._reports: list[RunReport] = []
        self._lock = threading.Lock()

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
        callback = cls(publish, **{"model": model, "device": profile.device, **said, **options})
        callback._engine.plan_wins = not set(options) & {"scan", "reconstruction"}
        return callback

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
        if not self._worker.join(timeout):
            raise TimeoutError(
                f"expected all scans to be worked off within {timeout:g} s; wait again, the work "
                "goes on"
            )
        with self._lock:
            reports, self._reports = self._reports, []
        return reports

    def close(self, timeout: float | None = None) -> None:
        """Work off what was taken in, then end the worker. Later documents are ignored.

        Raises
        ------
        TimeoutError
            The worker is still busy after `timeout` seconds; it ends after the scan at hand.
        """
        ended = self._worker.close(timeout)
        for uid in self._runs.open:
            logger.warning(
                "run %s: closed before its stop document came; replay it to get its slices", uid
            )
        if not ended:
            raise TimeoutError(f"expected the worker to end within {timeout:g} s; it is still busy")
        self._engine.publishers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # On the RunEngine's thread -----------------------------------------------------------------

    def _enqueue(self, name: str, doc: dict[str, Any]) -> None:
        must = name in STRUCTURAL
        raw_uid = self._routing.run_of(name, doc)
        if name == "stop":
            self._routing.forget(raw_uid)
            self._backlog.discard(raw_uid)
        if self._worker.put((name, doc), must=must) or must or raw_uid in self._backlog:
            return
        self._backlog.add(raw_uid)
        self._worker.put((_BACKLOG, {"run_start": raw_uid}), must=True)
        logger.error(
            "run %s: too many documents are waiting, the scan will have to be replayed", raw_uid
        )

    # On the worker's thread --------------------------------------------------------------------

    def _handle(self, item: tuple[str, dict[str, Any]]) -> None:
        name, doc = item
        if name == _BACKLOG:
            self._runs.mark_backlog(doc["run_start"])
            return
        report = self._runs(name, doc)
        if report is not None:
            with self._lock:
                self._reports.append(report)
