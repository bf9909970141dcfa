"""`streamlstm doctor` beside a real broker and a real daemon: it finds what is there, and leaves no trace."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, ConsumerGroupState, TopicPartition
from confluent_kafka.admin import AdminClient
from daemon_process import create_topics, daemon, free_port, write_model

from streamlstm.cli.main import outcome
from streamlstm.transport.survey import describe_brokers, describe_group, newest_stamps
from tests.transport.live import connected, fresh, make_topic, produce, transact


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model.safetensors")


def examined(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[tuple[str, str], dict[str, Any]]]:
    """The exit code, and what was found by area and subject."""
    code = outcome(["doctor", "--json", *arguments])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return code, {(row["area"], row["about"]): row for row in rows}


def settings(values: dict[str, object]) -> Iterator[str]:
    for key, value in values.items():
        yield from ("--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}")


def test_without_brokers_the_rest_is_still_said(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nobody = {"kafka.bootstrap_servers": [f"127.0.0.1:{free_port()}"], "model.path": str(model), "metrics.port": 0}
    code, found = examined(capsys, "--quick", *settings(nobody))
    assert code == 75
    assert found["brokers", "brokers"]["level"] == "fail"
    assert "answers" in found["brokers", "brokers"]["found"]
    assert found["model", "model"]["level"] == "ok"
    assert "kafka-python" in found["host", "versions"]["found"]
    assert {area for area, _ in found} == {"configuration", "host", "model", "brokers"}


def test_a_model_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    nobody = {"kafka.bootstrap_servers": [f"127.0.0.1:{free_port()}"], "model.path": "/nowhere", "metrics.port": 0}
    code, found = examined(capsys, "--quick", *settings(nobody))
    assert code == 66
    assert "/nowhere" in found["model", "model"]["found"]
    assert found["host", "memory"]["level"] == "skipped"


@pytest.mark.kafka
def test_topics_that_are_not_there(kafka: str, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = fresh("doctor")
    values: dict[str, object] = {
        "kafka.bootstrap_servers": [kafka], "kafka.group_id": name, "input.topic": name, "model.path": str(model),
        "metrics.port": 0,
    }  # fmt: skip
    code, found = examined(capsys, "--quick", *settings(values))
    assert code == 66
    assert found["topics", "topics"]["fix"].startswith("kafka-topics.sh --bootstrap-server")
    admin = AdminClient({"bootstrap.servers": kafka})
    assert name not in admin.list_topics(timeout=60).topics
    assert name not in {group.group_id for group in admin.list_consumer_groups().result(60).valid}


@pytest.mark.kafka
def test_beside_a_daemon(kafka: str, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What it says of a working set-up, as JSON and as text; members and what is in the topics are as before."""
    topic = fresh("doctor")
    create_topics(kafka, [topic], 2, **{"retention.ms": "3600000"})
    with daemon(kafka, model, topic, 2, {"kafka.group_instance_id": "doctor-0"}) as running:
        running.wait_ready(240)
        produce(kafka, topic, 0, [b'{"stream":"a","ts":%d,"value":1}' % n for n in range(50)])
        running.wait_for("streamlstm_events_total", 50)
        values: dict[str, object] = {
            "kafka.bootstrap_servers": [kafka], "kafka.group_id": running.group, "input.topic": topic,
            "kafka.group_instance_id": "doctor-0", "model.path": str(model), "metrics.host": "127.0.0.1",
            "metrics.port": running.port, **running.topics,
        }  # fmt: skip
        ends = newest(kafka, [topic, running.output, running.dead_letters])
        code, found = examined(capsys, *settings(values))
        assert (code, [row for row in found.values() if row["level"] == "fail"]) == (0, [])
        assert found["host", "metrics port"]["found"].endswith("a daemon answers there")
        assert found["model", "golden vectors"]["level"] == "ok"
        assert found["group", "members"]["found"].startswith("1 for 2 partitions: doctor-0")
        assert "a member now" in found["group", "kafka.group_instance_id"]["found"]
        assert found["brokers", "the brokers' clocks"]["level"] == "ok"
        assert found["brokers", "commit.transaction_timeout_ms"]["level"] == "ok"
        assert "replays" in found["state", "restart"]["found"]
        assert found["topics", topic]["level"] == "warn"
        assert found["topics", running.snapshots]["level"] == "warn"  # made with nothing but its policy
        assert newest(kafka, [topic, running.output, running.dead_letters]) == ends
        admin = AdminClient({"bootstrap.servers": kafka})  # its answers come as long as it is there
        group = admin.describe_consumer_groups([running.group])[running.group].result(60)
        assert (group.state, len(group.members)) == (ConsumerGroupState.STABLE, 1)

        assert outcome(["doctor", "--quick", *settings(values)]) == 0
        text = capsys.readouterr().out
        assert "\n  ok       kafka.group_instance_id: doctor-0, a member now" in text
        assert "\n           fix: kafka-configs.sh --bootstrap-server" in text
        assert " ok, " in text.splitlines()[-1]
        assert running.stop() == 0


def newest(bootstrap: str, topics: list[str]) -> dict[str, list[int]]:
    """The end of each partition's log."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": fresh("reader")})
    found = {}
    for topic in topics:
        found[topic] = [consumer.get_watermark_offsets(TopicPartition(topic, p), 60)[1] for p in (0, 1)]
    consumer.close()
    return found


@pytest.mark.kafka
def test_what_the_brokers_say(kafka: str) -> None:
    topic, plain = make_topic(kafka, 2), make_topic(kafka, 1, {"message.timestamp.type": "LogAppendTime"})
    silent = make_topic(kafka, 1)
    transact(kafka, topic, 1, [b"x" * 5_000], commit=True)
    produce(kafka, plain, 0, [b"x" * 5_000])
    produce(kafka, silent, 0, [b"by a producer's clock"])
    with connected(kafka) as cluster:
        (broker,) = describe_brokers(cluster, cluster.deadline())
        assert int(broker.configs["transaction.max.timeout.ms"]) == 900_000
        assert broker.address == kafka
        assert describe_group(cluster, fresh("nobody"), cluster.deadline()).members == ()
        now_ms = time.time() * 1000
        for name, partition in ((topic, 1), (plain, 0)):
            stamps = newest_stamps(cluster, name, cluster.deadline())
            assert stamps.keys() == {partition}
            assert abs(stamps[partition] - now_ms) < 60_000
        assert newest_stamps(cluster, silent, cluster.deadline()) == {}
