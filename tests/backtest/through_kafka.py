"""A backtest held to the daemon: the same events through a real Kafka, the daemon killed half way, byte by byte.

The topic is read by librdkafka, committed records only: nothing of streamlstm's transport judges it.
"""

import mmap
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

from confluent_kafka import Producer, TopicPartition

from streamlstm.cli.main import outcome
from tests.backtest.events import Event
from tests.daemon_process import create_topics, daemon, given_by
from tests.trust.reader import consumer, partition_records

PARTITIONS = 3
EXAMPLES = 3
IN_MANY_ROUNDS = {
    "commit.interval_ms": 20, "snapshot.interval_ms": 1000, "fetch.max_bytes": 65_536,
    "fetch.max_partition_bytes": 65_536,
}  # fmt: skip
"""So that a kill comes in the middle of the work, and behind some snapshots."""
FEED_SECONDS, PAUSES = 4.0, 200
_PATIENCE = 300.0
_SOURCE, _TIME = b',"src":', b',"ts":'


@dataclass(frozen=True, slots=True)
class Served:
    """What the daemon wrote: `answers`, a file of forecasts, and how many dead letters. `committed`: how many events
    were answered at each kill.
    """

    answers: Path
    letters: int
    committed: list[int]


@dataclass(slots=True)
class Comparison:
    """Of a backtest's lines with the daemon's: how many are the same, of how many bytes. `differing` are those that
    aren't, or that only one of both has.
    """

    same: int = 0
    bytes: int = 0
    differing: int = 0
    examples: list[str] = field(default_factory=list)

    def differs(self, what: str) -> None:
        self.differing += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(what)


def serve(
    bootstrap: str, model: Path, topic: str, events: Sequence[Event], settings: Mapping[str, object], folder: Path,
    kills: int = 1,
) -> Served:  # fmt: skip
    """Feed the events to a topic of their own, in kills + 1 parts, and let a daemon forecast them as they come; it is
    killed in the middle of each part but the last, and started again in front of the next one.
    """
    create_topics(bootstrap, [topic], PARTITIONS)
    given: dict[str, object] = {**IN_MANY_ROUNDS, "state.max_streams": max(1000, len({e.stream for e in events}))}
    given |= settings
    size, committed = len(events) // (kills + 1), []
    for kill in range(kills):
        part = events[size * kill : size * (kill + 1)]
        cut = size - size // 4  # what is behind it comes when the daemon is gone
        with daemon(bootstrap, model, topic, PARTITIONS, given) as running, ThreadPoolExecutor(1) as feeding:
            running.wait_ready()
            fed = feeding.submit(_feed, bootstrap, topic, part[:cut])
            running.wait_for("streamlstm_events_total", size // 2)
            running.process.kill()
            running.process.wait()
            fed.result()
        _feed(bootstrap, topic, part[cut:])
        given |= {**running.topics, "kafka.group_id": running.group}
        committed.append(_committed(bootstrap, running.group, topic))
    with daemon(bootstrap, model, topic, PARTITIONS, given) as running:
        running.wait_ready()
        _feed(bootstrap, topic, events[size * kills :])
        _wait_for_all(bootstrap, running.group, topic, len(events))
        assert running.stop() == 0
    answers = folder / "answers.jsonl"
    with answers.open("wb") as file:
        for value in _values(bootstrap, running.output):
            file.write(value + b"\n")
    letters = sum(1 for _ in _values(bootstrap, running.dead_letters))
    return Served(answers, letters, committed)


def compare_with_files(served: Served, model: Path, paths: Sequence[str], settings: Mapping[str, object]) -> Comparison:
    """Stream by stream, without `src`: rows of files have offsets of their own."""
    output = served.answers.with_name("of-files.jsonl")
    given = [*paths, "--model", str(model), "--output", str(output), *given_by(settings)]
    assert outcome(["backtest", *given]) == 0
    return compare(served.answers, output, with_source=False)


def compare_with_topic(
    served: Served, bootstrap: str, topic: str, model: Path, settings: Mapping[str, object]
) -> Comparison:
    """To the last byte, `src` included."""
    output = served.answers.with_name("of-topic.jsonl")
    told = given_by({**settings, "kafka.bootstrap_servers": [bootstrap], "input.topic": topic})
    assert outcome(["backtest", "--topic", "--model", str(model), "--output", str(output), *told]) == 0
    return compare(served.answers, output, with_source=True)


def compare(found: Path, expected: Path, *, with_source: bool) -> Comparison:
    """Two files of forecasts: each with the one of the same source; or each stream's in order, and without `src`."""
    result = Comparison()
    if not found.stat().st_size or not expected.stat().st_size:
        result.differs("one of both has no forecasts")
        return result
    with found.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        spans = {}
        for key, at, text in _keyed(found, with_source):
            if key in spans:
                result.differs(f"answered twice: {text!r}")
            spans[key] = (at, len(text))
        for key, _, text in _keyed(expected, with_source):
            at, size = spans.pop(key, (0, 0))
            if (answer := content[at : at + size]) == text:
                result.same += 1
                result.bytes += size
            else:
                result.differs(f"daemon {answer!r}\n  backtest {text!r}")
        for at, size in spans.values():
            result.differs(f"the daemon's alone: {content[at : at + size]!r}")
    return result


def _keyed(path: Path, with_source: bool) -> Iterator[tuple[object, int, bytes]]:
    """Each line's key, its place in the file, and what of it is compared."""
    seen = Counter[bytes]()
    at = 0
    with path.open("rb") as file:
        for line in file:
            cut = line.rindex(_SOURCE)
            if with_source:
                yield line[cut:], at, line
            else:
                stream = line[: line.index(_TIME)]  # within a text its quotes would be escaped
                seen[stream] += 1
                yield (stream, seen[stream]), at, line[:cut]
            at += len(line)


def _feed(bootstrap: str, topic: str, events: Sequence[Event]) -> None:
    """In some seconds, and in small record batches, as steady traffic leaves them."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 5, "batch.num.messages": 200,
            "queue.buffering.max.messages": len(events) + 1,
        }
    )  # fmt: skip
    pause = len(events) // PAUSES + 1
    for n, event in enumerate(events):
        key = event.stream.encode()
        producer.produce(topic, event.value, key or None, crc32(key) % PARTITIONS)
        producer.poll(0)
        if n % pause == 0:
            time.sleep(FEED_SECONDS / PAUSES)
    assert producer.flush(_PATIENCE) == 0


def _committed(bootstrap: str, group: str, topic: str) -> int:
    """How many events the group has answered."""
    asking = consumer(bootstrap, **{"group.id": group})
    try:
        found = asking.committed([TopicPartition(topic, partition) for partition in range(PARTITIONS)], 30)
    finally:
        asking.close()
    return sum(max(0, each.offset) for each in found)


def _wait_for_all(bootstrap: str, group: str, topic: str, events: int) -> None:
    until, before = time.monotonic() + _PATIENCE, -1
    while (answered := _committed(bootstrap, group, topic)) < events:
        if answered > before:
            until, before = time.monotonic() + _PATIENCE, answered
        assert time.monotonic() < until, f"{answered} of {events} events were answered, and no more"
        time.sleep(0.5)


def _values(bootstrap: str, topic: str) -> Iterator[bytes]:
    for partition in range(PARTITIONS):
        for record in partition_records(bootstrap, topic, partition):
            yield record.value or b""
