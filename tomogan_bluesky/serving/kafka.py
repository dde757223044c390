"""Documents from Kafka, as bluesky-kafka publishes them.

Enter: the messages of topics, each a name and a document. Leave: documents, into the inbox.

Servers of one group share the partitions of the topics, and with them the runs: a publisher of
bluesky-kafka keeps to one partition. What is committed is the start of the oldest run that is not
worked off, so that a server that takes over reads it from there.
"""

import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from ..errors import ConfigurationError
from .inbox import Document, Inbox, keep_running
from .messages import MessageError, checked, unpack

logger = logging.getLogger(__name__)

_POLL_S = 0.2

_Partition = tuple[str, int]


class KafkaSource:
    """Takes part in the work on topics of a Kafka cluster.

    Parameters
    ----------
    servers : str
        ``host:port``, several with commas between.
    topics : sequence of str
    group : str
        Servers of one group share the runs; each group is given all of them.
    config : Path, optional
        YAML file with settings of librdkafka, such as ``sasl.password``.

    Raises
    ------
    ConfigurationError
        Settings that librdkafka does not know, or a file that holds none.
    """

    name = "kafka"

    def __init__(
        self,
        servers: str,
        topics: Sequence[str],
        group: str = "tomogan",
        config: Path | None = None,
    ) -> None:
        self._servers, self._topics = servers, list(topics)
        self._settings = {
            **_settings_in(config),
            "bootstrap.servers": servers,
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "reconnect.backoff.max.ms": 2000,
            "session.timeout.ms": 10_000,  # until another server is given what a dead one had
            "error_cb": self._note_error,
            "logger": logger,
        }
        try:
            self._consumer = Consumer(self._settings)
        except (KafkaException, TypeError) as error:
            raise ConfigurationError(
                f"--kafka: expected settings of librdkafka, got: {error}"
            ) from error
        self._lock = threading.Lock()
        self._starts: dict[str, tuple[_Partition, int]] = {}  # of runs that are not worked off
        self._next: dict[_Partition, int] = {}
        self._to_commit: set[_Partition] = set()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self.connected = False

    def start(self, inbox: Inbox) -> None:
        self._consumer.subscribe(self._topics, on_assign=self._assigned, on_revoke=self._revoked)
        self._thread = keep_running(lambda: self._receive(inbox), self._ending, self.name)

    def finished(self, raw_uid: str, done: bool) -> None:
        with self._lock:
            if raw_uid not in self._starts:
                return
            partition, _ = self._starts[raw_uid]
            if done:
                del self._starts[raw_uid]
                self._to_commit.add(partition)
            else:
                logger.warning(
                    "run %s: is not committed, and comes again when a server starts", raw_uid
                )

    def close(self) -> None:
        self._ending.set()
        if self._thread is not None:
            self._thread.join()
        self._commit()
        self._consumer.close()

    # On the thread of the source ---------------------------------------------------------------

    def _receive(self, inbox: Inbox) -> None:
        while not self._ending.is_set():
            message = self._consumer.poll(_POLL_S)
            self._commit()
            if message is None:
                continue
            if (error := message.error()) is not None:
                self._note_error(error)
                continue
            self._take(message, inbox)

    def _take(self, message: Message, inbox: Inbox) -> None:
        partition, offset = (message.topic() or "", message.partition() or 0), message.offset() or 0
        content = message.value() or b""
        try:
            name, doc = _document(content)
        except MessageError as error:
            logger.error(
                "%s: message %d of %s refused: %s", self._servers, offset, *partition, error
            )
            return
        finally:
            with self._lock:
                self._next[partition] = offset + 1
        if name == "start":
            with self._lock:
                self._starts.setdefault(doc["uid"], (partition, offset))
        item = Document(self, name, doc)
        if inbox.put(item, len(content), wait=False):
            return
        # A consumer that no longer polls is taken for dead.
        assigned = self._consumer.assignment()
        self._consumer.pause(assigned)
        while not (inbox.put(item, len(content), wait=False) or self._ending.is_set()):
            self._consumer.poll(_POLL_S)
            self._commit()
        self._consumer.resume(assigned)

    def _commit(self) -> None:
        """Commit up to the oldest run that is not worked off, in the partitions that changed."""
        with self._lock:
            offsets = [
                TopicPartition(*partition, offset=self._oldest(partition))
                for partition in self._to_commit
            ]
            self._to_commit.clear()
        if not offsets:
            return
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            logger.warning("%s: not committed, and will come again: %s", self._servers, error)

    def _oldest(self, partition: _Partition) -> int:
        starts = [offset for where, offset in self._starts.values() if where == partition]
        return min(starts, default=self._next[partition])

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.connected = True
        logger.info("%s: connected, %d partitions are ours", self._servers, len(partitions))

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Others have them now, from what was committed on."""
        gone = {(partition.topic, partition.partition) for partition in partitions}
        self._commit()
        with self._lock:
            self._starts = {uid: at for uid, at in self._starts.items() if at[0] not in gone}
            self._to_commit -= gone

    def _note_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.connected = False
        logger.warning("%s: %s", self._servers, error.str())


def _document(content: bytes) -> tuple[str, dict[str, Any]]:
    pair = unpack(content)
    if not (isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str)):
        raise MessageError(
            f"expected the name of a document and the document, got a {type(pair).__name__}"
        )
    return pair[0], checked(pair[0], pair[1])


def _settings_in(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        settings = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path}: expected settings in YAML, got: {error}") from error
    if not isinstance(settings, dict):
        raise ConfigurationError(
            f"{path}: expected names and values, got {type(settings).__name__}"
        )
    return settings
