"""In = out + dead letters, by (partition, offset): what a read_committed reader finds after a large, dirty run.

Eight partitions, every codec, one bad event in a hundred, aborted transactions in between. librdkafka writes and reads.
"""

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from daemon_process import (
    create_topics,
    daemon,
    read_all,
    reason_of,
    source_of_dead_letter,
    source_of_forecast,
    write_model,
)

PARTITIONS = 8
EVENTS = 1_000_000
STREAMS = EVENTS // 10
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
BAD = {
    b'{"ts":1,"value":NaN}': "not_finite",
    b'{"ts":1,"value":-Infinity}': "not_finite",
    b'{"ts":1,"value":null}': "null_value",
    b'{"ts":1,"value":1e308}': "out_of_range",
    b'{"ts":1,"value":"7"}': "wrong_type",
    b'{"ts":1,"value":true}': "wrong_type",
    b'{"ts":1}': "missing_field",
    b'{"ts":"yesterday","value":1}': "bad_time",
    b"[1,2]": "not_object",
    b"\xff\xfe garbage": "not_json",
    b"": "not_json",
}


def events(rng: random.Random) -> Iterator[tuple[bytes, bytes]]:
    bad = list(BAD)
    for i in range(EVENTS):
        value = (
            rng.choice(bad)
            if rng.random() < 0.01
            else b'{"ts":%d,"value":%.4f}' % (1_730_000_000_000 + i, rng.gauss(0, 1))
        )
        yield b"stream-%06d" % rng.randrange(STREAMS), value


def produce(bootstrap: str, topic: str) -> dict[tuple[int, int], bytes]:
    """Writes the events with every codec, some in transactions, some of those aborted.

    Returns the value at each (partition, offset) that a read_committed reader must see.
    """
    rng = random.Random(7)
    common = {
        "bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 20,
        "queue.buffering.max.messages": 1_000_000,
    }  # fmt: skip
    producers = [Producer({**common, "compression.type": codec}) for codec in CODECS]
    for k, codec in enumerate(CODECS):
        producers.append(Producer({**common, "compression.type": codec, "transactional.id": f"{topic}-{k}"}))
        producers[-1].init_transactions()
    sent: dict[tuple[int, int], bytes] = {}
    stream_of = list(events(rng))
    size = 2_000
    for start in range(0, len(stream_of), size):
        k = rng.randrange(len(producers))
        producer, in_transaction = producers[k], k >= len(CODECS)
        aborted = in_transaction and rng.random() < 0.3
        for repeat in (False, True) if aborted else (True,):  # what is aborted is sent again
            delivered: dict[tuple[int, int], bytes] = {}

            def note(error: object, message: object, into: dict[tuple[int, int], bytes] = delivered) -> None:
                assert error is None, error
                into[message.partition(), message.offset()] = message.value() or b""  # type: ignore[attr-defined]

            if in_transaction:
                producer.begin_transaction()
            for key, value in stream_of[start : start + size]:
                partition = int(key[-6:]) % PARTITIONS
                producer.produce(topic, value, key, partition, on_delivery=note, headers=[("trace", key)])
            producer.flush()
            if in_transaction:
                producer.commit_transaction() if repeat else producer.abort_transaction()
            if repeat:
                sent.update(delivered)
    return sent


@pytest.mark.kafka
@pytest.mark.timeout(600)
def test_every_event_is_answered_exactly_once(kafka: str, tmp_path: Path) -> None:
    topic = f"accounts-{tmp_path.name}"
    create_topics(kafka, [topic], PARTITIONS)
    sent = produce(kafka, topic)
    assert len(sent) == EVENTS
    model = write_model(tmp_path / "model.safetensors")
    with daemon(kafka, model, topic, PARTITIONS, {"state.max_streams": STREAMS}) as running:
        running.wait_ready()
        running.wait_for("streamlstm_events_total", EVENTS)
        assert running.stop() == 0
        forecasts = read_all(kafka, running.output, PARTITIONS)
        letters = read_all(kafka, running.dead_letters, PARTITIONS)
    answered = Counter(map(source_of_forecast, forecasts)) + Counter(map(source_of_dead_letter, letters))
    assert answered == Counter(sent.keys())
    for message in forecasts:
        value = sent[source_of_forecast(message)]
        assert value not in BAD
        assert message.partition() == source_of_forecast(message)[0]
        assert dict(message.headers()) == {"trace": message.key()}
    for message in letters:
        value = sent[source_of_dead_letter(message)]
        assert reason_of(message) == BAD[value]
        assert (message.value() or b"") == value
        assert dict(message.headers())["trace"] == message.key()
    for partition in range(PARTITIONS):
        order = [offset for p, offset in map(source_of_forecast, forecasts) if p == partition]
        assert order == sorted(order)
