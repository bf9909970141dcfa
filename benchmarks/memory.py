"""Resident memory of a full daemon over many events: as predicted by `streamlstm size`, and flat.

    .venv/bin/python benchmarks/memory.py [--events 10000000] [--streams 1000000] [--hidden 50]

Every stream is seen once, then events go on at random. The figure after the first round is compared with the
prediction; the largest later one with the first.
"""

import argparse
import random
import tempfile
from pathlib import Path

from confluent_kafka import Producer
from figures import Figure, write
from local_daemon import FIRST_TS, PARTITIONS, LocalKafka, create_topics, daemon, make_model

from streamlstm.config import load
from streamlstm.model.model_file import load as load_model
from streamlstm.service.sizing import predict


def feed(producer: Producer, topic: str, first: int, count: int, streams: int, rng: random.Random) -> None:
    """Events number `first` to `first + count`: the first `streams` of all go to one new stream each."""
    for i in range(first, first + count):
        stream = i if i < streams else rng.randrange(streams)
        value = b'{"ts":%d,"value":%d.25}' % (FIRST_TS + i, i % 100)
        while True:
            try:
                producer.produce(topic, value, b"host-%07d" % stream, stream % PARTITIONS)
                break
            except BufferError:
                producer.poll(0.05)
    producer.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--streams", type=int, default=1_000_000)
    parser.add_argument("--hidden", type=int, default=50)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    settings = (f"state.max_streams={args.streams}", "engine.threads=1")
    with tempfile.TemporaryDirectory() as name, LocalKafka(Path(name) / "broker", heap="1g") as kafka:
        folder = Path(name)
        make_model(folder / "model.safetensors", args.hidden)
        predicted = predict(load(None, {}, settings), load_model(folder / "model.safetensors")).resident_bytes / 1e6
        create_topics(kafka.bootstrap, ["events"], **{"retention.bytes": str(64 << 20), "segment.bytes": str(16 << 20)})
        producer = Producer({"bootstrap.servers": kafka.bootstrap, "linger.ms": 20, "compression.type": "lz4"})
        rng, seen = random.Random(0), []
        with daemon(kafka.bootstrap, folder, "events", *settings) as running:
            print("| events | resident MB | of the prediction |\n|---|---|---|")
            for first in range(0, args.events, args.streams):
                feed(producer, "events", first, args.streams, args.streams, rng)
                running.wait("streamlstm_forecasts_total", first + args.streams)
                seen.append(running.resident_mb())
                print(f"| {first + args.streams:,} | {seen[-1]:,.0f} | {seen[-1] / predicted:.3f} |", flush=True)
        print(f"\npredicted {predicted:,.0f} MB; growth after the first round {max(seen) - seen[0]:+.1f} MB")
    write(
        args.json,
        [
            Figure("resident with every stream seen", seen[0], "MB", at=args.streams),
            Figure("resident, most", max(seen), "MB", at=args.streams),
            Figure("predicted by `size`", predicted, "MB", at=args.streams),
        ],
    )


if __name__ == "__main__":
    main()
