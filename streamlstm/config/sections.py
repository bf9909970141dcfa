"""Every setting: its name with the unit in it, type, bounds, default, and the sentence that explains it.

The sentences become the comments of the file that `streamlstm init` writes.
"""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator

from streamlstm.config.section import Section, Text, setting
from streamlstm.config.security import Security

DAY_MS = 86_400_000
GIB = 1 << 30

_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_SERVER = re.compile(r"(\[[0-9a-fA-F:]+\]|[^\s:,/]+):([0-9]{1,5})")

TOPIC = "a topic name: 1 to 249 of a-z A-Z 0-9 . _ -"
SERVERS = 'a list of "host:port"'
PATHS = "a list of field names or dotted paths"


def _topic(name: str) -> str:
    if not _TOPIC.fullmatch(name) or name in (".", ".."):
        raise ValueError(TOPIC)
    return name


def _server(address: str) -> str:
    found = _SERVER.fullmatch(address)
    if not found or not 0 < int(found[2]) < 65536:
        raise ValueError(SERVERS)
    return address


def _not_empty(values: tuple[str, ...]) -> tuple[str, ...]:
    if not values:
        raise ValueError("at least one")
    return values


Topic = Annotated[str, AfterValidator(_topic)]
Server = Annotated[str, AfterValidator(_server)]
Servers = Annotated[tuple[Server, ...], AfterValidator(_not_empty)]
Texts = Annotated[tuple[Text, ...], AfterValidator(_not_empty)]


class Kafka(Section):
    """The cluster and this member of the consumer group."""

    bootstrap_servers: Servers = setting(("localhost:9092",), "Brokers to ask first.", expected=SERVERS)
    group_id: Text = setting("streamlstm", "Consumer group; replicas with the same group share the partitions.")
    group_instance_id: Text | None = setting(
        None,
        "Name of this replica, for static membership: a restart within the session time-out moves no partition. "
        "Each replica needs its own.",
        example="streamlstm-0",
    )
    client_id: Text = setting("streamlstm", "Name of this client in the brokers' logs and quotas.")
    session_timeout_ms: int = setting(
        45_000, "A member that sends no heartbeat for so long loses its partitions.", low=6_000, high=1_800_000
    )
    heartbeat_interval_ms: int = setting(
        500, "Heartbeats to the group; a member hears of a rebalance within one of these.", low=50, high=60_000
    )
    max_poll_interval_ms: int = setting(
        60_000,
        "A member that does not poll for so long leaves the group. A rebalance waits as long for a member that died "
        "while it was joining.",
        low=1_000,
        high=DAY_MS,
    )
    reconnect_backoff_max_ms: int = setting(
        1_000, "Longest pause between two attempts to reach a broker.", low=50, high=60_000
    )
    security: Security = Security()


class Input(Section):
    """The events."""

    topic: Topic = setting("events", "Topic of the events.", expected=TOPIC)
    format: Literal["json", "raw"] = setting(
        "json", "json: objects; raw: little-endian float64, the inputs in order, optionally after the time."
    )
    stream_source: Literal["auto", "key", "field"] = setting(
        "auto", "Where the stream id is: the record's key, a field, or the field when the event has it, else the key."
    )
    stream_field: Text = setting("stream", "Field (or dotted path) of the stream id.")
    time_fields: Texts = setting(
        ("ts", "timestamp", "time", "ds"),
        "Fields of the event time, the first found counts; none: the record's time.",
        expected=PATHS,
    )
    time_unit: Literal["s", "ms", "us", "ns"] = setting("ms", "Unit of event times that are numbers.")
    value_fields: Texts = setting(
        ("value", "target", "y"),
        "Fields of the value of a model with one input, the first found counts.",
        expected=PATHS,
    )
    values_field: Text = setting("values", "Field of several inputs: an array in the model's order, or an object.")
    start: Literal["earliest", "latest", "timestamp"] = setting(
        "earliest", "Where a group without committed offsets begins."
    )
    start_timestamp_ms: int | None = setting(
        None, 'With start = "timestamp": the first record at or after this time.', low=0, example=1_730_000_000_000
    )


class Output(Section):
    """The forecasts."""

    topic: Topic = setting("forecasts", "Topic of the forecasts.", expected=TOPIC)
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = setting("none", "Codec of what is written.")
    max_batch_bytes: int = setting(
        900_000,
        "Largest record batch written, before compression; the topic's max.message.bytes must allow it.",
        low=10_000,
        high=100_000_000,
    )


class DeadLetter(Section):
    """Records that get no forecast, with the reason in their headers."""

    topic: Topic = setting("dead-letters", "Topic of the dead letters.", expected=TOPIC)


class ModelSettings(Section):
    """The model."""

    path: Text = setting("model.safetensors", "Model file, as written by `streamlstm import`.")
    interval_ms: int | None = setting(
        None,
        "Time between two events of a stream, for target_ts; unset: the model's, else the observed.",
        low=1,
        high=400 * DAY_MS,
        example=60_000,
    )


class State(Section):
    """The state of the streams. It is all allocated at the start: `streamlstm size` says how much."""

    max_streams: int = setting(
        100_000, "Streams this replica can hold, of all its partitions together.", low=1, high=1_000_000_000
    )
    max_streams_per_partition: int | None = setting(
        None,
        "Streams one partition can hold; unset: max_streams. Set it, below max_streams divided by the partitions of a "
        "replica, where the streams that get in may not depend on which partitions share a replica.",
        low=1,
        high=1_000_000_000,
        example=25_000,
    )
    on_full: Literal["refuse", "evict"] = setting(
        "refuse",
        "A new stream beyond those: refuse makes its events dead letters, evict forgets the partition's least recent.",
    )
    ttl_ms: int | None = setting(
        None,
        "Forget a stream when the newest event time of its partition is so far past its own; unset: never.",
        low=1,
        high=4_000 * DAY_MS,
        example=30 * DAY_MS,
    )
    max_key_bytes: int = setting(64, "Longest stream id in UTF-8 bytes.", low=8, high=4_096)


class Events(Section):
    """Events that are not as expected. Whatever is decided here, every record gets one forecast or one dead letter."""

    missing: Literal["dead_letter", "hold", "forecast"] = setting(
        "dead_letter",
        "A value that is null or NaN: hold takes the stream's last value for it, forecast its last forecast.",
    )
    duplicate: Literal["process", "dead_letter"] = setting(
        "process", "An event with the time of the stream's last one."
    )
    out_of_order: Literal["process", "dead_letter"] = setting(
        "process", "An event older than the stream's last one; a forecast made of it has the status late."
    )
    max_ahead_ms: int = setting(
        DAY_MS,
        "An event time so far past the record's own timestamp is a dead letter; -1: never.",
        low=-1,
        high=4_000 * DAY_MS,
    )
    gap_ms: int | None = setting(
        None,
        "Time between two events of a stream beyond which a forecast has the status gap; unset: never.",
        low=1,
        high=4_000 * DAY_MS,
        example=3_600_000,
    )
    after_gap: Literal["continue", "reset"] = setting(
        "continue", "After a gap: go on with the stream's state, or begin anew."
    )


class Anomaly(Section):
    """The anomaly score of models with intervals: above 1 is anomalous."""

    direction: Literal["both", "up", "down"] = setting(
        "both", "Which side of what is expected can be anomalous: up, down or both."
    )
    min_deviation: float = setting(
        0.0, "Smaller deviations, in the unit of the target, are never anomalous.", low=0.0, high=1e30
    )
    min_deviation_percent: float = setting(
        0.0, "Smaller deviations, in percent of the stream's mean, are never anomalous.", low=0.0, high=1e6
    )


class Snapshot(Section):
    """State in a compacted topic, written in the same transactions as the forecasts."""

    enabled: bool = setting(True, "false: state lives in memory only, and a restart begins it anew.")
    topic: Topic = setting(
        "snapshots", "Compacted topic with as many partitions as the input; one for each consumer group.",
        expected=TOPIC,
    )  # fmt: skip
    interval_ms: int = setting(
        60_000,
        "Every stream's state is written once in so long; a restart replays the events of about as long.",
        low=1_000,
        high=DAY_MS,
    )
    max_chunk_bytes: int = setting(
        524_288, "Largest record of the snapshot topic; streams are parted accordingly.", low=16_384, high=16_777_216
    )
    on_gap: Literal["fail", "warm"] = setting(
        "fail",
        "When state can't be restored exactly (records to replay are gone, a snapshot is missing or damaged): fail "
        "stops the partition and says what is missing; warm begins what is lost anew, its forecasts degraded for a "
        "while.",
    )
    on_model_change: Literal["fail", "warm"] = setting(
        "fail", "When the snapshots are of another model or an older layout: fail refuses to start, warm begins anew."
    )


class Commit(Section):
    """Transactions: forecasts, dead letters and source offsets become visible together."""

    interval_ms: int = setting(100, "Time from one commit to the next; 10 for low latency.", low=1, high=60_000)
    max_bytes: int = setting(
        16_777_216,
        "Commit earlier when so many bytes of output, or of new streams' state, are waiting.",
        low=65_536,
        high=GIB,
    )
    request_timeout_ms: int = setting(5_000, "Deadline of one request to a broker.", low=100, high=300_000)
    transaction_timeout_ms: int = setting(
        15_000,
        "The broker aborts a transaction after so long; readers of committed records wait for a dead replica so long.",
        low=1_000,
        high=900_000,
    )
    transactional_id: Text | None = setting(
        None,
        "Transactional id, one per replica; unset: made of the group and kafka.group_instance_id, else the host name.",
        example="streamlstm-0",
    )
    transaction_protocol: Literal["auto", "v1", "v2"] = setting(
        "auto", "Transaction protocol (KIP-890); auto: v2 where the cluster has it."
    )


class Engine(Section):
    """Where the model runs."""

    backend: Literal["cpu", "cuda"] = setting(
        "cpu",
        "What computes the steps. cuda: an NVIDIA GPU, which then holds the LSTM state of the streams; needs the extra "
        "[cuda]. The forecasts are the same.",
    )
    state_dtype: Literal["float32", "float16", "bfloat16"] = setting(
        "float32",
        "As what h and c of a stream are stored, in memory and in snapshots; steps compute in float32. The other two "
        "take half the memory and move the forecasts: `streamlstm show` says by how much. With a window: float32.",
    )
    threads: int = setting(0, "Threads of the step; 0: one for each core this process may use.", low=0, high=1_024)


class Fetch(Section):
    """Reading from the brokers; these bound the memory of what is in flight."""

    min_bytes: int = setting(1, "A broker answers when it has so much.", low=1, high=GIB)
    max_wait_ms: int = setting(500, "A broker answers after so long, whatever it has.", low=1, high=60_000)
    max_bytes: int = setting(
        4_194_304,
        "Most that one answer of a broker holds; more costs memory and gains nothing.",
        low=65_536,
        high=GIB,
    )
    max_partition_bytes: int = setting(1_048_576, "Most of one partition in one answer.", low=16_384, high=GIB)
    max_batch_bytes: int = setting(
        67_108_864,
        "Largest record batch once decompressed; a larger one is a dead letter by reference.",
        low=1_048_576,
        high=GIB,
    )
    socket_read_bytes: int = setting(1_048_576, "Size of one read from a broker's socket.", low=4_096, high=67_108_864)


class Metrics(Section):
    """The HTTP port with /metrics, /livez and /readyz."""

    enabled: bool = setting(True, "Whether to open the port.")
    host: Text = setting("0.0.0.0", "Address to listen on; IPv6 works too.")
    port: int = setting(9464, "Port to listen on; 0: any free one, logged at the start.", low=0, high=65_535)
    stalled_after_ms: int = setting(
        60_000,
        "/livez fails when the loop has stood still for so long, or waiting work has not been committed for so long, "
        "150 s at the least: more than brokers may take for a commit.",
        low=1_000,
        high=DAY_MS,
    )


class Log(Section):
    """Logs go to standard error."""

    format: Literal["auto", "text", "logfmt", "json"] = setting("auto", "auto: text on a terminal, logfmt elsewhere.")
    level: Literal["debug", "info", "warning", "error"] = setting("info", "Least severe level shown.")


class Config(Section):
    """The whole configuration."""

    kafka: Kafka = Kafka()
    input: Input = Input()
    output: Output = Output()
    dead_letter: DeadLetter = DeadLetter()
    model: ModelSettings = ModelSettings()
    state: State = State()
    events: Events = Events()
    anomaly: Anomaly = Anomaly()
    snapshot: Snapshot = Snapshot()
    commit: Commit = Commit()
    engine: Engine = Engine()
    fetch: Fetch = Fetch()
    metrics: Metrics = Metrics()
    log: Log = Log()
