"""Latency of one transaction: 4 partitions x 100 records with source offsets, on a local Apache Kafka of one broker.

    python benchmarks/transactions.py [--transactions 300] [--records 100] [--protocol v1|v2]

Prints, for each protocol: median, 99th percentile, CPU of this process per transaction, retries.
"""

import argparse
import struct
import tempfile
import time
from pathlib import Path

from figures import Figure, write
from local_daemon import LocalKafka, create_topics

from streamlstm.transport.cluster import Cluster
from streamlstm.transport.group import Group
from streamlstm.transport.settings import ConnectionSettings, WriterSettings
from streamlstm.transport.transaction import ProduceBatch, Writer

PARTITIONS = 4
VALUE = b'{"stream":"stream-000001","ts":1700000000000,"y":1.2345,"yhat":[1.2345],"status":"ok"}'
WARM_UP = 1000  # until the JVM of a fresh broker has compiled what it runs


def encoded(count: int) -> bytes:
    """One record batch v2 of `count` records of about 110 bytes, not yet anybody's."""
    records = bytearray()
    for index in range(count):
        body = b"\0" + varint(index) + varint(index) + varint(13) + b"stream-%06d" % index
        body += varint(len(VALUE)) + VALUE + varint(0)
        records += varint(len(body)) + body
    header = struct.pack(">qiibIhiqqqhii", 0, 49 + len(records), -1, 2, 0, 0, count - 1, 0, 0, -1, -1, -1, count)
    return header + bytes(records)


def varint(value: int) -> bytes:
    zigzag, out = value << 1, bytearray()
    while zigzag > 0x7F:
        out.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    return bytes(out) + bytes([zigzag])


def measure(writer: Writer, topic: str, records: int, transactions: int) -> tuple[list[float], float]:
    """Sorted seconds per transaction, and CPU seconds per transaction."""
    group, plain, seconds = Group("benchmark", -1, "", None), encoded(records), []
    for turn in range(WARM_UP + transactions):
        if turn == WARM_UP:
            cpu = time.process_time()
        batches = [ProduceBatch(topic, p, bytearray(plain), records) for p in range(PARTITIONS)]
        offsets = {(topic, p): turn + 1 for p in range(PARTITIONS)}
        committed = writer.commit(batches, offsets, group)
        if turn >= WARM_UP:
            seconds.append(committed.seconds)
    return sorted(seconds), (time.process_time() - cpu) / transactions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transactions", type=int, default=300)
    parser.add_argument("--records", type=int, default=100)
    parser.add_argument("--protocol", choices=["v1", "v2"], action="append")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder, LocalKafka(Path(folder) / "kafka") as broker:
        cluster = Cluster.connect(ConnectionSettings((broker.bootstrap,)), time.monotonic)
        create_topics(broker.bootstrap, ["forecasts"])
        for protocol in given.protocol or ["v2", "v1"]:
            writer = Writer(cluster, WriterSettings(f"benchmark-{protocol}", protocol=protocol))
            writer.open(["forecasts"])
            seconds, cpu = measure(writer, "forecasts", given.records, given.transactions)
            median, slow = seconds[len(seconds) // 2], seconds[int(len(seconds) * 0.99)]
            print(
                f"{protocol}: {PARTITIONS} x {given.records} records, median {median * 1e3:.1f} ms, "
                f"p99 {slow * 1e3:.1f} ms, CPU {cpu * 1e3:.2f} ms, {writer.counters.retries} retries"
            )
            found += [
                Figure(f"{protocol}, median", median * 1e3, "ms"),
                Figure(f"{protocol}, 99 %", slow * 1e3, "ms"),
                Figure(f"{protocol}, CPU", cpu * 1e3, "ms"),
            ]
        cluster.close()
    write(given.json, found)


if __name__ == "__main__":
    main()
