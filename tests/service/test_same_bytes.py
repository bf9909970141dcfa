"""The daemon's record values are the very bytes of `streamlstm forecast`, poison and all."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Producer
from daemon_process import create_topics, daemon, random_parameters, read_all, reason_of

from streamlstm.cli.main import outcome
from streamlstm.model.features import Features
from streamlstm.model.golden import make_golden
from streamlstm.model.model_file import Model, Scaling, ScalingKind, default_inputs, no_scaling, save

PARTITIONS, EVENTS = 2, 3000
POISON = ['{"stream":"s1","ts":1,"value":NaN}', '{"stream":"s1","ts":1,"value":null}', "{", '{"stream":7.5,"value":1}']
MODELS = {
    "carry": (0, no_scaling(1), "value"),
    "window": (5, no_scaling(1), "value"),
    "running": (0, Scaling(ScalingKind.RUNNING, (0.0,), (1.0,), 50), "change"),
    "judged": (0, no_scaling(1), "change"),  # lags, a guard and intervals, as `train` makes them
}


def write_model(path: Path, name: str) -> Path:
    window, scaling, predicts = MODELS[name]
    lags = judged_lags() if name == "judged" else {}
    parameters = random_parameters(hidden=20, outputs=2, inputs=2 if lags else 1)
    model = Model(
        parameters=parameters, window=window, inputs=default_inputs(1), target=0, predicts=predicts,  # type: ignore[arg-type]
        horizons=(1, 3), scaling=scaling, interval_ms=None, origin={}, golden=make_golden(parameters, window), **lags,
    )  # fmt: skip
    save(model, path)
    return path


def judged_lags() -> dict[str, Any]:
    skip = np.random.default_rng(8).uniform(-0.3, 0.3, (2, 4)).astype(np.float32)
    features = Features(lags=(1, 2, 5, 6), fed=(0, 3), scale_window=50, period=6, skip=skip)
    return {"features": features, "level": 0.9, "guard": True}


def partition_lines() -> list[list[str]]:
    """Per partition, lines in order: many events of few streams, each stream on one partition."""
    rng = random.Random(3)
    lines: list[list[str]] = [[] for _ in range(PARTITIONS)]
    for i in range(EVENTS):
        stream = rng.randrange(40)
        event = {
            "stream": f"s{stream}",
            "ts": 1_700_000_000_000 + 1000 * i,
            "value": round(rng.gauss(50, 9), rng.randrange(6)),
        }
        lines[stream % PARTITIONS].append(json.dumps(event))
        if rng.random() < 0.02:
            lines[stream % PARTITIONS].append(rng.choice(POISON))
    return lines


def produce(bootstrap: str, topic: str, lines: list[list[str]]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 5})
    for partition, values in enumerate(lines):
        for value in values:
            producer.produce(topic, value.encode(), partition=partition)
    producer.flush()


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, "float32") for name in MODELS), ("carry", "float16"), ("judged", "bfloat16")]
)
def test_daemon_and_file_give_the_same_bytes(name: str, dtype: str, kafka: str, tmp_path: Path) -> None:
    topic = f"same-{name}-{dtype}-{tmp_path.name}"
    create_topics(kafka, [topic], PARTITIONS)
    lines = partition_lines()
    produce(kafka, topic, lines)
    model = write_model(tmp_path / "model.safetensors", name)
    given = {"commit.interval_ms": 10, "engine.threads": 2, "engine.state_dtype": dtype}
    with daemon(kafka, model, topic, PARTITIONS, given) as running:
        running.wait_for("streamlstm_events_total", sum(map(len, lines)))
        assert running.stop() == 0
        forecasts = read_all(kafka, running.output, PARTITIONS)
        letters = read_all(kafka, running.dead_letters, PARTITIONS)
    for partition, values in enumerate(lines):
        source, output, bad = (tmp_path / f"{kind}-{partition}" for kind in ("in.jsonl", "out.jsonl", "bad.jsonl"))
        source.write_text("\n".join(values))
        command = ["forecast", "--model", model, "--input", source, "--output", output, "--dead-letters", bad]
        command += ["--topic", topic, "--partition", partition, "--batch-size", 7]
        command += ["--set", f"engine.state_dtype={dtype}"]
        assert outcome([str(part) for part in command]) == 0
        written = [message.value() for message in forecasts if message.partition() == partition]
        assert written == output.read_bytes().splitlines()
        refused = [json.loads(line) for line in bad.read_text().splitlines()]
        here = [message for message in letters if message.partition() == partition]
        assert [letter["reason"] for letter in refused] == [reason_of(message) for message in here]
        assert [letter["value"].encode() for letter in refused] == [message.value() for message in here]


@pytest.mark.parametrize(("name", "dtype"), [("running", "float32"), ("judged", "float32"), ("running", "bfloat16")])
def test_batches_and_threads_change_no_byte(name: str, dtype: str, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.safetensors", name)
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(line for values in partition_lines() for line in values))
    outputs = set()
    for batch_size, threads in ((1, 1), (2, 1), (7, 2), (500, 2), (100_000, 1)):
        output = tmp_path / "out.jsonl"
        command = ["forecast", "--model", model, "--input", source, "--output", output]
        command += ["--batch-size", batch_size, "--threads", threads, "--set", f"engine.state_dtype={dtype}"]
        assert outcome([str(part) for part in command]) == 0
        outputs.add(output.read_bytes())
    assert len(outputs) == 1


@pytest.mark.parametrize("name", ["carry", "judged"])
def test_poison_changes_no_other_streams_bytes(name: str, tmp_path: Path) -> None:
    """Forecasts of the clean file, and of the file with bad events of one stream between them, but for `src`."""
    model = write_model(tmp_path / "model.safetensors", name)
    clean = [line for values in partition_lines() for line in values if line not in POISON]
    rng = random.Random(5)
    poison = [*POISON, *(f'{{"stream":"s1","ts":1,"value":{v}}}' for v in ("1e308", '"x"', "Infinity", "[1]", "true"))]
    dirty = [part for line in clean for part in ([rng.choice(poison)] if rng.random() < 0.2 else []) + [line]]
    outputs = []
    for lines in (clean, dirty):
        (tmp_path / "in.jsonl").write_text("\n".join(lines))
        command = ["forecast", "--model", model, "--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl"]
        assert outcome([str(part) for part in command]) == 0
        found = (tmp_path / "out.jsonl").read_bytes().splitlines()
        outputs.append([line[: line.rindex(b',"src":')] for line in found])
    assert outputs[0] == outputs[1]
