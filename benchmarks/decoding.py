"""Records and JSON events to columns beside orjson: CPU nanoseconds per event on one core.

    .venv/bin/python benchmarks/decoding.py [--events 20000] [--rounds 60]

The contestants take turns, and the medians of their thread times are compared. `records` is the varint decoding of a
record batch, its copy included; `events` the scan of the values; `orjson` parses each value and does no more than that.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
from figures import Figure, write

from streamlstm.events.batch import PADDING, EventBatch
from streamlstm.events.decode import Appended, JsonDecoder, append_batch
from streamlstm.events.fields import FieldPaths

BASE_TIME = 1_730_000_000_000
STREAMS = 100_000


def _varint(number: int) -> bytes:
    word = (number << 1) ^ (number >> 63)
    encoded = bytearray()
    while word > 0x7F:
        encoded.append(word & 0x7F | 0x80)
        word >>= 7
    return bytes(encoded) + bytes([word])


def records_section(values: list[tuple[bytes, bytes]]) -> bytes:
    """Records with these keys and values, one millisecond after the other."""
    section = bytearray()
    for i, (key, value) in enumerate(values):
        body = b"\0" + _varint(i) + _varint(i) + _varint(len(key)) + key + _varint(len(value)) + value + b"\0"
        section += _varint(len(body)) + body
    return bytes(section)


def shapes(chance: random.Random) -> dict[str, Callable[[int], bytes]]:
    """What producers write: name of the shape to the value of event i."""

    def stream() -> str:
        return f"host-{chance.randrange(STREAMS)}/cpu"

    return {
        "compact, 4 decimals": lambda i: orjson.dumps(
            {"stream": stream(), "ts": BASE_TIME + i, "value": round(chance.gauss(0, 1), 4)}
        ),
        "json.dumps with its spaces": lambda i: json.dumps(
            {"stream": stream(), "ts": BASE_TIME + i, "value": round(chance.gauss(0, 1), 4)}
        ).encode(),
        "key as stream, 17 digits": lambda i: orjson.dumps({"ts": BASE_TIME + i, "value": chance.gauss(0, 1)}),
        "RFC 3339 time": lambda i: orjson.dumps(
            {"stream": stream(), "time": f"2024-05-01T12:{i // 60 % 60:02}:{i % 60:02}.250Z", "value": 1.5}
        ),
        "with unknown fields": lambda i: orjson.dumps(
            {"stream": stream(), "unit": "C", "tags": {"a": [1, 2], "b": "x"}, "ts": BASE_TIME + i, "value": 1.5}
        ),
    }


def median_ns(contestants: dict[str, Callable[[], object]], rounds: int, events: int) -> dict[str, float]:
    times: dict[str, list[int]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            start = time.thread_time_ns()
            run()
            times[name].append(time.thread_time_ns() - start)
    return {name: statistics.median(taken) / events for name, taken in times.items()}


def measure(make: Callable[[int], bytes], events: int, rounds: int) -> tuple[float, dict[str, float]]:
    """Mean bytes of a value, and nanoseconds per event of each contestant."""
    values = [make(i) for i in range(events)]
    section = records_section([(b"host-%d/cpu" % (i % STREAMS), value) for i, value in enumerate(values)])
    batch = EventBatch(1, np.zeros(PADDING, np.uint8), events)
    decoder = JsonDecoder(FieldPaths())

    def append() -> None:
        batch.clear()
        found = append_batch(batch, "t", 0, section, count=events, base_offset=0, base_timestamp=BASE_TIME)
        assert isinstance(found, Appended), found

    append()
    assert decoder.decode(batch, 0, events) == 0, "the scanner has to take these by itself"
    found = median_ns(
        {
            "records": append,
            "events": lambda: decoder.decode(batch, 0, events),
            "orjson": lambda: [orjson.loads(value) for value in values],
        },
        rounds,
        events,
    )
    return statistics.mean(map(len, values)), found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--json", type=Path)
    options, figures = parser.parse_args(), []
    print(f"{'shape':28} {'bytes':>5} {'records':>8} {'events':>8} {'orjson':>8}   ns per event")
    for name, make in shapes(random.Random(0)).items():
        size, found = measure(make, options.events, options.rounds)
        print(f"{name:28} {size:5.0f} {found['records']:8.1f} {found['events']:8.1f} {found['orjson']:8.1f}")
        figures += [
            Figure(f"record of an event {name}", found["records"], "ns"),
            Figure(f"event {name}", found["events"], "ns"),
            Figure(f"event {name}, times as fast as orjson", found["orjson"] / found["events"], "x", "higher"),
        ]
    write(options.json, figures)


if __name__ == "__main__":
    main()
