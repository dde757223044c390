"""Numbers about the callback's work, for Prometheus.

Enter: the reports of runs, and functions that tell the state of what is running. Leaves: a page
that a Prometheus server reads, on a port of this machine.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from .errors import ConfigurationError
from .report import RunReport
from .worker.state import WorkerState

# From a slab of a small scan to a night's work.
_LAG_BUCKETS_S = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 50_000)


class Metrics:
    """What a Prometheus server may read.

    All names begin with ``tomogan_``. A `TomoGANCallback` in a program of yours is watched with::

        metrics = Metrics()
        metrics.watch_worker(lambda: tomogan.worker_state)
        with metrics.served(9108):
            ...
            for report in tomogan.wait():
                metrics.record(report)

    Attributes
    ----------
    registry : CollectorRegistry
        Its own: other numbers of the same program are left alone.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._gauges: dict[str, Gauge] = {}

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"tomogan_{name}", text, labels, registry=self.registry)

        self._runs = counter("runs", "Raw runs that were worked off", "status")
        self._projections = counter("projections", "Projections by what became of them", "fate")
        self._seconds = counter("stage_seconds", "Time spent in each stage", "stage")
        self._slices = counter("slices", "Slices that were published")
        self._failed_slices = counter("failed_slices", "Slices published as NaN: their slab failed")
        self._clamped = counter(
            "clamped_transmissions", "Transmissions raised before the logarithm"
        )
        self._lag = Histogram(
            "tomogan_lag_seconds",
            "From the end of a raw run to that of its derived run",
            buckets=_LAG_BUCKETS_S,
            registry=self.registry,
        )
        self._first_slice_lag = Histogram(
            "tomogan_first_slice_lag_seconds",
            "From the last projection of a scan until its first slices are on their way",
            buckets=_LAG_BUCKETS_S,
            registry=self.registry,
        )
        for status in ("success", "abort", "fail", "there already"):
            self._runs.labels(status)  # a rate needs the zero before the first one

    def record(self, report: RunReport) -> None:
        """Count a run that was worked off."""
        self._runs.labels("there already" if report.already_done else report.exit_status).inc()
        if report.already_done:
            return
        frames = report.frames
        for fate, number in (
            ("used", frames.used),
            ("superseded", frames.superseded),
            ("missing", frames.missing),
            ("rejected", sum(frames.rejected.values())),
        ):
            self._projections.labels(fate).inc(number)
        for stage, seconds in report.seconds.items():
            self._seconds.labels(stage).inc(seconds)
        self._slices.inc(report.n_slices)
        self._failed_slices.inc(report.n_failed_slices)
        self._clamped.inc(report.n_clamped)
        if report.lag_s is not None:
            self._lag.observe(report.lag_s)
        if report.first_slice_lag_s is not None:
            self._first_slice_lag.observe(report.first_slice_lag_s)

    def watch(self, name: str, text: str, now: Callable[[], float], **labels: str) -> None:
        """Show a number that is asked for each time the page is read.

        Parameters
        ----------
        name : str
            Without the ``tomogan_``.
        text : str
        now : callable
            Returns the number; called on the thread of the page.
        **labels
            Of this number among those of the same name.
        """
        full = f"tomogan_{name}"
        gauge = self._gauges.get(full)
        if gauge is None:
            gauge = self._gauges[full] = Gauge(full, text, tuple(labels), registry=self.registry)
        (gauge.labels(**labels) if labels else gauge).set_function(now)

    def watch_worker(self, state: Callable[[], WorkerState]) -> None:
        """Show what a worker is at.

        Parameters
        ----------
        state : callable
            Returns the `WorkerState`, as in ``lambda: tomogan.worker_state``.
        """
        for name, text, now in (
            (
                "documents",
                "Documents not handled yet",
                lambda: state().waiting_items,
            ),
            ("bytes", "Memory that is held for documents", lambda: state().waiting_bytes),
        ):
            self.watch(f"worker_waiting_{name}", text, now)
        self.watch(
            "worker_restarts", "Worker processes that died or hung", lambda: state().restarts
        )

    @contextmanager
    def served(self, port: int, host: str = "127.0.0.1") -> Iterator[int]:
        """Serve the page at ``http://host:port/metrics`` as long as the block lasts.

        Parameters
        ----------
        port : int
            0: any that is free.
        host : str

        Yields
        ------
        int
            The port.

        Raises
        ------
        ConfigurationError
            The port is taken.
        """
        try:
            server, thread = start_http_server(port, host, self.registry)
        except OSError as error:
            raise ConfigurationError(
                f"expected to serve metrics at {host}:{port}, got: {error.strerror}; name another "
                "port, or 0 for any that is free"
            ) from error
        try:
            yield int(server.server_port)
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
