"""The corpus written raw into a topic of a real broker, with bits flipped on its disk: every offset answered once."""

from collections import Counter
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from local_kafka import LocalKafka

from tests.daemon_process import (
    PREFIX,
    create_topics,
    daemon,
    read_all,
    reason_of,
    source_of_dead_letter,
    source_of_forecast,
    write_model,
)
from tests.fuzz.batch_parts import Written, batch, event, section
from tests.fuzz.cases import corpus
from tests.fuzz.raw_producer import RawProducer
from tests.transport.live import eventually

FLIPPED = (b"bit-in-value", b"bit-in-key--")


def write_corpus(bootstrap: str, topic: str) -> tuple[int, int]:
    """Every case the broker lets through, sound batches in between; returns how many of them were and weren't."""
    taken = 0
    cases = [case for case in corpus() if "headers not utf-8" not in case.name]  # which the reader can't show
    with RawProducer(bootstrap) as producer:
        for i, case in enumerate(cases):
            sound = [Written(0, b"neighbour-%d" % (i % 7), event(i / 8, i))]
            assert producer.send(topic, 0, bytes(batch(section(sound), 1))) == 0
            taken += producer.send(topic, 0, case.data) == 0
        for mark in FLIPPED:
            assert producer.send(topic, 0, bytes(batch(section([Written(k, mark) for k in range(3)]), 3))) == 0
        assert producer.send(topic, 0, bytes(batch(section([Written(0, b"the last one")]), 1))) == 0
    return taken, len(cases) - taken


def flip_bits(broker: LocalKafka, topic: str) -> None:
    """One bit of each marked batch, in the log on disk."""
    for segment in (broker.folder / "data" / f"{topic}-0").glob("*.log"):
        content = bytearray(segment.read_bytes())
        for mark in FLIPPED:
            if mark in content:
                content[content.index(mark) + 3] ^= 0x08
        segment.write_bytes(content)


def end_of(bootstrap: str, topic: str) -> int:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "end"})
    _, end = consumer.get_watermark_offsets(TopicPartition(topic, 0), 20)
    consumer.close()
    return int(end)


@pytest.mark.kafka
def test_what_a_broker_lets_through(own_broker: LocalKafka, tmp_path: Path) -> None:
    kafka, topic = own_broker.bootstrap, "corpus"
    create_topics(kafka, [topic], 1, **{"max.message.bytes": "4000000"})
    taken, refused = write_corpus(kafka, topic)
    assert taken >= 200
    assert refused >= 50
    own_broker.stop()
    flip_bits(own_broker, topic)
    own_broker.start()
    end = end_of(kafka, topic)
    model = write_model(tmp_path / "model.safetensors")
    with daemon(kafka, model, topic, 1, {"fetch.max_batch_bytes": 1 << 20}) as running:
        running.wait_ready()
        running.wait_for("streamlstm_events_total", taken + refused)
        eventually(lambda: running.metric("streamlstm_lag_records") == 0, 60)
        assert running.stop() == 0
        forecasts = read_all(kafka, running.output, 1)
        letters = read_all(kafka, running.dead_letters, 1)
    answered = Counter(offset for _, offset in map(source_of_forecast, forecasts))
    for letter in letters:
        first = source_of_dead_letter(letter)[1]
        last = int(dict(letter.headers()).get(PREFIX + "last_offset", first))
        answered.update(range(first, last + 1))
    assert answered == Counter(range(end))
    corrupt = [letter for letter in letters if reason_of(letter) == "corrupt_batch"]
    assert len(corrupt) >= len(FLIPPED)
    assert sum((message.key() or b"").startswith(b"neighbour-") for message in forecasts) == taken + refused
