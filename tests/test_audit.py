"""`streamlstm audit` against a real broker: what a real daemon wrote, and copies of it with known faults."""

import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Message, Producer
from confluent_kafka import TopicPartition as Position
from confluent_kafka.admin import AdminClient
from daemon_process import create_topics, daemon, read_all, write_model
from local_kafka import LocalKafka

from streamlstm.cli.main import outcome

PARTITIONS = 2
EVENTS = 4_000
BAD_EVERY = 40
BASE_TIME = 1_730_000_000_000

Edit = Callable[[list[Message]], list[Message]]


@dataclass
class Written:
    """A topic of events, what a daemon made of it, and the group that has committed it all."""

    kafka: str
    group: str
    input: str
    output: str
    dead_letters: str

    def arguments(self, **topics: str) -> list[str]:
        settings: dict[str, object] = {
            "kafka.bootstrap_servers": json.dumps([self.kafka]),
            "kafka.group_id": self.group,
            "input.topic": self.input,
            "output.topic": topics.get("output", self.output),
            "dead_letter.topic": topics.get("dead_letters", self.dead_letters),
            "commit.transaction_timeout_ms": 6_000,
        }
        return ["audit", *(part for key in settings for part in ("--set", f"{key}={settings[key]}"))]

    def audit(self, *arguments: str, **topics: str) -> int:
        return outcome([*self.arguments(**topics), *arguments])

    def copy(self, topic: str, name: str, edit: Edit, **config: str) -> str:
        """A topic with the records of partition 1 of `topic` as `edit` leaves them; partition 0 as it is."""
        create_topics(self.kafka, [name], PARTITIONS, **config)
        messages = read_all(self.kafka, topic, PARTITIONS)
        write(self.kafka, name, [each for each in messages if each.partition() == 0])
        write(self.kafka, name, edit([each for each in messages if each.partition() == 1]))
        return name


def write(kafka: str, topic: str, messages: Sequence[Message]) -> None:
    producer = Producer(
        {
            "bootstrap.servers": kafka,
            "enable.idempotence": True,
            "linger.ms": 5,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    for each in messages:
        time_ms = max(each.timestamp()[1], 0)
        producer.produce(
            topic, each.value(), each.key(), each.partition(), headers=each.headers() or [], timestamp=time_ms
        )  # fmt: skip
    assert producer.flush(60) == 0


def produce_events(kafka: str, topic: str, first: int, count: int) -> None:
    """Events in order, one in BAD_EVERY of them bad, the second half in a transaction; and an aborted one."""
    plain = Producer({"bootstrap.servers": kafka, "enable.idempotence": True, "linger.ms": 5})
    transactional = Producer({"bootstrap.servers": kafka, "linger.ms": 5, "transactional.id": topic})
    transactional.init_transactions()
    for half, producer in enumerate((plain, transactional, transactional)):
        if producer is transactional:
            producer.begin_transaction()
        for i in range(first + half * count // 2, first + (half + 1) * count // 2):
            value = b"garbage" if i % BAD_EVERY == 7 else b'{"ts":%d,"value":%.3f}' % (BASE_TIME + i, i % 17)
            producer.produce(topic, value, b"stream-%d" % (i % 50), i % PARTITIONS, timestamp=BASE_TIME + i)
        producer.flush(60)
        if half == 1:
            transactional.commit_transaction()
        if half == 2:
            transactional.abort_transaction()


def delete_records(kafka: str, topic: str, partition: int, before: int) -> None:
    """As retention does, at once."""
    admin = AdminClient({"bootstrap.servers": kafka})
    (done,) = admin.delete_records([Position(topic, partition, before)]).values()
    done.result(20)


@pytest.fixture(scope="module")
def written(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Written]:
    folder = tmp_path_factory.mktemp("audit")
    topic = f"audited-{folder.name}-{time.time_ns()}"
    create_topics(kafka, [topic], PARTITIONS)
    produce_events(kafka, topic, 0, EVENTS)
    model = write_model(folder / "model.safetensors")
    settings = {"kafka.group_id": topic}
    with daemon(kafka, model, topic, PARTITIONS, settings) as running:
        running.wait_ready()
        running.wait_for("streamlstm_events_total", EVENTS)
        assert running.stop() == 0
        yield Written(kafka, topic, topic, running.output, running.dead_letters)


def source(message: Message) -> int:
    return int(json.loads(message.value())["src"]["offset"])


def shown(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def findings(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"partition": each["partition"], **one} for each in report["partitions"] for one in each["findings"]]


@pytest.mark.kafka
class TestClean:
    def test_what_the_daemon_wrote(self, written: Written, capsys: pytest.CaptureFixture[str]) -> None:
        assert written.audit("--json") == 0
        report = shown(capsys)
        assert report["clean"] is True
        assert (report["missing"], report["duplicate"], report["reordered"], report["foreign"]) == (0, 0, 0, 0)
        letters = EVENTS // BAD_EVERY
        for each in report["partitions"]:
            assert each["events"] == EVENTS // PARTITIONS
            assert (each["not_checkable"], each["others"], each["unreadable_batches"]) == (0, 0, 0)
        assert sum(each["dead_letters"] for each in report["partitions"]) == letters
        assert sum(report["models"].values()) == EVENTS - letters
        assert len(report["models"]) == 1

    def test_as_a_table(self, written: Written, capsys: pytest.CaptureFixture[str]) -> None:
        assert written.audit() == 0
        head, *rows, verdict = capsys.readouterr().out.splitlines()
        assert head.split("  ")[0] == "partition"
        assert len(rows) == PARTITIONS
        assert verdict == f"clean: {EVENTS:,} events, each with exactly one answer, in order"

    def test_a_terminal_sees_a_bar(self, written: Written) -> None:
        screen, terminal = pty.openpty()
        command = [sys.executable, "-m", "streamlstm", *written.arguments()]
        done = subprocess.run(command, stderr=terminal, stdout=subprocess.PIPE, timeout=120, check=False)
        os.close(terminal)
        bar = os.read(screen, 65536)
        os.close(screen)
        assert done.returncode == 0
        assert b"auditing" in bar
        assert b"100%" in bar
        assert b"auditing" not in done.stdout

    def test_a_range_of_times_and_of_offsets(self, written: Written, capsys: pytest.CaptureFixture[str]) -> None:
        assert written.audit("--json", "--from", str(BASE_TIME + 1_000), "--to", "2024-10-27T03:33:22Z") == 0
        by_time = shown(capsys)
        assert [each["events"] for each in by_time["partitions"]] == [500, 500]
        assert [(each["first"], each["end"]) for each in by_time["partitions"]] == [(500, 1000), (500, 1000)]
        assert written.audit("--json", "--from", "1:500", "--to", "0:20,1:600", "--partition", "1") == 0
        (only,) = shown(capsys)["partitions"]
        assert (only["partition"], only["first"], only["end"], only["events"]) == (1, 500, 600, 100)

    def test_a_running_daemon(self, written: Written, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Audited again and again while events come in: clean every time, and in the end all of them."""
        topic = f"{written.input}-live"
        create_topics(written.kafka, [topic], PARTITIONS)
        model = write_model(tmp_path / "model.safetensors")
        settings = {"kafka.group_id": topic, "commit.interval_ms": 20}
        with daemon(written.kafka, model, topic, PARTITIONS, settings) as running:
            running.wait_ready()
            live = Written(written.kafka, topic, topic, running.output, running.dead_letters)
            produce_events(written.kafka, topic, 0, 1_000)
            running.wait_for("streamlstm_events_total", 1)
            for k in range(1, 6):
                produce_events(written.kafka, topic, 1_000 * k, 1_000)
                assert live.audit("--json") == 0
                assert sum(each["events"] for each in shown(capsys)["partitions"]) > 0
            running.wait_for("streamlstm_events_total", 6_000)
            assert live.audit("--json") == 0
            assert sum(each["events"] for each in shown(capsys)["partitions"]) == 6_000
        delete_records(written.kafka, topic, 1, 100)
        assert live.audit("--json") == 0
        report = shown(capsys)
        assert [each["first"] for each in report["partitions"]] == [0, 100]
        assert sum(each["events"] for each in report["partitions"]) == 5_900


@pytest.mark.kafka
class TestFaults:
    def found(
        self, written: Written, capsys: pytest.CaptureFixture[str], name: str, edit: Edit, exit_code: int = 65
    ) -> tuple[dict[str, Any], list[dict[str, Any]], str]:
        output = written.copy(written.output, f"{written.output}-{name}", edit)
        assert written.audit("--json", output=output) == exit_code
        report = shown(capsys)
        assert report["clean"] is (exit_code == 0)
        return report, findings(report), output

    def test_missing(self, written: Written, capsys: pytest.CaptureFixture[str]) -> None:
        gone: list[int] = []

        def edit(messages: list[Message]) -> list[Message]:
            gone.extend(source(messages.pop(at)) for at in (500, 20))
            return messages

        report, found, output = self.found(written, capsys, "missing", edit)
        assert found == [{"partition": 1, "kind": "missing", "event": event} for event in sorted(gone)]
        assert (report["missing"], report["duplicate"], report["reordered"], report["foreign"]) == (2, 0, 0, 0)
        assert written.audit(output=output) == 65
        out = capsys.readouterr().out
        assert f"missing: event {written.input} 1:{min(gone)}\n" in out
        assert out.endswith("NOT CLEAN: 2 missing\n")

    def test_duplicate(self, written: Written, capsys: pytest.CaptureFixture[str]) -> None:
        report, found, output = self.found(written, capsys, "twice", lambda all_: [*all_[:101], all_[50], *all_[101:]])
        (only,) = found
        assert (only["partition"], only["kind"], only["topic"], only["offset"]) == (1, "duplicate", output, 101)
        assert (report["duplicate"], report["missing"], report["reordered"]) == (1, 0, 0)

    def test_reordered(self, written: Written, capsys: pytest.CaptureFixture[str]) -> None:
        moved: list[int] = []

        def edit(messages: list[Message]) -> list[Message]:
            messages[70], messages[71] = messages[71], messages[70]
            moved.append(source(messages[71]))
            return messages

        report, found, output = self.found(written, capsys, "moved", edit)
        assert found == [{"partition": 1, "kind": "reordered", "event": moved[0], "topic": output, "offset": 71}]
        assert (report["duplicate"], report["missing"], report["reordered"]) == (0, 0, 1)

    def test_foreign(self, written: Written, capsys: pytest.CaptureFixture[str]) -> None:
        """Answers to the end marker of a transaction, to what isn't committed, and to another partition."""
        report = self.clean(written, capsys)
        end = report["partitions"][1]["end"]

        def edit(messages: list[Message]) -> list[Message]:
            for changes in ({"offset": EVENTS // PARTITIONS}, {"offset": end}, {"partition": 0}):
                value = json.loads(messages[0].value())
                value["src"] |= changes
                messages.append(Edited(messages[0], json.dumps(value, separators=(",", ":")).encode()))  # type: ignore[arg-type]
            return messages

        report, found, output = self.found(written, capsys, "foreign", edit)
        n = report["partitions"][1]["forecasts"] - 1
        assert report["foreign"] == 3
        assert {(each["why"], each["topic"], each["offset"]) for each in found} == {
            ("the input has no such record", output, n),
            ("the group has not committed this far", output, n + 1),
            ("it names another partition", output, n + 2),
        }

    def clean(self, written: Written, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
        assert written.audit("--json") == 0
        return shown(capsys)

    def test_a_missing_dead_letter(self, written: Written, capsys: pytest.CaptureFixture[str]) -> None:
        letters = written.copy(written.dead_letters, f"{written.dead_letters}-missing", lambda all_: all_[:-1])
        assert written.audit("--json", dead_letters=letters) == 65
        report = shown(capsys)
        assert (report["missing"], report["duplicate"], report["reordered"], report["foreign"]) == (1, 0, 0, 0)

    def test_answers_of_others_are_counted_apart(self, written: Written, capsys: pytest.CaptureFixture[str]) -> None:
        """Another input's forecasts and plain text in the same topic; and another model's, which are duplicates."""

        def shared(messages: list[Message]) -> list[Message]:
            other = [Edited(each, each.value().replace(b'"topic":"', b'"topic":"x')) for each in messages[:10]]
            return [*messages[:100], *other, Edited(messages[0], b"hello"), Edited(messages[0], None), *messages[100:]]  # type: ignore[list-item]

        report, found, _ = self.found(written, capsys, "shared", shared, exit_code=0)
        assert found == []
        assert report["partitions"][1]["others"] == 12

        def doubled(messages: list[Message]) -> list[Message]:
            model = json.loads(messages[0].value())["model"].encode()
            other = [Edited(each, each.value().replace(model, b"0123456789ab")) for each in messages]
            return [each for pair in zip(messages, other, strict=True) for each in pair]  # type: ignore[misc]

        report, found, _ = self.found(written, capsys, "doubled", doubled)
        assert report["duplicate"] == report["models"]["0123456789ab"] == report["partitions"][1]["duplicate"]
        assert {each["kind"] for each in found} == {"duplicate"}
        assert any("2 models" in note for note in report["notes"])


class Edited:
    """A message with another value."""

    def __init__(self, message: Message, value: bytes | None) -> None:
        self._message = message
        self._value = value

    def value(self) -> bytes | None:
        return self._value

    def __getattr__(self, name: str) -> Any:
        return getattr(self._message, name)


@pytest.mark.kafka
class TestRetention:
    def test_dropped_answers_are_not_missing(self, written: Written, capsys: pytest.CaptureFixture[str]) -> None:
        output = written.copy(written.output, f"{written.output}-short", lambda all_: all_)
        delete_records(written.kafka, output, 1, 300)
        assert written.audit("--json", output=output) == 0
        report = shown(capsys)
        part = report["partitions"][1]
        assert (report["missing"], part["not_checkable"]) == (0, 300)
        assert part["checked_from"] > 300
        assert any("partition 1" in note and "retention" in note for note in report["notes"])
        assert written.audit("--json", "--from", "1:200", output=output) == 66
        assert shown(capsys)["clean"] is False
        assert written.audit("--from", "1:200", output=output) == 66
        assert "NOT PROVEN" in capsys.readouterr().out
        assert written.audit("--json", "--from", f"1:{part['checked_from']}", output=output) == 0

    def test_a_compacted_output_proves_nothing_missing(
        self, written: Written, capsys: pytest.CaptureFixture[str]
    ) -> None:
        name = f"{written.output}-compacted"
        output = written.copy(written.output, name, lambda all_: all_[:-5], **{"cleanup.policy": "compact"})
        assert written.audit("--json", output=output) == 0
        report = shown(capsys)
        assert (report["missing"], report["partitions"][1]["not_checkable"]) == (0, 5)


MARK = b"a bit of this is flipped"


def flip_bit(broker: LocalKafka, topic: str) -> None:
    """In the first batch with MARK, in the log on disk."""
    for segment in (broker.folder / "data" / f"{topic}-0").glob("*.log"):
        content = bytearray(segment.read_bytes())
        content[content.index(MARK)] ^= 0x08
        segment.write_bytes(content)


@pytest.mark.kafka
def test_unreadable_batches(own_broker: LocalKafka, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A corrupt batch among events and bad records: answered by one dead letter for its offsets, and that in order."""
    kafka = own_broker.bootstrap
    create_topics(kafka, ["corrupt"], 1)
    producer = Producer({"bootstrap.servers": kafka, "enable.idempotence": True, "linger.ms": 50})
    for part in range(5):
        for i in range(10):
            value = MARK if part == 2 else b"garbage" if i == 5 else b'{"ts":%d,"value":1}' % (BASE_TIME + i)
            producer.produce("corrupt", value, b"key", 0)
        assert producer.flush(20) == 0
    own_broker.stop()
    flip_bit(own_broker, "corrupt")
    own_broker.start()
    model = write_model(tmp_path / "model.safetensors")
    with daemon(kafka, model, "corrupt", 1, {"kafka.group_id": "corrupt"}) as running:
        running.wait_ready()
        running.wait_for("streamlstm_events_total", 40)
        assert running.stop() == 0
    written = Written(kafka, "corrupt", "corrupt", running.output, running.dead_letters)
    exit_code = written.audit("--json")
    (found,) = shown(capsys)["partitions"]
    assert found["findings"] == []
    assert (found["events"], found["unreadable_batches"], found["forecasts"], found["dead_letters"]) == (40, 1, 36, 5)
    assert exit_code == 0
    create_topics(kafka, ["fewer"], 1)
    write(kafka, "fewer", [each for each in read_all(kafka, running.dead_letters, 1) if each.value() is not None])
    assert written.audit("--json", dead_letters="fewer") == 65
    (found,) = shown(capsys)["partitions"]
    assert found["findings"] == [{"kind": "missing", "event": 20}]


@pytest.mark.kafka
class TestRefusals:
    def test_a_group_that_has_committed_nothing(self, written: Written, caplog: pytest.LogCaptureFixture) -> None:
        other = Written(written.kafka, "nobody", written.input, written.output, written.dead_letters)
        assert other.audit() == 66
        assert "group 'nobody' has committed no offset of topic" in caplog.text

    def test_topics_and_partitions_that_are_not_there(self, written: Written, caplog: pytest.LogCaptureFixture) -> None:
        assert written.audit(output="nowhere") == 66
        assert "topic nowhere is not there" in caplog.text
        assert written.audit("--partition", "7") == 64
        assert "partition 7: topic" in caplog.text

    def test_answers_of_a_group_that_has_not_committed_them(
        self, written: Written, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A group whose offsets lie behind its own answers will answer those events again."""
        group = f"{written.group}-behind"
        consumer = Consumer({"bootstrap.servers": written.kafka, "group.id": group, "enable.auto.commit": False})
        consumer.commit(offsets=[Position(written.input, p, 900) for p in range(PARTITIONS)], asynchronous=False)
        consumer.close()
        behind = Written(written.kafka, group, written.input, written.output, written.dead_letters)
        assert behind.audit("--json") == 65
        report = shown(capsys)
        assert [each["events"] for each in report["partitions"]] == [900, 900]
        assert report["foreign"] == EVENTS - 2 * 900
        assert (report["missing"], report["duplicate"], report["reordered"]) == (0, 0, 0)


@pytest.mark.parametrize("text", ["1200", "yesterday", "0:", "0:1,", "-1:5", "1:-5", "2026-13-01"])
def test_bounds_that_make_no_sense(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(["audit", "--from", text]) == 64
    assert "expected a time such as" in capsys.readouterr().err
