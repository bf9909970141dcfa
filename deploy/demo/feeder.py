"""The user's side of the input topic: a producer that replays the series at a steady rate.

A process of its own: `python -m deploy.demo.feeder 127.0.0.1:9092 25`.
"""

import sys
import time
from collections.abc import Iterator, Sequence

from kafka import KafkaProducer

from deploy.demo.series import load_series
from deploy.demo.wire import INPUT, InputRecord, input_records

BURSTS_PER_SECOND = 50


def feed(bootstrap: str, seconds: float) -> None:
    """Replay every shipped series into the input topic over about `seconds`; returns when the broker has it all."""
    records = list(input_records(load_series()))
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=5, compression_type="lz4")
    begin = time.monotonic()
    count = max(1, round(seconds * BURSTS_PER_SECOND))
    for k, burst in enumerate(bursts(records, count)):
        for record in burst:
            producer.send(INPUT, key=record.key, value=record.value, timestamp_ms=record.timestamp_ms)
        due = begin + seconds * (k + 1) / count
        time.sleep(max(0.0, due - time.monotonic()))
    producer.flush()
    producer.close()


def bursts(records: Sequence[InputRecord], count: int) -> Iterator[Sequence[InputRecord]]:
    """The records cut into `count` bursts of equal size, to one record."""
    for k in range(count):
        yield records[len(records) * k // count : len(records) * (k + 1) // count]


if __name__ == "__main__":
    feed(sys.argv[1], float(sys.argv[2]))
