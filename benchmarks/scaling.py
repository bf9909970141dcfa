"""What an event costs as the streams become more: CPU per event of the whole daemon, memory beside its prediction.

    .venv/bin/python benchmarks/scaling.py [--streams 1000,10000,100000,1000000,10000000] [--events 2000000]
                                           [--hidden 50] [--runs 3] [--json FILE]

For each number of streams a daemon first sees every one of them. Then, in each run, it is stopped (SIGSTOP) while
`events` of uniformly random streams are produced, goes on, and its user + system CPU is taken from there to the last
commit. Ten million streams need 6 GB of memory for the daemon and 6 GB of disk for the broker.
"""

import argparse
import random
import signal
import tempfile
import time
from pathlib import Path

from confluent_kafka import Producer
from figures import Figure, median, write
from local_daemon import FIRST_TS, PARTITIONS, Daemon, LocalKafka, create_topics, daemon, make_model, wait_committed

from streamlstm.config import load
from streamlstm.model.model_file import load as load_model
from streamlstm.service.sizing import predict

KEY_BYTES = 16


class Feeder:
    """Produces as fast as librdkafka takes it; `sent` counts the events."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        config = {"bootstrap.servers": bootstrap, "linger.ms": 50, "queue.buffering.max.messages": 2_000_000}
        self._producer = Producer(config)
        self._topic, self.sent = topic, 0

    def send(self, streams: list[int] | range) -> None:
        for stream in streams:
            value = b'{"ts":%d,"value":%d.25}' % (FIRST_TS + self.sent, stream % 100)
            while True:
                try:
                    self._producer.produce(self._topic, value, b"host-%08d" % stream, stream % PARTITIONS)
                    break
                except BufferError:
                    self._producer.poll(0.05)
            self.sent += 1
            if self.sent % 10_000 == 0:
                self._producer.poll(0)
        self._producer.flush()


def measure(bootstrap: str, folder: Path, streams: int, events: int, runs: int) -> list[Figure]:
    settings = (f"state.max_streams={streams}", f"state.max_key_bytes={KEY_BYTES}", "engine.threads=1")
    predicted = predict(load(None, {}, settings), load_model(folder / "model.safetensors")).resident_bytes / 1e6
    topic, rng, spent = f"events-{streams}", random.Random(0), []
    create_topics(bootstrap, [topic])
    feeder = Feeder(bootstrap, topic)
    with daemon(bootstrap, folder, topic, *settings) as running:
        began = time.monotonic()
        feeder.send(range(streams))
        wait_committed(bootstrap, running, topic, feeder.sent)
        filled = time.monotonic() - began
        for _ in range(runs):
            spent.append(_run(bootstrap, running, topic, feeder, [rng.randrange(streams) for _ in range(events)]))
        resident = running.resident_mb()
    cost = median("CPU per event", spent, "us", at=streams)
    print(
        f"| {streams:,} | {cost.value:.3f} ({cost.low:.3f} to {cost.high:.3f}) | {resident:,.0f} | {predicted:,.0f} "
        f"| {resident / predicted:.3f} | {filled:.1f} |", flush=True,
    )  # fmt: skip
    return [
        cost,
        Figure("resident memory", resident, "MB", at=streams),
        Figure("resident memory, of that which `size` says", resident / predicted, "ratio", "neither", at=streams),
    ]


def _run(bootstrap: str, running: Daemon, topic: str, feeder: Feeder, streams: list[int]) -> float:
    """us of CPU per event."""
    running.process.send_signal(signal.SIGSTOP)
    feeder.send(streams)
    before = running.cpu_seconds()
    running.process.send_signal(signal.SIGCONT)
    wait_committed(bootstrap, running, topic, feeder.sent)
    return (running.cpu_seconds() - before) / len(streams) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", default="1000,10000,100000,1000000,10000000")
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--hidden", type=int, default=50)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found: list[Figure] = []
    with tempfile.TemporaryDirectory() as name, LocalKafka(Path(name) / "broker", heap="1g") as kafka:
        make_model(Path(name) / "model.safetensors", args.hidden)
        print("| streams | us CPU per event | resident MB | predicted | ratio | s to see all |\n" + "|---" * 6 + "|")
        for streams in map(int, args.streams.split(",")):
            found += measure(kafka.bootstrap, Path(name), streams, args.events, args.runs)
    costs = [figure.value for figure in found if figure.of == "CPU per event"]
    print(f"\nworst to best: {max(costs) / min(costs):.2f}")
    write(args.json, [*found, Figure("CPU per event, worst to best", max(costs) / min(costs), "ratio")])


if __name__ == "__main__":
    main()
