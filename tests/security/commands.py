"""Commands against the secured broker, run in this process; whatever they say is searched for secrets."""

import logging
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AclBinding
from daemon_process import create_topics

import streamlstm.service.audit  # noqa: F401  loaded now and not when a command is timed
from streamlstm.cli.main import outcome
from tests.security.broker import SecuredBroker, acl

SECURE_PAGE = Path(__file__).parents[2] / "docs" / "secure.md"
CANARY = "canary-hunter2"
PARTITIONS = 2


@dataclass(frozen=True)
class Scene:
    """Topics, a group and the model of one test."""

    unique: str
    model: Path

    @property
    def names(self) -> dict[str, str]:
        """What the documentation calls them, and what they are called here."""
        named = ("events", "forecasts", "dead-letters", "snapshots", "streamlstm")
        return {name: f"{name}-{self.unique}" for name in named}

    @property
    def settings(self) -> dict[str, object]:
        names = self.names
        return {
            "input.topic": names["events"], "output.topic": names["forecasts"],
            "dead_letter.topic": names["dead-letters"], "snapshot.topic": names["snapshots"],
            "kafka.group_id": names["streamlstm"], "model.path": str(self.model), "log.level": "debug",
            "snapshot.interval_ms": 1000,
        }  # fmt: skip

    def documented(self, section: str, principal: str) -> list[AclBinding]:
        """The ACLs that a section of docs/secure.md gives, for the names of this scene."""
        text = SECURE_PAGE.read_text().partition(f"### {section}\n")[2].partition("\n#")[0]
        found = []
        for line in re.findall(r"kafka-acls\.sh .*", text):
            ((kind, name),) = re.findall(r"--(topic|group|transactional-id) (\S+)", line)
            prefixed = "--resource-pattern-type prefixed" in line
            here = self.names[name.removesuffix("-")] + ("-" if prefixed else "")
            found += [acl(principal, each, kind, here, prefixed) for each in re.findall(r"--operation (\w+)", line)]
        assert found, f"no commands under {section!r}"
        return found


def make_scene(broker: SecuredBroker, model: Path, topics: Iterable[str] = ("forecasts", "dead-letters")) -> Scene:
    scene = Scene(uuid.uuid4().hex[:8], model)
    create_topics(broker.plain, [scene.names[name] for name in ("events", *topics)], PARTITIONS)
    create_topics(
        broker.plain, [scene.names["snapshots"]] if topics else [], PARTITIONS, **{"cleanup.policy": "compact"}
    )
    return scene


def feed(broker: SecuredBroker, scene: Scene, begin: int, end: int) -> None:
    producer = Producer({"bootstrap.servers": broker.plain, "enable.idempotence": True})
    for n in range(begin, end):
        topic, value = scene.names["events"], f'{{"ts":{1_700_000_000_000 + n},"value":{n % 7}}}'
        producer.produce(topic, value, key=f"pump-{n % 20}", partition=n % PARTITIONS)
    producer.flush()


def commit(broker: SecuredBroker, scene: Scene, offset: int) -> None:
    """Of the group, in each partition, as if a daemon had."""
    consumer = Consumer({"bootstrap.servers": broker.plain, "group.id": scene.names["streamlstm"]})
    offsets = [TopicPartition(scene.names["events"], partition, offset) for partition in range(PARTITIONS)]
    consumer.commit(offsets=offsets, asynchronous=False)
    consumer.close()


def security(settings: Mapping[str, str]) -> dict[str, str]:
    return {f"kafka.security.{name}": value for name, value in settings.items()}


@dataclass(frozen=True)
class Said:
    code: int
    text: str


def say(capfd: pytest.CaptureFixture[str], command: str, settings: Mapping[str, object], *more: str) -> Said:
    """Exit code and words of a command; no secret is among them."""
    given = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    capfd.readouterr()
    log = logging.getLogger()
    pytests, log.handlers[:] = log.handlers[:], []  # a command that doesn't log speaks on standard error
    try:
        code = outcome([*command.split(), *given, *more])
    finally:
        log.handlers[:] = pytests
    said = capfd.readouterr()
    assert CANARY not in said.out + said.err
    return Said(code, said.out + said.err)
