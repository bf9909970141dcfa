"""What each room is told: the sections of the configuration mapped to the settings of the rooms below."""

import os
import socket

from streamlstm.config import Config
from streamlstm.engine.checkpoint import Checkpoint
from streamlstm.engine.forecaster import Forecaster, ForecasterSettings
from streamlstm.engine.prediction import AnomalySettings
from streamlstm.errors import InputMissingError
from streamlstm.events.decode import JsonDecoder, RawDecoder
from streamlstm.events.fields import FieldPaths
from streamlstm.transport.access import Permission
from streamlstm.transport.cluster import Cluster, denied
from streamlstm.transport.permissions import check_permissions, missing_permissions
from streamlstm.transport.settings import ConnectionSettings, SourceSettings, WriterSettings
from streamlstm.transport.topics import check_snapshot_topic, check_topics

COMMIT_TRANSACTIONS = 8
LONGEST_COMMIT_MS = 120_000
"""A commit that has no outcome after so many transaction time-outs, or so long, is given up: the member joins anew."""


def field_paths(config: Config, inputs: tuple[str, ...]) -> FieldPaths:
    """Where a model's inputs stand in an event."""
    given = config.input
    return FieldPaths(
        stream=(given.stream_field,),
        time=given.time_fields,
        value=given.value_fields,
        values=given.values_field,
        inputs=inputs,
        time_unit=given.time_unit,
        stream_source=given.stream_source,
    )


def lets_missing(config: Config) -> bool:
    """Whether an input may be missing from an event that is forecast."""
    return config.events.missing != "dead_letter"


def event_decoder(config: Config, inputs: tuple[str, ...], *, lets_missing: bool) -> JsonDecoder | RawDecoder:
    """What reads the events of the input topic."""
    paths = field_paths(config, inputs)
    if config.input.format == "raw":
        return RawDecoder(paths.time_unit, lets_missing=lets_missing)
    return JsonDecoder(paths, lets_missing=lets_missing)


def max_ahead_ms(config: Config) -> int | None:
    """How far an event time may be past the record's timestamp; None: any."""
    return config.events.max_ahead_ms if config.events.max_ahead_ms >= 0 else None


def thread_count(wanted: int) -> int:
    """`wanted`, or one for each core that this process may use."""
    return wanted or len(os.sched_getaffinity(0))


def forecaster_settings(config: Config, threads: int) -> ForecasterSettings:
    return ForecasterSettings(
        max_streams=config.state.max_streams,
        max_key_bytes=config.state.max_key_bytes,
        interval_ms=config.model.interval_ms or 0,
        threads=threads,
        backend=config.engine.backend,
        state_dtype=config.engine.state_dtype,
        max_streams_per_partition=config.state.max_streams_per_partition,
        on_full=config.state.on_full,
        ttl_ms=config.state.ttl_ms,
        duplicate=config.events.duplicate,
        out_of_order=config.events.out_of_order,
        max_ahead_ms=max_ahead_ms(config),
        gap_ms=config.events.gap_ms,
        after_gap=config.events.after_gap,
        missing=config.events.missing,
        anomaly=AnomalySettings(
            config.anomaly.direction, config.anomaly.min_deviation, config.anomaly.min_deviation_percent / 100
        ),
    )


def checkpoint_of(config: Config, forecaster: Forecaster) -> Checkpoint | None:
    """The durable side of the forecaster's state; None where snapshots are off."""
    given = config.snapshot
    if not given.enabled:
        return None
    return Checkpoint(
        forecaster,
        group=config.kafka.group_id,
        topic=config.input.topic,
        model_hash=forecaster.model.model_hash,
        max_chunk_bytes=given.max_chunk_bytes,
        interval_seconds=given.interval_ms / 1000,
        bounded=config.state.max_streams_per_partition is not None,
    )


def written_topics(config: Config) -> tuple[str, ...]:
    """The topics that transactions write to."""
    written = (config.output.topic, config.dead_letter.topic)
    return (*written, config.snapshot.topic) if config.snapshot.enabled else written


def needed_permissions(config: Config) -> list[Permission]:
    """What the daemon does to topics and group. Its transactional id is asked for when it is taken over."""
    needed = [Permission("Read", "topic", config.input.topic)]
    needed += [Permission("Write", "topic", topic) for topic in written_topics(config)]
    if config.snapshot.enabled:
        needed.append(Permission("Read", "topic", config.snapshot.topic))
    return [*needed, Permission("Read", "group", config.kafka.group_id)]


def check_cluster(cluster: Cluster, config: Config, *, create: bool = False) -> list[str]:
    """Return when all topics are there and fit the settings, and we may use them; with what is worth a warning.
    `create` makes those to be written. Raises InputMissingError, AccessError, RetryError.
    """
    check_permissions(cluster, needed_permissions(config))
    warnings = _check_topics(cluster, config, create=create)
    if create:
        check_permissions(cluster, needed_permissions(config))
    topics = (config.input.topic, *written_topics(config))
    unseen = missing_permissions(cluster, [Permission("DescribeConfigs", "topic", topic) for topic in topics])
    told = str(denied(cluster.settings, unseen)).splitlines() if unseen else []
    return [*warnings, *(f"its limits and its retention are not looked at: {line}" for line in told)]


def _check_topics(cluster: Cluster, config: Config, *, create: bool) -> list[str]:
    given, problems, warnings = config.snapshot, list[str](), list[str]()
    written = (config.output.topic, config.dead_letter.topic)
    try:
        check_topics(
            cluster, config.input.topic, written, max_batch_bytes=config.output.max_batch_bytes, create=create,
            keyless=written[1:] if config.input.stream_source == "key" else written,
        )  # fmt: skip
    except InputMissingError as error:
        problems = str(error).splitlines()
    if given.enabled:
        try:
            warnings = check_snapshot_topic(
                cluster, config.input.topic, given.topic,
                interval_ms=given.interval_ms, max_chunk_bytes=given.max_chunk_bytes, create=create,
            )  # fmt: skip
        except InputMissingError as error:
            problems += str(error).splitlines()
    if problems:
        raise InputMissingError("\n".join(dict.fromkeys(problems)))
    return warnings


def connection_settings(config: Config) -> ConnectionSettings:
    """Holds secrets: hand it to the transport and keep it nowhere."""
    kafka = config.kafka
    return ConnectionSettings(
        bootstrap_servers=kafka.bootstrap_servers,
        client_id=kafka.client_id,
        security=kafka.security.client_settings(),
        request_timeout_ms=config.commit.request_timeout_ms,
        reconnect_backoff_max_ms=kafka.reconnect_backoff_max_ms,
        read_bytes=config.fetch.socket_read_bytes,
    )


def source_settings(config: Config) -> SourceSettings:
    kafka, fetch, given = config.kafka, config.fetch, config.input
    return SourceSettings(
        topics=(given.topic,),
        group_id=kafka.group_id,
        group_instance_id=kafka.group_instance_id,
        start=given.start,
        start_timestamp_ms=given.start_timestamp_ms,
        session_timeout_ms=kafka.session_timeout_ms,
        heartbeat_interval_ms=kafka.heartbeat_interval_ms,
        max_poll_interval_ms=kafka.max_poll_interval_ms,
        fetch_min_bytes=fetch.min_bytes,
        fetch_max_wait_ms=fetch.max_wait_ms,
        fetch_max_bytes=fetch.max_bytes,
        max_partition_fetch_bytes=fetch.max_partition_bytes,
        max_batch_bytes=fetch.max_batch_bytes,
    )


def writer_settings(config: Config) -> WriterSettings:
    """The transactional id is fixed per replica : after kill -9 the same id frees the partitions at once."""
    commit = config.commit
    replica = config.kafka.group_instance_id or socket.gethostname()
    return WriterSettings(
        transactional_id=commit.transactional_id or f"{config.kafka.group_id}-{replica}",
        request_timeout_ms=commit.request_timeout_ms,
        transaction_timeout_ms=commit.transaction_timeout_ms,
        commit_timeout_ms=min(COMMIT_TRANSACTIONS * commit.transaction_timeout_ms, LONGEST_COMMIT_MS),
        protocol=commit.transaction_protocol,
    )
