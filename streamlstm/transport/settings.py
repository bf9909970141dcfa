"""What the transport needs to know, as frozen values; the service maps the configuration to them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """How to reach the brokers.

    `security` is passed through to kafka-python under its own names (security_protocol, ssl_*, sasl_*); it may hold
    secrets and so never appears in a repr. `read_bytes` is the size of one read from a socket, where there is as much
    to come (kafka-python's own is 4 KB); outside a group it is 256 KB at most.
    """

    bootstrap_servers: tuple[str, ...]
    client_id: str = "streamlstm"
    security: Mapping[str, str | bool] = field(default_factory=dict, repr=False)
    request_timeout_ms: int = 5_000
    connect_timeout_ms: int = 10_000
    reconnect_backoff_ms: int = 50
    reconnect_backoff_max_ms: int = 1_000
    metadata_max_age_ms: int = 60_000
    read_bytes: int = MIB


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """What to read, as which member of which group, and how much at a time.

    `start` is where a group without a committed offset begins; `start_timestamp_ms` goes with "timestamp".
    `max_batch_bytes` bounds one decompressed record batch: a larger one is a decompression bomb and becomes a
    PoisonBatch. `rejoin_after_ms`: a member that is not stable for so long is made to join anew, and gives up
    (RetryError) after three times as long.
    """

    topics: tuple[str, ...]
    group_id: str
    group_instance_id: str | None = None
    start: Literal["earliest", "latest", "timestamp"] = "earliest"
    start_timestamp_ms: int | None = None
    session_timeout_ms: int = 45_000
    heartbeat_interval_ms: int = 500
    max_poll_interval_ms: int = 60_000
    fetch_min_bytes: int = 1
    fetch_max_wait_ms: int = 500
    fetch_max_bytes: int = 16 * MIB
    max_partition_fetch_bytes: int = MIB
    max_batch_bytes: int = 64 * MIB
    rejoin_after_ms: int = 60_000


@dataclass(frozen=True, slots=True)
class WriterSettings:
    """One transactional writer.

    `request_timeout_ms` is the deadline of one request, `commit_timeout_ms` that of one `Writer.commit`, retries and
    doubts included. `transaction_timeout_ms` is the broker's: it aborts what stays open longer. A Produce request holds
    at most `max_request_bytes` (one batch at least). `protocol` "auto": v2 where the cluster has finalized
    transaction.version >= 2 (KIP-890), v1 elsewhere.
    """

    transactional_id: str
    request_timeout_ms: int = 5_000
    transaction_timeout_ms: int = 15_000
    commit_timeout_ms: int = 120_000
    retry_pause_ms: int = 5
    retry_pause_max_ms: int = 200
    max_request_bytes: int = 16 * MIB
    protocol: Literal["auto", "v1", "v2"] = "auto"
