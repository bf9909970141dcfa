"""From `streamlstm run` to ready: with an empty kernel cache, as the first time on a machine, and from a warm one; with
room for many streams; and with as many streams to take in from their snapshots.

    .venv/bin/python benchmarks/startup.py [--runs 5] [--hidden 50] [--streams 1000000]

Ready is what `/readyz` says: every partition live. The topics are there and empty but for the last; the broker is on
this machine.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from confluent_kafka import Producer
from figures import Figure, median, write
from local_daemon import (
    FIRST_TS,
    PARTITIONS,
    Daemon,
    LocalKafka,
    create_topics,
    daemon,
    make_model,
    start_daemon,
    topics_of,
    wait_committed,
)

ROUND_SECONDS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--hidden", type=int, default=50)
    parser.add_argument("--streams", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, LocalKafka(Path(name) / "broker", heap="1g") as kafka:
        make_model(Path(name) / "model.safetensors", args.hidden)
        create_topics(kafka.bootstrap, ["events", "once"])
        os.environ["STREAMLSTM_CACHE_DIR"] = str(Path(name) / "cache")
        cold, *warm = [_seconds_to_ready(kafka.bootstrap, Path(name)) for _ in range(1 + args.runs)]
        helped = [_seconds_to_help() for _ in range(args.runs)]
        room = _seconds_to_ready(kafka.bootstrap, Path(name), f"state.max_streams={args.streams}")
        restored = _seconds_to_restore(kafka.bootstrap, Path(name), args.streams)
    print(f"ready after {cold:.1f} s with an empty kernel cache")
    print(f"ready after {statistics.median(warm):.2f} s from a warm one ({min(warm):.2f} to {max(warm):.2f})")
    print(f"ready after {room:.2f} s with room for {args.streams:,} streams, {restored:.1f} s with their snapshots")
    print(f"`streamlstm --help`: {statistics.median(helped):.2f} s ({min(helped):.2f} to {max(helped):.2f})")
    write(
        args.json,
        [
            Figure("start to ready, empty kernel cache", cold, "s"),
            median("start to ready, warm kernel cache", warm, "s"),
            median("streamlstm --help", helped, "s"),
            Figure("start to ready, room for streams", room, "s", at=args.streams),
            Figure("start to ready, streams restored", restored, "s", at=args.streams),
        ],
    )


def _seconds_to_ready(bootstrap: str, folder: Path, *settings: str) -> float:
    began = time.monotonic()
    with daemon(bootstrap, folder, "events", *settings):
        return time.monotonic() - began


def _seconds_to_restore(bootstrap: str, folder: Path, streams: int) -> float:
    """Each stream is seen once; once all of them are in snapshots the daemon is stopped and started again."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 50, "queue.buffering.max.messages": 2_000_000})
    for i in range(streams):
        producer.produce("once", b'{"ts":%d,"value":%d.25}' % (FIRST_TS + i, i % 100), b"host-%07d" % i, i % PARTITIONS)
        if i % 10_000 == 0:
            producer.poll(0)
            while len(producer) > 1_000_000:
                producer.poll(0.1)
    producer.flush()
    unique = topics_of(bootstrap)
    settings = (f"state.max_streams={streams}", f"snapshot.interval_ms={1000 * ROUND_SECONDS}")
    first = start_daemon(bootstrap, folder, "once", unique, *settings)
    try:
        first.wait_ready()
        wait_committed(bootstrap, first, "once", streams)
        time.sleep(3 * ROUND_SECONDS)
        _stop(first)
        began = time.monotonic()
        second = start_daemon(bootstrap, folder, "once", unique, *settings)
        try:
            second.wait_ready()
            seconds = time.monotonic() - began
            if (found := second.metric("streamlstm_restored_streams_total")) != streams:
                raise SystemExit(f"expected {streams} restored streams, found {found}")
            _stop(second)
        finally:
            second.process.kill()
    finally:
        first.process.kill()
    return seconds


def _stop(running: Daemon) -> None:
    running.process.terminate()
    if running.process.wait(60) != 0:
        raise SystemExit(f"the daemon ended with {running.process.returncode}")


def _seconds_to_help() -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "streamlstm", "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


if __name__ == "__main__":
    main()
