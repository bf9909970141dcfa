"""The ACLs of docs/secure.md are enough, and each of them is needed; without it, the message gives it."""

from pathlib import Path

import pytest
from confluent_kafka.admin import AclBinding, AclOperation, ResourcePatternType, ResourceType

from tests.security.broker import USER, SecuredBroker, acl
from tests.security.commands import PARTITIONS, Said, Scene, commit, feed, make_scene, say, security

pytestmark = pytest.mark.kafka

PRINCIPAL = f"User:{USER}"
SECTIONS = {
    "check": "The daemon",
    "audit": "audit",
    "state list": "state list, get and export",
}


def settings(broker: SecuredBroker, scene: Scene) -> dict[str, object]:
    return {**scene.settings, "kafka.bootstrap_servers": broker.address("SASL"), **security(broker.scram())}


def command_that_gives(found: AclBinding) -> str:
    """kafka-acls.sh's words for it."""
    operation = {AclOperation.DESCRIBE_CONFIGS: "DescribeConfigs"}.get(found.operation, found.operation.name.title())
    resource = {ResourceType.TOPIC: "topic", ResourceType.GROUP: "group"}.get(found.restype, "transactional-id")
    return f"--add --allow-principal {PRINCIPAL} --operation {operation} --{resource} {found.name}"


@pytest.mark.parametrize("command", SECTIONS)
def test_the_documented_permissions_are_enough_and_each_is_needed(
    secured: SecuredBroker, model: Path, command: str, capfd: pytest.CaptureFixture[str]
) -> None:
    scene = make_scene(secured, model)
    feed(secured, scene, 0, 2 * PARTITIONS)
    commit(secured, scene, 1)
    given = settings(secured, scene) | {"kafka.group_instance_id": "0"}
    needed = scene.documented(SECTIONS[command], PRINCIPAL)
    secured.allow(needed)
    enough = say(capfd, command, given)
    assert enough.code == (0 if command == "check" else 65), enough.text  # 65: nothing has been answered, nor kept
    assert "may not" not in enough.text
    for each in needed:
        secured.forbid(each)
        without = say(capfd, command, given)
        secured.allow([each])
        told = command_that_gives(each)
        if each.operation == AclOperation.DESCRIBE_CONFIGS:
            assert without.code == enough.code, f"without {each}: {without.text}"
            assert "(DescribeConfigs)" in without.text or f"not looked at: {PRINCIPAL} may not" in without.text
        else:
            assert without.code == 77, f"without {each}: {without.text}"
        if command == "check" or each.operation != AclOperation.DESCRIBE_CONFIGS:
            assert gives(told, without, each), f"without {each}: {without.text}"


def gives(told: str, said: Said, missing: AclBinding) -> bool:
    """Whether the command is in the message; of what was given by a prefix, for the full name."""
    if missing.resource_pattern_type == ResourcePatternType.PREFIXED:
        return told in said.text
    alternatives = {told, told.replace("--operation Read", "--operation Describe")}
    return any(f"{each}\n" in said.text for each in alternatives)


def test_all_that_is_missing_is_told_at_once(
    secured: SecuredBroker, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    scene = make_scene(secured, model)
    said = say(capfd, "check", settings(secured, scene) | {"kafka.group_instance_id": "0"})
    assert said.code == 77
    lines = [line for line in said.text.splitlines() if line.startswith("FAIL  permissions: ")]
    assert len(lines) == 7
    for each in scene.documented("The daemon", PRINCIPAL):
        if each.operation != AclOperation.DESCRIBE_CONFIGS:
            assert any(command_that_gives(each) in line for line in lines)


def test_topics_are_created_with_the_documented_permissions(
    secured: SecuredBroker, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    scene = make_scene(secured, model, topics=())
    secured.allow(scene.documented("The daemon", PRINCIPAL))
    given, names = settings(secured, scene), scene.names
    refused = say(capfd, "check --create-topics", given)
    assert refused.code == 77
    assert f"--operation Create --topic {names['forecasts']}\n" in refused.text
    secured.allow(scene.documented("check --create-topics", PRINCIPAL))
    assert say(capfd, "check --create-topics", given).code == 0
    assert say(capfd, "check", given).code == 0


def test_a_reset_needs_to_write_to_the_input(
    secured: SecuredBroker, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    scene = make_scene(secured, model)
    feed(secured, scene, 0, 2)
    secured.allow(scene.documented("state list, get and export", PRINCIPAL))
    given = settings(secured, scene)
    refused = say(capfd, "state reset", given, "pump-0", "--partition", "0")
    assert refused.code == 77
    assert f"{PRINCIPAL} may not Write topic '{scene.names['events']}'" in refused.text
    secured.allow([acl(PRINCIPAL, "Write", "topic", scene.names["events"])])
    assert say(capfd, "state reset", given, "pump-0", "--partition", "0").code == 0
