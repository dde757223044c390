"""New raw runs of a Tiled server.

Enter: a server's websocket, which says that something is new, and its answers to questions, which
count. Leave: raw runs that have ended, into the inbox.

Nothing is kept here between two starts: whether a run was worked off already is seen from the
derived runs in the catalog.
"""

import logging
import queue
import threading
import time
from typing import Any

from tiled.client.base import BaseClient
from tiled.queries import Comparison, Eq, KeyPresent

from ..errors import PublishError
from ..publish.connection import connect, knock
from ..publish.explain import explain_request
from ..publish.identity import ORIGINAL_RUN, is_derived
from .inbox import ArchivedRun, Inbox, keep_running

logger = logging.getLogger(__name__)

# Seconds between two questions. A websocket that broke is not noticed otherwise: Tiled's client
# goes on trying to mend it, and says nothing.
_POLL_S = 3.0

# Seconds until a server that was down is asked again.
_AGAIN_S = 1.0

# Clocks of beamlines differ, and a run is archived some time after its stop document was made.
_OVERLAP_S = 600.0

# A Tiled client drops a websocket for good at the first message that is longer than this, and its
# default of 1 MB is less than one frame.
_MAX_MESSAGE_BYTES = 2**28

_TRIES = 3


class TiledSource:
    """Watches a Tiled server.

    Parameters
    ----------
    target : str
        Address or profile.
    since_s : float
        How far back to look for runs that nobody has worked off, in seconds.
    """

    name = "tiled"

    def __init__(self, target: str, since_s: float) -> None:
        self._target = target
        self._since = time.time() - since_s
        self._tries: dict[str, int] = {}
        self._in_hand: set[str] = set()
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._news: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_known_down = False
        self.connected = False

    def start(self, inbox: Inbox) -> None:
        self._thread = keep_running(lambda: self._watch(inbox), self._ending, self.name)

    def finished(self, raw_uid: str, done: bool) -> None:
        with self._lock:
            self._in_hand.discard(raw_uid)
            if done:
                self._tries[raw_uid] = _TRIES
        if not done:
            self._news.put(raw_uid)

    def close(self) -> None:
        self._ending.set()
        self._news.put("")
        if self._thread is not None:
            self._thread.join()

    # The watch ---------------------------------------------------------------------------------

    def _watch(self, inbox: Inbox) -> None:
        """As long as one connection lasts."""
        listener: _Listener | None = None
        try:
            client = connect(self._target)
        except PublishError as error:
            logger.log(logging.DEBUG if self._is_known_down else logging.WARNING, "%s", error)
            self._is_known_down = True
            self._ending.wait(_AGAIN_S)
            return
        try:
            listener = _Listener(client, self._news)
            self._offer_all(client, inbox)
            self.connected, self._is_known_down = True, False
            logger.info("%s: connected", self._target)
            while not self._ending.is_set():
                try:
                    key = self._news.get(timeout=_POLL_S)
                except queue.Empty:
                    knock(client)
                    self._offer_all(client, inbox)
                else:
                    self._offer_one(client, key, inbox)
        except PublishError as error:
            logger.warning("the connection is lost: %s", error)
            self._is_known_down = True
            self._ending.wait(_AGAIN_S)
        finally:
            self.connected = False
            if listener is not None:
                listener.close()
            client.context.close()

    def _offer_all(self, client: Any, inbox: Inbox) -> None:
        """Offer the runs that ended since the last look."""
        with explain_request("Tiled to say which runs are new"):
            found = client
            for query in (
                KeyPresent(f"start.{ORIGINAL_RUN}", exists=False),
                KeyPresent("stop.exit_status"),
                Comparison("ge", "stop.time", self._since),
            ):
                found = found.search(query)
            latest = self._since
            for run in found.values():
                self._offer(client, run, inbox)
                latest = max(latest, run.metadata["stop"]["time"] - _OVERLAP_S)
        self._since = latest

    def _offer_one(self, client: Any, key: str, inbox: Inbox) -> None:
        if not key:
            return
        with explain_request(f"Tiled to show run {key}"):
            run = client.get(key)
        if run is not None and run.metadata.get("stop") and "start" in run.metadata:
            self._offer(client, run, inbox)

    def _offer(self, client: Any, run: Any, inbox: Inbox) -> None:
        start = run.metadata["start"]
        uid = start["uid"]
        with self._lock:
            if is_derived(start) or uid in self._in_hand or self._tries.get(uid, 0) >= _TRIES:
                return
            self._tries[uid] = self._tries.get(uid, 0) + 1
            self._in_hand.add(uid)
        if _n_failed(client, uid) >= _TRIES:
            logger.warning(
                "run %s: %d attempts at it failed, and it is left alone; see the reasons in their "
                "stop documents, then: tomogan-bluesky replay",
                uid,
                _TRIES,
            )
            self.finished(uid, True)
            return
        inbox.put(ArchivedRun(self, uid, run), wait=True)


def _n_failed(client: Any, raw_uid: str) -> int:
    with explain_request("Tiled to say what was derived from a run"):
        found = client.search(Eq(f"start.{ORIGINAL_RUN}", raw_uid))
        return len(found.search(Eq("stop.exit_status", "fail")))


class _Listener:
    """Puts the key of each run that a server's websocket speaks of into a queue.

    It is a hint and no more: where there is no websocket, or it breaks, the server is asked.
    """

    def __init__(self, client: BaseClient, news: "queue.SimpleQueue[str]") -> None:
        self._news = news
        self._subscription: Any = client.subscribe()
        self._subscription.child_created.add_callback(self._heard)
        self._subscription.child_metadata_updated.add_callback(self._heard)
        # Not joined: while its server is down, it sleeps for seconds between two attempts.
        threading.Thread(target=self._run, name="tiled-news", daemon=True).start()

    def close(self) -> None:
        self._subscription.disconnect()

    def _heard(self, update: Any) -> None:
        self._news.put(update.key)

    def _run(self) -> None:
        try:
            self._subscription.start(max_size=_MAX_MESSAGE_BYTES)
        except Exception as error:  # a server without websockets, or one that is gone
            logger.info("no news from %s: %s", self._subscription.context.api_uri, error)
