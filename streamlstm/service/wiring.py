"""What each room is told: the sections of the configuration mapped to the settings of the rooms below."""

import os
import socket

from streamlstm.config import Config
from streamlstm.engine.forecaster import ForecasterSettings
from streamlstm.events.fields import FieldPaths
from streamlstm.model.model_file import Model
from streamlstm.transport.settings import ConnectionSettings, SourceSettings, WriterSettings


def field_paths(config: Config, model: Model) -> FieldPaths:
    """Where the model's inputs stand in an event."""
    given = config.input
    return FieldPaths(
        stream=(given.stream_field,),
        time=given.time_fields,
        value=given.value_fields,
        values=given.values_field,
        inputs=model.inputs,
        time_unit=given.time_unit,
        stream_source=given.stream_source,
    )


def thread_count(wanted: int) -> int:
    """`wanted`, or one for each core that this process may use."""
    return wanted or len(os.sched_getaffinity(0))


def forecaster_settings(config: Config, threads: int) -> ForecasterSettings:
    return ForecasterSettings(
        max_streams=config.state.max_streams,
        max_key_bytes=config.state.max_key_bytes,
        interval_ms=config.model.interval_ms or 0,
        threads=threads,
    )


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
        protocol=commit.transaction_protocol,
    )
