"""A KafkaConsumer that joins, is fenced, loses partitions and leaves as it should; see the list in connection.py."""

from collections.abc import Callable
from typing import Any

from kafka import KafkaConsumer
from kafka.consumer.fetcher import Fetcher
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.base import BaseCoordinator
from kafka.net.compat import KafkaNetClient
from kafka.net.selector import NetworkSelector
from kafka.record import MemoryRecords
from kafka.structs import TopicPartition
from kafka.util import Timer

from streamlstm.transport.connection import QUIETLY, Connections, client_configs
from streamlstm.transport.settings import ConnectionSettings, SourceSettings
from streamlstm.transport.sockets import TlsContext

JOIN_POLL_MS = 5.0


def open_consumer(
    settings: ConnectionSettings, source: SourceSettings, records: Callable[..., Any], member_id: str = ""
) -> KafkaConsumer:
    """A repaired KafkaConsumer, bootstrapped, not yet subscribed.

    `records` makes the fetcher's PartitionRecords. `member_id` is that of a former consumer whose place it takes in the
    group. Raises kafka-python's errors.
    """

    tls = TlsContext(settings.security)
    clients: list[KafkaNetClient] = []

    def client(**configs: Any) -> KafkaNetClient:
        net = NetworkSelector(**configs | QUIETLY)
        connections = Connections(net, tls, settings.read_bytes, **configs)
        clients.append(KafkaNetClient(net=net, manager=connections, **configs))
        return clients[-1]

    try:
        consumer = KafkaConsumer(kafka_client=client, **client_configs(settings), **_consumer_configs(settings, source))
        for topic in source.topics:  # or the first join, led by us, knows of nothing to assign
            consumer.partitions_for_topic(topic)
    except BaseException:
        for each in clients:
            each.close()
        raise
    _repair_joins(consumer._coordinator)
    _ask_only_for_the_unknown(consumer._coordinator)
    _fetch_only_from_the_idle(consumer._fetcher)
    if member_id:
        consumer._coordinator.reset_generation(member_id=member_id)
    consumer._fetcher.PartitionRecords = records
    return consumer


def note_log_ends(
    consumer: KafkaConsumer, starts: dict[tuple[str, int], int], stable: dict[tuple[str, int], int]
) -> None:
    """Have both kept up to date of each partition that is fetched: the first offset in its log, and its last stable
    offset, up to which a reader of committed records may read.
    """
    parse = consumer._fetcher._parse_fetched_data

    def parse_and_note(fetch: Any) -> Any:
        where = fetch.topic_partition.topic, fetch.topic_partition.partition
        for name, noted in (("log_start_offset", starts), ("last_stable_offset", stable)):
            offset = getattr(fetch.partition_data, name, -1)
            if offset >= 0:
                noted[where] = offset
        return parse(fetch)

    consumer._fetcher._parse_fetched_data = parse_and_note


def _repair_joins(coordinator: BaseCoordinator) -> None:
    """The unfinished join, the forgotten join and the silent loss; see the list at the top."""
    asked, reset = coordinator.need_rejoin, coordinator.reset_generation
    join, complete = coordinator._do_join_and_sync_async, coordinator._on_join_complete_async
    ended: list[tuple[Any, bytes]] = []  # the generation and the assignment of a join that is not taken in yet

    async def join_once() -> bytes:
        if ended and ended[0][0] is coordinator._generation:
            return ended[0][1]
        assignment: bytes = await join()
        ended[:] = [(coordinator._generation, assignment)]
        return assignment

    async def take_in(*given: Any, **named: Any) -> None:
        ended.clear()
        await complete(*given, **named)

    def reset_generation(*given: Any, **named: Any) -> None:
        reset(*given, **named)
        coordinator.rejoining = False  # the next attempt begins with telling what was lost

    coordinator.need_rejoin = lambda: asked() or coordinator.rejoining
    coordinator.reset_generation = reset_generation
    coordinator._do_join_and_sync_async = join_once
    coordinator._on_join_complete_async = take_in


def _ask_only_for_the_unknown(coordinator: BaseCoordinator) -> None:
    """Every poll asks the I/O thread whether the coordinator is known, and waits for the answer: two changes of threads
    that are saved while it is.
    """
    ensure = coordinator.ensure_coordinator_ready

    def ensure_unless_known(timeout_ms: float | None = None) -> bool:
        node = coordinator.coordinator_id
        if node is not None and not coordinator._client.is_disconnected(node):
            return True
        return bool(ensure(timeout_ms))

    coordinator.ensure_coordinator_ready = ensure_unless_known


def _fetch_only_from_the_idle(fetcher: Fetcher) -> None:
    """Every poll that has taken all there was has the I/O thread look for brokers to fetch from, and waits for it: for
    nothing, while each of them has a fetch under way.
    """
    send = fetcher.send_fetches

    def send_unless_pending() -> Any:
        if len(fetcher._nodes_with_pending_fetch_requests) >= len(fetcher._manager.cluster.brokers()):
            return []
        return send()

    fetcher.send_fetches = send_unless_pending


def _consumer_configs(settings: ConnectionSettings, source: SourceSettings) -> dict[str, Any]:
    return {
        "group_id": source.group_id,
        "group_instance_id": source.group_instance_id,
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "isolation_level": "read_committed",
        "partition_assignment_strategy": (CooperativeStickyAssignor,),
        "session_timeout_ms": source.session_timeout_ms,
        "heartbeat_interval_ms": source.heartbeat_interval_ms,
        "max_poll_interval_ms": source.max_poll_interval_ms,
        "fetch_min_bytes": source.fetch_min_bytes,
        "fetch_max_wait_ms": min(source.fetch_max_wait_ms, settings.request_timeout_ms - 1),
        "fetch_max_bytes": source.fetch_max_bytes,
        "max_partition_fetch_bytes": source.max_partition_fetch_bytes,
        "bootstrap_timeout_ms": settings.connect_timeout_ms,
        "retry_backoff_ms": 50,
        "metrics_enabled": False,
    }


def forget_assignment(consumer: KafkaConsumer) -> None:
    """To be called when partitions were lost, so that the next join claims none of them."""
    for assignor in consumer._coordinator._assignors.values():
        assignor.member_assignment = None
        assignor.generation = -1


def heartbeats_stopped(consumer: KafkaConsumer) -> bool:
    """A member that believes itself stable and sends no heartbeats has been fenced (KIP-345)."""
    coordinator = consumer._coordinator
    with coordinator._lock:
        joining = coordinator.rejoining or coordinator.rejoin_needed
        return coordinator.stable() and not coordinator._heartbeat_enabled and not joining


def heartbeat_age(consumer: KafkaConsumer, now: float) -> float:
    """Seconds since the coordinator last answered a heartbeat or a join."""
    heartbeat = consumer._coordinator.heartbeat
    return float(now - max(heartbeat.last_receive, heartbeat.last_reset))


def poll_once(consumer: KafkaConsumer, timeout_ms: float, budget: int) -> dict[TopicPartition, list[Any]]:
    """One round of group upkeep and fetching: at most one join is finished in it, so that what was revoked can still be
    committed before the next round gives it away. `budget` counts as the lists of `records.take()` do.
    """
    coordinator = consumer._coordinator
    taken: dict[TopicPartition, list[Any]]
    if not (coordinator.need_rejoin() and positions(consumer)):
        taken = consumer._poll_once(Timer(timeout_ms), budget)
        return taken
    timer = Timer(timeout_ms)
    taken = consumer._poll_once(Timer(min(timeout_ms, JOIN_POLL_MS)), budget)
    if not taken and coordinator.rejoining:
        taken, _ = consumer._fetcher.fetch_records(budget, timeout_ms=min(timer.timeout_ms, JOIN_POLL_MS))
    return taken


def request_rejoin(consumer: KafkaConsumer) -> None:
    consumer._coordinator.request_rejoin()


def partition_buffer(records: MemoryRecords) -> bytes | memoryview:
    """The bytes of a partition in a fetch response.

    Marks them as started: the fetcher raises for ever on bytes without a whole batch, which we report and step past.
    """
    if len(records._buffer):
        records._next_slice = memoryview(records._buffer)
    buffer: bytes | memoryview = records._buffer
    return buffer


def close_consumer(consumer: KafkaConsumer, timeout_ms: int) -> None:
    """Leave the group (a static member stays) and close every connection. Raises kafka-python's errors, of leaving."""
    try:
        consumer.close(autocommit=False, timeout_ms=timeout_ms)
    finally:
        consumer._client.close()


def positions(consumer: KafkaConsumer) -> dict[tuple[str, int], int]:
    """The next offset of every assigned partition that has a position, control records included."""
    assigned = consumer._subscription.assignment
    return {
        (partition.topic, partition.partition): state.position.offset
        for partition, state in list(assigned.items())
        if state.position is not None
    }
