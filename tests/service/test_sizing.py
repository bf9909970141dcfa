"""`streamlstm size` held to a real daemon with a million streams, and the memory of that daemon held flat."""

import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import Producer
from daemon_process import create_topics, daemon, random_parameters

from streamlstm.config import load
from streamlstm.model.golden import make_golden
from streamlstm.model.model_file import Model, no_scaling, save
from streamlstm.service.sizing import batch_bytes, predict

STREAMS = 1_000_000
PARTITIONS = 4


@pytest.fixture(scope="module")
def model() -> Model:
    parameters = random_parameters(hidden=50)
    golden = make_golden(parameters, 0, "test")
    return Model(parameters, 0, ("value",), 0, "value", (1,), no_scaling(1), None, {}, golden)


def resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def produce(bootstrap: str, topic: str, events: range) -> None:
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "linger.ms": 50,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    for n in events:
        while True:
            try:
                producer.produce(
                    topic, b'{"ts":%d,"value":%d.25}' % (1_730_000_000_000 + n, n % 97), b"s%d" % (n % STREAMS)
                )
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush()


@pytest.mark.kafka
def test_prediction_holds_at_a_million_streams_and_memory_stays_flat(kafka: str, model: Model, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save(model, path)
    # The figures are those of kernels loaded from the cache: a compiler in the same process keeps 100 MB for itself.
    warm = ["check", "--set", f"model.path={path}", "--set", f"kafka.bootstrap_servers={kafka}"]
    assert (
        b"ok    kernels"
        in subprocess.run([sys.executable, "-m", "streamlstm", *warm], stdout=subprocess.PIPE, check=False).stdout
    )
    create_topics(kafka, ["events-size"], PARTITIONS)
    produce(kafka, "events-size", range(STREAMS))
    with daemon(kafka, path, "events-size", PARTITIONS, {"state.max_streams": STREAMS}) as running:
        running.wait_for("streamlstm_events_total", STREAMS)
        full = resident_bytes(running.process.pid)
        produce(kafka, "events-size", range(STREAMS, STREAMS + 500_000))
        running.wait_for("streamlstm_events_total", STREAMS + 500_000)
        later = resident_bytes(running.process.pid)
        assert running.metric("streamlstm_streams") == STREAMS
        assert running.stop() == 0
    predicted = predict(load(None, {}, [f"state.max_streams={STREAMS}"]), model).resident_bytes
    assert full == pytest.approx(predicted, rel=0.1)
    assert later <= 1.05 * full


def test_parts_follow_the_model_and_the_settings(model: Model) -> None:
    def sized(*overrides: str) -> dict[str, float]:
        return {part.name: part.total for part in predict(load(None, {}, overrides), model).parts}

    few, many = sized("state.max_streams=1000"), sized("state.max_streams=2000")
    assert many["state (h, c, header) or window"] == 2 * few["state (h, c, header) or window"]
    assert many["interpreter and libraries"] == few["interpreter and libraries"]
    long_keys = sized("state.max_streams=1000", "state.max_key_bytes=1024")
    assert long_keys["keys of up to 1024 bytes"] - few["keys of up to 64 bytes"] == 960 * 1000


def test_buffers_follow_the_bounds_on_what_is_in_flight(model: Model) -> None:
    small = batch_bytes(load(None, {}, ["fetch.max_bytes=65536", "fetch.max_partition_bytes=65536"]), model, 1)
    large = batch_bytes(load(None, {}, ["fetch.max_bytes=67108864"]), model, 1)
    assert large > small + 2 * 67_000_000
