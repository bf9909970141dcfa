"""A backtest writes the forecasts of the daemon: intervals, guard, scores, and the daemon killed half way."""

import json
import signal
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import Producer
from daemon_process import create_topics, daemon, given_by, read_all

from streamlstm.cli.main import outcome

PARTITIONS = 3
FIRST_TS, STEP_MS = 1_700_000_000_000, 3_600_000


def made_series() -> dict[str, list[float]]:
    """Days and weeks with noise, a walk, a constant, and levels that shift; one is far from zero."""
    rng = np.random.default_rng(11)
    hours = np.arange(900)
    day = 10 * np.sin(hours * 2 * np.pi / 24) * (1 + 0.5 * (hours // 24 % 7 < 5))
    series = {f"day-{k}": (k + 1) * day + rng.normal(0, 2, 900) + 100 * k for k in range(6)}
    series |= {f"walk-{k}": rng.normal(size=900).cumsum() + 1e9 * k for k in range(3)}
    series |= {"constant": np.full(900, 7.0), "shift": day + 50.0 * (hours > 500)}
    return {name: values.tolist() for name, values in series.items()}


def produce(bootstrap: str, topic: str, events: list[tuple[int, str, float]]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 5})
    for step, stream, value in events:
        text = json.dumps({"ts": FIRST_TS + STEP_MS * step, "value": value})
        producer.produce(topic, text.encode(), stream.encode(), sum(stream.encode()) % PARTITIONS)
        producer.poll(0)
    producer.flush()


def by_stream(lines: list[bytes]) -> dict[str, list[bytes]]:
    """Without `src`: a file has offsets of its own."""
    found = defaultdict(list)
    for line in lines:
        found[json.loads(line)["stream"]].append(line[: line.rindex(b',"src":')])
    return dict(found)


def by_source(lines: list[bytes]) -> dict[tuple[int, int], bytes]:
    found = {}
    for line in lines:
        source = json.loads(line)["src"]
        found[source["partition"], source["offset"]] = line
    return found


def hold(bootstrap: str, series: dict[str, list[float]], model: Path, folder: Path) -> int:
    """Let a daemon forecast the series, killed half way; compare with a backtest. Returns the number of forecasts."""
    topic = f"history-{folder.name}"
    create_topics(bootstrap, [topic], PARTITIONS)
    events = [(step, stream, values[step]) for stream, values in series.items() for step in range(len(values))]
    events.sort(key=lambda event: event[0])
    half = len(events) // 2
    settings: dict[str, object] = {"commit.interval_ms": 20, "snapshot.interval_ms": 1000}
    produce(bootstrap, topic, events[:half])
    with daemon(bootstrap, model, topic, PARTITIONS, settings) as first:
        first.wait_for("streamlstm_events_total", half // 2)
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()
    produce(bootstrap, topic, events[half:])
    with daemon(
        bootstrap, model, topic, PARTITIONS, settings | first.topics | {"kafka.group_id": first.group}
    ) as second:
        deadline = time.monotonic() + 120
        while len(served := read_all(bootstrap, first.output, PARTITIONS)) < len(events):
            assert time.monotonic() < deadline, f"{len(served)} of {len(events)} events were answered"
            time.sleep(0.5)
        assert second.stop() == 0
    history, output = folder / "history.csv", folder / "forecasts.jsonl"
    rows = [f"{stream},{FIRST_TS + STEP_MS * step},{value!r}" for step, stream, value in events]
    history.write_text("\n".join(["stream,ts,value", *rows]) + "\n")
    assert outcome(["backtest", str(history), "--model", str(model), "--output", str(output)]) == 0
    assert len(served) == len(events)
    answers = [message.value() for message in served]
    assert by_stream(answers) == by_stream(output.read_bytes().splitlines())
    told = given_by({"kafka.bootstrap_servers": [bootstrap], "input.topic": topic})
    assert outcome(["backtest", "--topic", *told, "--model", str(model), "--output", str(output)]) == 0
    assert by_source(answers) == by_source(output.read_bytes().splitlines())  # `src` too
    return len(served)


@pytest.mark.kafka
def test_a_backtest_is_production(kafka: str, tmp_path: Path) -> None:
    series, model = made_series(), tmp_path / "model.safetensors"
    rows = [f"{name},{FIRST_TS + STEP_MS * t},{value!r}" for name, values in series.items() for t, value in
            enumerate(values[:600])]  # fmt: skip
    (tmp_path / "past.csv").write_text("\n".join(["stream,ts,value", *rows]) + "\n")
    command = ["train", str(tmp_path / "past.csv"), "-o", str(model), "--horizon", "3", "--steps", "200"]
    assert outcome(command) == 0
    assert hold(kafka, series, model, tmp_path) == sum(map(len, series.values()))
