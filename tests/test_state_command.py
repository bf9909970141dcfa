"""`streamlstm state` against a real broker: what is stored equals what the events make, and a reset resets."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Message, Producer
from daemon_process import Daemon, create_topics, daemon, random_parameters, read_all, reason_of, write_model
from reference import Oracle

from streamlstm.cli.main import outcome
from streamlstm.model.golden import make_golden
from streamlstm.model.model_file import load, save
from tests.transport.live import eventually

PARTITIONS = 2
STREAMS = 120
EVENTS = 2_400
BASE_TIME = 1_730_000_000_000


def stream_of(i: int) -> bytes:
    return b"pump-%d" % (i * 7 % STREAMS)


def partition_of(stream: bytes) -> int:
    return int(stream[5:]) % PARTITIONS


def value_of(i: int) -> float:
    return (i % 23) / 8 - 1


@dataclass
class Setup:
    """A daemon that has answered EVENTS events, and the arguments that point a command at the same topics."""

    kafka: str
    model: Path
    running: Daemon
    arguments: list[str]

    def state(self, command: str, *arguments: str) -> int:
        return outcome(["state", command, *self.arguments, *arguments])

    def listed(self, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
        assert self.state("list", "--json") == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    def forecasts(self, stream: str, below: int) -> list[dict[str, Any]]:
        found = [json.loads(each.value()) for each in read_all(self.kafka, self.running.output, PARTITIONS)]
        return [each for each in found if each["stream"] == stream and each["src"]["offset"] < below]


@pytest.fixture(scope="module")
def setup(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    folder = tmp_path_factory.mktemp("state")
    topic = f"inspected-{time.time_ns()}"
    create_topics(kafka, [topic], PARTITIONS)
    model = write_model(folder / "model.safetensors")
    settings = {"kafka.group_id": topic, "snapshot.interval_ms": 1_000, "snapshot.max_chunk_bytes": 16_384}
    with daemon(kafka, model, topic, PARTITIONS, settings) as running:
        running.wait_ready()
        producer = Producer({"bootstrap.servers": kafka, "enable.idempotence": True, "linger.ms": 5})
        for i in range(EVENTS):
            stream = stream_of(i)
            value = b'{"ts":%d,"value":%r}' % (BASE_TIME + i, value_of(i))
            producer.produce(topic, value, stream, partition_of(stream), timestamp=BASE_TIME + i)
        assert producer.flush(60) == 0
        running.wait_for("streamlstm_events_total", EVENTS)
        values = {
            "kafka.bootstrap_servers": json.dumps([kafka]), "kafka.group_id": topic, "input.topic": topic,
            "snapshot.topic": running.snapshots, "model.path": str(model),
        }  # fmt: skip
        yield Setup(kafka, model, running, [part for key in values for part in ("--set", f"{key}={values[key]}")])


def all_stored(setup: Setup, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What `state list` says once every stream is in a chunk."""

    def listed() -> list[dict[str, Any]]:
        found = setup.listed(capsys)
        return found if sum(each["streams"] for each in found) == STREAMS else []

    return eventually(listed, 30)  # type: ignore[no-any-return]


@pytest.mark.kafka
class TestList:
    def test_what_is_stored(self, setup: Setup, capsys: pytest.CaptureFixture[str]) -> None:
        found = all_stored(setup, capsys)
        assert [each["partition"] for each in found] == [0, 1]
        for each in found:
            assert each["chunks"] > 1
            assert each["streams"] == STREAMS // PARTITIONS
            assert each["oldest_offset"] <= each["newest_offset"] <= each["committed"]
            assert each["models"] == [load(setup.model).model_hash]
            assert each["watermark"] <= BASE_TIME + EVENTS
            assert (each["problems"], each["notes"], each["degraded_chunks"]) == ([], [], 0)
            assert 0 < each["bytes"] < 200_000

    def test_as_a_table(self, setup: Setup, capsys: pytest.CaptureFixture[str]) -> None:
        all_stored(setup, capsys)
        assert setup.state("list") == 0
        head, *rows, total = capsys.readouterr().out.splitlines()
        assert head.split()[:2] == ["partition", "chunks"]
        assert len(rows) == PARTITIONS
        assert total.startswith(f"{STREAMS} streams, ")

    def test_what_a_restart_could_not_use(self, setup: Setup, capsys: pytest.CaptureFixture[str]) -> None:
        all_stored(setup, capsys)
        assert setup.state("list", "--json", "--set", "kafka.group_id=another") == 65
        problems = [json.loads(line)["problems"] for line in capsys.readouterr().out.splitlines()]
        assert [{each["kind"] for each in found} for found in problems] == [{"foreign"}, {"foreign"}]
        assert setup.state("list", "--set", "kafka.group_id=another") == 65
        assert "problem: partition 1: foreign: " in capsys.readouterr().out


@pytest.mark.kafka
class TestGet:
    def test_equals_what_the_events_make(self, setup: Setup, capsys: pytest.CaptureFixture[str]) -> None:
        all_stored(setup, capsys)
        stream = "pump-14"
        assert setup.state("get", stream) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["stream"], found["partition"], found["degraded"]) == (stream, 0, False)
        assert found["chunk"].startswith("chunk:")
        forecasts = setup.forecasts(stream, found["offset"])
        last = forecasts[-1]
        assert (found["n_seen"], found["last_ts"]) == (last["n_seen"], last["ts"])
        assert (found["yhat"], found["x"]) == (last["yhat"], [last["y"]])
        oracle = Oracle(load(setup.model).parameters)
        for each in forecasts:
            oracle.event(0, np.array([each["y"]], np.float32))
        ((h, c),) = oracle.state(0)
        (layer,) = found["layers"]
        np.testing.assert_allclose(layer["h"], h, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(layer["c"], c, rtol=1e-4, atol=1e-6)

    def test_a_stream_that_is_not_there(self, setup: Setup, caplog: pytest.LogCaptureFixture) -> None:
        assert setup.state("get", "pump-999") == 66
        assert "no snapshot has stream 'pump-999'" in caplog.text

    def test_another_model(
        self, setup: Setup, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        """The layout of the rows is the model's."""
        all_stored(setup, capsys)
        parameters = random_parameters(hidden=20)
        other = replace(load(setup.model), parameters=parameters, golden=make_golden(parameters), model_hash="")
        save(other, tmp_path / "other.safetensors")
        assert setup.state("get", "pump-14", "--set", f"model.path={tmp_path / 'other.safetensors'}") == 65
        assert "is of model" in caplog.text
        assert setup.state("export", "-", "--set", f"model.path={tmp_path / 'other.safetensors'}") == 65


@pytest.mark.kafka
class TestExport:
    def test_json_lines(self, setup: Setup, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        all_stored(setup, capsys)
        path = tmp_path / "state.jsonl"
        assert setup.state("export", str(path)) == 0
        assert f"{STREAMS} streams" in capsys.readouterr().err
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert {row["stream"].encode() for row in rows} == {stream_of(i) for i in range(STREAMS)}
        assert len(rows) == STREAMS
        assert setup.state("get", rows[17]["stream"]) == 0
        one = json.loads(capsys.readouterr().out)
        assert one.keys() == rows[17].keys()
        if one["offset"] == rows[17]["offset"]:
            assert one == rows[17]

    def test_arrays(self, setup: Setup, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        all_stored(setup, capsys)
        path = tmp_path / "state.npz"
        assert setup.state("export", str(path)) == 0
        with np.load(path) as found:
            assert found["h_0"].shape == found["c_0"].shape == (STREAMS, 50)
            assert found["h_0"].dtype == np.float32
            assert found["yhat"].shape == found["x"].shape == (STREAMS, 1)
            assert set(found["stream"].tolist()) == {stream_of(i).decode() for i in range(STREAMS)}
            assert set(found["partition"].tolist()) == {0, 1}
            assert (found["n_seen"] > 0).all()
            assert (found["last_ts"] >= BASE_TIME).all()


@pytest.mark.kafka
class TestReset:
    def test_the_stream_begins_anew(self, setup: Setup, capsys: pytest.CaptureFixture[str]) -> None:
        all_stored(setup, capsys)
        stream, partition = "pump-15", 1
        before = setup.forecasts(stream, 1 << 60)[-1]["n_seen"]
        assert before > 1
        assert setup.state("reset", stream) == 0
        out = capsys.readouterr().out
        assert out.startswith(f"tombstone written: topic {setup.running.input}, partition {partition}, offset ")
        offset = int(out.split()[-1])
        producer = Producer({"bootstrap.servers": setup.kafka, "enable.idempotence": True})
        producer.produce(setup.running.input, b'{"ts":%d,"value":1}' % (BASE_TIME + EVENTS), stream, partition)
        assert producer.flush(20) == 0
        setup.running.wait_for("streamlstm_events_total", EVENTS + 2)
        eventually(lambda: setup.running.metric("streamlstm_lag_records") == 0)
        (letter,) = read_all(setup.kafka, setup.running.dead_letters, PARTITIONS)
        assert (reason_of(letter), letter.key(), letter.value(), source(letter)) == (
            "tombstone", stream.encode(), None, (partition, offset),
        )  # fmt: skip
        last = setup.forecasts(stream, 1 << 60)[-1]
        assert (last["n_seen"], last["status"]) == (1, "warmup")

    def test_a_stream_in_no_snapshot_needs_its_partition(
        self, setup: Setup, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        assert setup.state("reset", "pump-999") == 66
        assert "no snapshot has stream 'pump-999'" in caplog.text
        assert setup.state("reset", "pump-999", "--partition", "9") == 66
        assert "partition 9 of topic" in caplog.text
        assert setup.state("reset", "pump-999", "--set", "input.stream_source=field", "--partition", "0") == 64
        assert capsys.readouterr().out == ""


def source(letter: Message) -> tuple[int, int]:
    headers = dict(letter.headers())
    return int(headers["__streamlstm.errors.partition"]), int(headers["__streamlstm.errors.offset"])
