"""What flows through Kafka in the demo: topics, the events put in, and the answers read back."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import orjson

from deploy.demo.series import Series, replay_order

INPUT, FORECASTS, DEAD_LETTERS, SNAPSHOTS = "events", "forecasts", "dead-letters", "snapshots"
PARTITIONS = 4
BROKEN_STREAM = b"broken_sensor"
BROKEN = {
    b'{"ts":1400000000000,"value":': "not_json",
    b'{"ts":1400000060000,"value":NaN}': "not_finite",
    b'{"ts":1400000120000,"value":null}': "null_value",
    b'{"ts":1400000180000,"value":"n/a"}': "wrong_type",
    b'{"ts":1400000240000}': "missing_field",
}
"""Record values that deserve no forecast, each with the reason its dead letter must give."""


@dataclass(frozen=True, slots=True)
class InputRecord:
    key: bytes
    value: bytes
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """One record of the forecasts topic; `partition`, `offset` are those of the event that it answers.

    `lower` and `upper`: of the interval around `yhat`, infinite while not known. `anomaly_score`: of the event itself,
    0 while not known.
    """

    stream: str
    ts: int
    y: float
    yhat: float
    lower: float
    upper: float
    anomaly_score: float
    is_anomaly: bool
    n_seen: int
    topic: str
    partition: int
    offset: int

    @property
    def has_interval(self) -> bool:
        return math.isfinite(self.lower) and math.isfinite(self.upper)

    @classmethod
    def parse(cls, value: bytes) -> "Forecast":
        record = orjson.loads(value)
        source = record["src"]
        lower, upper = record["lower"][0], record["upper"][0]
        return cls(
            stream=record["stream"],
            ts=record["ts"],
            y=record["y"],
            yhat=record["yhat"][0],
            lower=-math.inf if lower is None else lower,
            upper=math.inf if upper is None else upper,
            anomaly_score=record["anomaly_score"] or 0.0,
            is_anomaly=record["is_anomaly"],
            n_seen=record["n_seen"],
            topic=source["topic"],
            partition=source["partition"],
            offset=source["offset"],
        )


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One record of the dead-letter topic; `value` is the event's, untouched."""

    value: bytes | None
    topic: str
    partition: int
    offset: int
    reason: str

    @classmethod
    def parse(cls, value: bytes | None, headers: Sequence[tuple[str, bytes]]) -> "DeadLetter":
        prefix = "__streamlstm.errors."
        said = {name.removeprefix(prefix): text.decode() for name, text in headers if name.startswith(prefix)}
        return cls(value, said["topic"], int(said["partition"]), int(said["offset"]), said["reason"])


Answer = Forecast | DeadLetter


def input_records(series: Sequence[Series]) -> Iterator[InputRecord]:
    """Every event of every series in replay order, the broken events spread evenly among them."""
    total = sum(len(one.y) for one in series)
    broken = dict(zip((total * k // (len(BROKEN) + 1) for k in range(1, len(BROKEN) + 1)), BROKEN, strict=True))
    for n, (which, position) in enumerate(replay_order(series)):
        one = series[which]
        ts = int(one.ts[position])
        if n in broken:
            yield InputRecord(BROKEN_STREAM, broken[n], ts)
        yield InputRecord(one.stream.encode(), orjson.dumps({"ts": ts, "value": float(one.y[position])}), ts)
