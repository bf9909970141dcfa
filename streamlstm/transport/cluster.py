"""Requests to the brokers, each with a deadline of ours.

An answer is the broker's response, or NotSent (the broker can't have seen the request), or Lost (it may or may not have
carried it out). Nothing is retried here: that is for the caller, who knows what may be done twice.

A Cluster has its own I/O thread and may be used by several threads at once. Deadlines are on the clock handed in, in
seconds.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from kafka import errors as kafka_errors
from kafka.protocol.metadata import ApiVersionsRequest, FindCoordinatorRequest
from kafka.structs import TopicPartition

from streamlstm.errors import AccessError, ConfigError, RetryError
from streamlstm.transport.access import TOPIC_DENIED, Permission, refusal
from streamlstm.transport.connection import ACCESS_ERRORS, FIRST_ERRORS, check_client, open_connections
from streamlstm.transport.greeting import not_let_in
from streamlstm.transport.settings import ConnectionSettings

RETRY_PAUSE_SECONDS = 0.05
ACCESS_CODES = (29, 30, 31, 53)  # topic, group, cluster, transactional id: _AUTHORIZATION_FAILED


@dataclass(frozen=True, slots=True)
class NotSent:
    """The request never left."""

    why: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The request may have arrived; its answer did not."""

    why: str


DEADLINE_OVER = NotSent("the deadline is over")


class CoordinatorKind(IntEnum):
    GROUP = 0
    TRANSACTION = 1


_TO_FIND: dict[CoordinatorKind, Callable[[str], Permission]] = {
    CoordinatorKind.GROUP: lambda name: Permission("Describe", "group", name),
    CoordinatorKind.TRANSACTION: lambda name: Permission("Write", "transactional-id", name),
}


def code_name(code: int) -> str:
    """The protocol's name of an error code, for messages."""
    return f"{kafka_errors.for_code(code).__name__.removesuffix('Error')} ({code})"


def denied(settings: ConnectionSettings, permissions: Iterable[Permission], code: int = 0) -> AccessError:
    """The error for permissions that we lack, by a broker's `code` (one of ACCESS_CODES) or by what it grants."""
    return refusal(permissions, settings.security, settings.bootstrap_servers, code_name(code) if code else "")


class Cluster:
    """Connections to every broker, metadata, and who coordinates what."""

    def __init__(self, settings: ConnectionSettings, clock: Callable[[], float]) -> None:
        self.settings = settings
        self.clock = clock
        self._connections = open_connections(settings)
        self._coordinators: dict[tuple[CoordinatorKind, str], int] = {}

    @classmethod
    def connect(cls, settings: ConnectionSettings, clock: Callable[[], float]) -> "Cluster":
        """Check the installed client and reach a broker.

        Raises ConfigError (client, TLS files), AccessError (they don't let us in, or can't be trusted), RetryError (no
        broker answers).
        """
        check_client()
        cluster = cls(settings, clock)
        try:
            cluster._bootstrap(cluster.deadline(settings.connect_timeout_ms))
        except BaseException:
            cluster.close()
            raise
        return cluster

    def _bootstrap(self, deadline: float) -> None:
        while True:
            try:
                self._connections.bootstrap(max(1.0, (deadline - self.clock()) * 1000))
                return
            except (*ACCESS_ERRORS, *FIRST_ERRORS) as error:
                refused = not_let_in(error, self.settings, self._connections.refused_by)
                if refused is not None:
                    raise refused from error
                if self.clock() >= deadline:
                    raise self._silence(error) from error
            except kafka_errors.KafkaError as error:
                raise self._silence(error) from error

    def bootstrap_again(self) -> None:
        """Ask the bootstrap servers which brokers there are: all may have got other addresses while none was heard
        (KIP-899). Nothing changes where these don't answer either.
        """
        if self._connections.bootstrapped:  # noted before the attempt: see Connections
            with suppress(kafka_errors.KafkaError):
                self._connections.bootstrap(self.settings.request_timeout_ms)

    def _silence(self, error: Exception) -> RetryError:
        return RetryError(f"no broker of {self._servers()} answers: {self._connections.last_error or error}")

    def refused(self, error: Exception) -> AccessError:
        """What it means that a connection was refused with `error`, one of ACCESS_ERRORS."""
        where = self._connections.refused_by or self._servers()
        return not_let_in(error, self.settings, where) or AccessError(f"{where} refuses us: {error}")

    def close(self) -> None:
        """Idempotent; requests under way are Lost."""
        self._connections.close()
        self._connections._net.close()

    def deadline(self, timeout_ms: int | None = None) -> float:
        """The moment `timeout_ms` (default: the request time-out) from now."""
        return self.clock() + (self.settings.request_timeout_ms if timeout_ms is None else timeout_ms) / 1000

    def send(self, node: int, request: Any, deadline: float) -> Any:
        """One request to one broker: its response, NotSent or Lost."""
        return self.send_all([(node, request)], deadline)[0]

    def send_all(self, requests: Sequence[tuple[int, Any]], deadline: float) -> list[Any]:
        """Requests to brokers, all in flight together; answers in the same order.

        Raises AccessError when a login is refused, ConfigError when a broker is too old for a request.
        """
        answers: list[Any] = self._connections.run(self._exchange_all, requests, deadline)
        return answers

    def send_any(self, request: Any, deadline: float) -> Any:
        """One request to whichever broker is least busy."""
        node = self._connections.least_loaded_node()
        return NotSent("no broker can be reached") if node is None else self.send(node, request, deadline)

    async def _exchange_all(self, requests: Sequence[tuple[int, Any]], deadline: float) -> list[Any]:
        begun = [await self._begin(node, request, deadline) for node, request in requests]
        return [await self._finish(each) for each in begun]

    async def _begin(self, node: int, request: Any, deadline: float) -> Any:
        left_ms = (deadline - self.clock()) * 1000
        if left_ms <= 0:
            return DEADLINE_OVER
        try:
            connection = self._connections.get_connection(node, timeout_ms=left_ms)
            if not connection.init_future.succeeded():
                await self._connections.wait_for(connection.init_future, left_ms)
        except ACCESS_ERRORS as error:
            raise self.refused(error) from error
        except kafka_errors.KafkaError as error:
            return NotSent(f"broker {node}: {self._connections.last_error or error}")
        left_ms = (deadline - self.clock()) * 1000
        future = connection.send_request(request, request_timeout_ms=max(left_ms, 1))
        if not future.failed():
            return future
        if isinstance(future.exception, kafka_errors.IncompatibleBrokerVersion):
            raise ConfigError([f"kafka.bootstrap_servers: broker {node} is too old: {future.exception}"])
        return NotSent(f"broker {node}: {future.exception}")

    async def _finish(self, begun: Any) -> Any:
        if isinstance(begun, NotSent):
            return begun
        try:
            return await begun
        except kafka_errors.KafkaError as error:
            return Lost(str(error))

    def coordinator(self, kind: CoordinatorKind, key: str, deadline: float) -> int | NotSent:
        """The broker that coordinates a group or a transactional id; asked once, until `forget_coordinator`."""
        known = self._coordinators.get((kind, key))
        if known is not None:
            return known
        request = FindCoordinatorRequest(key=key, key_type=int(kind), coordinator_keys=[key])
        answer = self.send_any(request, deadline)
        if isinstance(answer, NotSent | Lost):
            return NotSent(answer.why)
        found = answer.coordinators[0] if answer.coordinators else answer
        if found.error_code in ACCESS_CODES:
            raise denied(self.settings, [_TO_FIND[kind](key)], found.error_code)
        if found.error_code:
            return NotSent(f"the coordinator of {key!r} is unknown: {code_name(found.error_code)}")
        if self._connections.cluster.broker_metadata(found.node_id) is None:
            self.refresh(deadline)
        self._coordinators[kind, key] = found.node_id
        return int(found.node_id)

    def forget_coordinator(self, kind: CoordinatorKind, key: str) -> None:
        self._coordinators.pop((kind, key), None)

    def watch(self, topics: Sequence[str], deadline: float) -> None:
        """Keep the metadata of these topics from now on."""
        new = [topic for topic in topics if self.partitions(topic) is None]
        for topic in new:
            self._connections.cluster.add_topic(topic)
        if new:
            self.refresh(deadline)

    def refresh(self, deadline: float) -> bool:
        """Ask for the metadata of the watched topics now; False when no broker answered in time."""
        left_ms = (deadline - self.clock()) * 1000
        if left_ms <= 0:
            return False
        try:
            self._connections.run(self._refresh, left_ms)
        except kafka_errors.KafkaError:
            return False
        unauthorized = self._connections.cluster.unauthorized_topics
        if unauthorized:
            raise denied(
                self.settings, (Permission("Describe", "topic", topic) for topic in sorted(unauthorized)), TOPIC_DENIED
            )
        return True

    async def _refresh(self, timeout_ms: float) -> None:
        refreshed = self._connections.call_soon(self._connections.cluster.refresh_metadata)
        await self._connections.wait_for(refreshed, timeout_ms)

    def missing(self, topics: Iterable[str]) -> list[str]:
        """The watched topics of these, in order, of which a broker, asked now, says that there is no such; silence says
        nothing.
        """
        wanted = sorted(set(topics))
        if not (wanted and self.refresh(self.deadline())):
            return []
        return [topic for topic in wanted if self.partitions(topic) is None]

    def is_missing(self, topic: str) -> bool:
        """As `missing`, of one topic."""
        return bool(self.missing([topic]))

    def leader(self, topic: str, partition: int) -> int | None:
        """The broker that leads a partition as far as is known; None: nobody, or unknown."""
        node = self._connections.cluster.leader_for_partition(TopicPartition(topic, partition))
        return None if node is None or node < 0 else int(node)

    def controller(self) -> int | None:
        """The broker that takes changes to topics, as far as is known."""
        node = self._connections.cluster.controller
        return None if node is None else int(node.node_id)

    def partitions(self, topic: str) -> int | None:
        """How many partitions a watched topic has; None: none is known, of which `is_missing` tells more."""
        found = self._connections.cluster.partitions_for_topic(topic)
        return len(found) if found else None

    def features(self, deadline: float) -> dict[str, int]:
        """Finalized cluster features and their levels (KIP-584), none on clusters before Kafka 2.7.

        Raises RetryError when no broker answers before the deadline.
        """
        request = ApiVersionsRequest(client_software_name="streamlstm", client_software_version="0")
        answer = self.ask(lambda: self.send_any(request, deadline), deadline, "which features the cluster has")
        if answer.error_code or answer.finalized_features_epoch < 0:
            return {}
        return {feature.name: int(feature.max_version_level) for feature in answer.finalized_features}

    def ask(self, question: Callable[[], Any], deadline: float, what: str) -> Any:
        """Ask a question without side effects until it is answered. Raises RetryError at the deadline."""
        while True:
            answer = question()
            if not isinstance(answer, NotSent | Lost):
                return answer
            if self.clock() + RETRY_PAUSE_SECONDS >= deadline:
                raise RetryError(f"no answer to {what}: {answer.why}")
            self.pause(RETRY_PAUSE_SECONDS)

    def pause(self, seconds: float) -> None:
        """Sleep on the event loop; ends early when the cluster is closed."""
        self._connections.run(self._sleep, seconds)

    async def _sleep(self, seconds: float) -> None:
        await self._connections._net.sleep(seconds)

    def _servers(self) -> str:
        return ", ".join(self.settings.bootstrap_servers)
