"""The demo's pumps: a pressure reading of each, once a second, into the topic of events.

    producer.py BROKER            until SIGTERM, by the clock; DEMO_STREAMS pumps (200)
    producer.py --history 600     as many seconds of the past of 60 pumps as CSV, to train a model on

A pump works in cycles of a minute, harder and less hard over a quarter of an hour; no two have the same level, swing or
phase. Now and then one fails for some seconds, and one reading of some thousands can't be read.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator

import numpy as np
from kafka import KafkaProducer
from numpy.typing import NDArray

TOPIC = "events"
CYCLE_SECONDS, SHIFT_SECONDS = 60, 900
FAILURES = 1e-4  # of a pump within a second
UNREADABLE = 2e-4
HISTORY_STREAMS, HISTORY_END = 60, 1_760_000_000

Floats = NDArray[np.float64]


class Pumps:
    """`count` pumps; the same for the same `seed`."""

    def __init__(self, count: int, seed: int) -> None:
        self.random = random = np.random.default_rng(seed)
        self.names = [f"pump-{n}" for n in range(count)]
        self.level = random.uniform(20, 90, count)
        self.swing = random.uniform(0.05, 0.25, count) * self.level
        self.phase = random.uniform(0, 1, (2, count))
        self.overtone = random.uniform(0.1, 0.5, count)
        self.noise = random.uniform(0.02, 0.08, count) * self.swing
        self.drift = np.zeros(count)
        self.failing = np.zeros(count)  # seconds left

    def read(self, second: int) -> Floats:
        """The pressure of each at `second`; to be asked for second after second."""
        random, count = self.random, len(self.names)
        cycle = 2 * np.pi * (second / CYCLE_SECONDS + self.phase[0])
        load = 1 + 0.3 * np.sin(2 * np.pi * (second / SHIFT_SECONDS + self.phase[1]))
        self.drift = 0.95 * self.drift + random.normal(0, self.noise)
        begins = (self.failing == 0) & (random.random(count) < FAILURES)
        self.failing = np.where(begins, random.integers(5, 20, count), np.maximum(self.failing - 1, 0))
        shape = np.sin(cycle) + self.overtone * np.sin(2 * cycle + 1)
        return np.where(self.failing > 0, 0.3, 1.0) * (self.level + self.swing * load * shape) + self.drift


def history(seconds: int) -> Iterator[str]:
    """Lines of CSV."""
    yield "stream,ts,value"
    pumps = Pumps(HISTORY_STREAMS, seed=0)
    for second in range(HISTORY_END - seconds, HISTORY_END):
        for name, value in zip(pumps.names, pumps.read(second), strict=True):
            yield f"{name},{1000 * second},{value:.3f}"


def produce(broker: str, count: int) -> None:
    """One reading of each pump every second. A clock that was put forward leaves a gap, as a failing network would."""
    producer = KafkaProducer(bootstrap_servers=broker, acks="all", linger_ms=20, compression_type="lz4")
    pumps, second = Pumps(count, seed=1), int(time.time())
    try:
        while True:
            time.sleep(max(0.0, second - time.time()))
            values = pumps.read(second)
            broken = pumps.random.random(count) < UNREADABLE
            for name, value, bad in zip(pumps.names, values, broken, strict=True):
                shown = '"n/a"' if bad else f"{value:.3f}"
                event = f'{{"ts":{1000 * second},"value":{shown}}}'
                producer.send(TOPIC, key=name.encode(), value=event.encode(), timestamp_ms=1000 * second)
            second = max(second + 1, int(time.time()))
    finally:
        producer.close(timeout=5)


def main(arguments: list[str]) -> None:
    match arguments:
        case ["--history", seconds]:
            print("\n".join(history(int(seconds))))
        case [broker]:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
            produce(broker, int(os.environ.get("DEMO_STREAMS", "200")))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
