"""From a real Kafka to a real Kafka: CPU per event against the peers, and latency at a low rate.

    .venv/bin/python benchmarks/end_to_end.py [--events 1000000] [--streams 100000] [--hidden 50] [--runs 3] [--judged]
                                              [--per-batch 1]
                                              [--peers torch,onnxruntime,quixstreams,river] [--json FILE]

Preloads the events (JSON, about 60 bytes) into 8 partitions of a real Apache Kafka, then lets the daemon and the peers
that are installed consume them in turn, transactions on, and compares user + system CPU of each whole process from
ready to the last commit. Broker and client share the machine. The peers: loops of confluent-kafka, orjson and one step
of torch or ONNX Runtime for a whole batch, or River's HoltWinters per event (peer_loop.py); and Quix Streams with torch
event by event and the state in its store (peer_quix.py), on one event of a hundred, for it would take minutes.
"""

import argparse
import importlib.util
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from confluent_kafka import Producer
from figures import Figure, median, write
from latency import measure as measure_latency
from local_daemon import FIRST_TS, PARTITIONS, LocalKafka, create_topics, daemon, make_model, wait_committed

HERE = Path(__file__).resolve().parent
PEERS = {
    "torch": "the loop with torch's LSTMCell", "onnxruntime": "the loop with ONNX Runtime",
    "quixstreams": "Quix Streams with torch", "river": "the loop with River's HoltWinters",
}  # fmt: skip
SLOW = ("quixstreams",)


def preload(bootstrap: str, topic: str, events: int, streams: int, per_batch: int = 10_000) -> float:
    """Uniformly random keys, each on its own partition; returns the mean size of a value in bytes."""
    rng, size = random.Random(0), 0
    producer = Producer(
        {
            "bootstrap.servers": bootstrap, "linger.ms": 50, "queue.buffering.max.messages": 2_000_000,
            "batch.num.messages": per_batch,
        }
    )  # fmt: skip
    for i in range(events):
        stream = rng.randrange(streams)
        value = b'{"stream":"host-%06d","ts":%d,"value":%.4f}' % (stream, FIRST_TS + i, rng.gauss(0.0, 1.0))
        size += len(value)
        producer.produce(topic, value, b"host-%06d" % stream, stream % PARTITIONS, timestamp=FIRST_TS + i)
        if i % 10_000 == 0:
            producer.poll(0)
    producer.flush()
    return size / events


def run_daemon(bootstrap: str, folder: Path, topic: str, events: int, streams: int, threads: int) -> dict[str, float]:
    settings = (f"state.max_streams={streams}", f"engine.threads={threads}")
    with daemon(bootstrap, folder, topic, *settings) as running:
        start_cpu, start = running.cpu_seconds(), time.perf_counter()
        started_at = running.metric("streamlstm_forecasts_total")
        wait_committed(bootstrap, running, topic, events)
        seconds, cpu = time.perf_counter() - start, running.cpu_seconds() - start_cpu
        running.wait("streamlstm_forecasts_total", events)
        done = events - started_at
        return {
            "us_per_event": cpu / done * 1e6,
            "events_per_s": done / seconds,
            "resident_mb": running.resident_mb(),
        }


def run_peer(bootstrap: str, topic: str, events: int, streams: int, hidden: int, peer: str) -> dict[str, float]:
    output = f"peer-{uuid.uuid4().hex[:8]}"
    create_topics(bootstrap, [output])
    arguments = ["--bootstrap", bootstrap, "--input", topic, "--output", output, "--events", str(events)]
    arguments += ["--streams", str(streams), "--hidden", str(hidden)]
    with tempfile.TemporaryDirectory() as folder:
        if peer == "quixstreams":
            program = [HERE / "peer_quix.py", "--folder", folder]
        else:
            program = [HERE / "peer_loop.py", "--runtime", peer]
        done = subprocess.run([sys.executable, *program, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    seen = json.loads(done.stdout.splitlines()[-1])
    return {
        "us_per_event": seen["cpu_s"] / seen["events"] * 1e6,
        "events_per_s": seen["events"] / seen["wall_s"],
    }


def median_of(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


def report(results: dict[str, dict[str, float]]) -> str:
    ours = results["streamlstm"]["us_per_event"]
    lines = ["| | us CPU per event | events/s | ratio |", "|---|---|---|---|"]
    for name, row in results.items():
        ratio = row["us_per_event"] / ours
        lines.append(f"| {name} | {row['us_per_event']:.2f} | {row['events_per_s']:,.0f} | {ratio:.1f} |")
    return "\n".join(lines)


def figures(rows: dict[str, list[dict[str, float]]]) -> list[Figure]:
    """Of each contestant, and how many times as much CPU each peer takes, run by run."""
    found = []
    for name, runs in rows.items():
        better = "lower" if name == "streamlstm" else "neither"
        found.append(median(f"{name}, CPU per event", [run["us_per_event"] for run in runs], "us", better))
        rate = "higher" if name == "streamlstm" else "neither"
        found.append(median(f"{name}, rate", [run["events_per_s"] for run in runs], "events/s", rate))
        if name != "streamlstm":
            pairs = zip(runs, rows["streamlstm"], strict=True)
            times = [theirs["us_per_event"] / ours["us_per_event"] for theirs, ours in pairs]
            found.append(median(f"{name}, times the CPU of streamlstm", times, "x", "higher"))
    return found


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--streams", type=int, default=100_000)
    parser.add_argument("--hidden", type=int, default=50)
    parser.add_argument("--per-batch", type=int, default=10_000, help="events in a record batch at most")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--judged", action="store_true", help="a model with guard, intervals and anomaly scores")
    parser.add_argument("--peers", default="torch,onnxruntime,quixstreams,river")
    parser.add_argument("--rate", type=int, default=1000, help="events/s of the latency run; 0 leaves it out")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    args = parse()
    peers = [peer for peer in args.peers.split(",") if peer and importlib.util.find_spec(peer)]
    few = max(1000, args.events // 100)
    found: list[Figure] = []
    with tempfile.TemporaryDirectory() as name, LocalKafka(Path(name) / "broker", heap="1g") as kafka:
        folder, bootstrap = Path(name), kafka.bootstrap
        make_model(folder / "model.safetensors", args.hidden, judged=args.judged)
        create_topics(bootstrap, ["events", "few-events"])
        size = preload(bootstrap, "events", args.events, args.streams, args.per_batch)
        preload(bootstrap, "few-events", few, args.streams, args.per_batch)
        print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, broker on the same machine; "
              f"{args.events:,} events of {size:.0f} bytes, {args.streams:,} streams, H={args.hidden}")  # fmt: skip
        rows: dict[str, list[dict[str, float]]] = {}
        for _ in range(args.runs):
            ours = run_daemon(bootstrap, folder, "events", args.events, args.streams, args.threads)
            rows.setdefault("streamlstm", []).append(ours)
            for peer in peers:
                topic, events = ("few-events", few) if peer in SLOW else ("events", args.events)
                theirs = run_peer(bootstrap, topic, events, args.streams, args.hidden, peer)
                rows.setdefault(PEERS.get(peer, peer), []).append(theirs)
        print(report({peer: median_of(runs) for peer, runs in rows.items()}))
        found += figures(rows)
        if args.rate:
            waits = measure_latency(bootstrap, folder, args.rate, args.seconds)
            print(f"\nappend to readable at a low rate: median {waits.median:.1f} ms, p99 {waits.p99:.1f} ms, "
                  f"longest {waits.longest:.1f} ms over {waits.events} events")  # fmt: skip
            found.append(Figure("append to readable, median", waits.median, "ms", at=args.rate))
            found.append(Figure("append to readable, 99 %", waits.p99, "ms", at=args.rate))
    write(args.json, found)


if __name__ == "__main__":
    main()
