"""Every event has exactly one answer over TLS with a login, and no secret shows anywhere while that is so.

Two real members with the permissions of docs/secure.md and no more; one is killed in the middle and comes back. The
judge is librdkafka, by another login.
"""

import base64
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from urllib.error import HTTPError

import pytest
from daemon_process import Daemon, daemon, read_all, source_of_forecast

from tests.security.broker import PASSWORD, USER, SecuredBroker, acl, principal
from tests.security.commands import CANARY, PARTITIONS, Scene, feed, make_scene, say, security

pytestmark = pytest.mark.kafka

EVENTS = 600
PAGES = ("/metrics", "/livez", "/readyz", "/debug/streams/worst")
KEY_PASSWORD = "canary-hunter2-key"


def by_password(broker: SecuredBroker, tmp_path: Path) -> tuple[str, dict[str, str], str]:
    return "SASL", broker.scram(), f"User:{USER}"


def by_certificate(broker: SecuredBroker, tmp_path: Path) -> tuple[str, dict[str, str], str]:
    """With an encrypted key."""
    client, password = broker.certificates.client(password=KEY_PASSWORD), tmp_path / "key-password"
    password.write_text(KEY_PASSWORD)
    settings = broker.mtls(**client, ssl_password_file=str(password))
    return "MTLS", settings, principal(Path(client["ssl_certfile"]))


Way = Callable[[SecuredBroker, Path], tuple[str, dict[str, str], str]]


@pytest.mark.parametrize("way", [by_password, by_certificate])
def test_each_event_has_one_answer_and_no_secret_shows(
    secured: SecuredBroker, model: Path, way: Way, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    listener, login, who = way(secured, tmp_path)
    scene = make_scene(secured, model)
    secured.allow(scene.documented("The daemon", who))
    given = {**scene.settings, "kafka.bootstrap_servers": secured.address(listener), **security(login)}
    secrets = secrets_of(login)
    feed(secured, scene, 0, EVENTS // 3)
    with ExitStack() as stack:
        members = [stack.enter_context(member(secured, scene, given, n, log)) for n, log in enumerate(("json", "text"))]
        for each in members:
            each.wait_ready(120)
        wait_for_answers(secured, scene, EVENTS // 3)
        show_no_secret(members, secrets)
        feed(secured, scene, EVENTS // 3, 2 * EVENTS // 3)
        members[0].process.kill()
        members[0].process.wait()
        again = stack.enter_context(member(secured, scene, given, 0, "logfmt"))
        feed(secured, scene, 2 * EVENTS // 3, EVENTS)
        wait_for_answers(secured, scene, EVENTS)
        again.wait_ready(120)
        show_no_secret([again, members[1]], secrets)
        assert [each.stop() for each in (again, members[1])] == [0, 0]
    logged = capfd.readouterr()
    assert not any(secret in logged.out + logged.err for secret in secrets)
    assert '"msg": "drained"' not in logged.err  # the member that logged JSON was killed
    assert "msg=drained" in logged.err
    judge(secured, scene, secrets)
    look_with_commands(secured, scene, given, who, capfd)


def member(broker: SecuredBroker, scene: Scene, given: dict[str, object], n: int, log: str) -> object:
    settings = {**given, "kafka.group_instance_id": str(n), "log.format": log}
    return daemon(broker.plain, scene.model, scene.names["events"], PARTITIONS, settings)


def secrets_of(login: dict[str, str]) -> list[str]:
    """What is to be seen nowhere: passwords, as they are and in base64, and lines of the private key."""
    found = [CANARY, base64.b64encode(PASSWORD.encode()).decode()]
    if "ssl_keyfile" in login:
        found += Path(login["ssl_keyfile"]).read_text().splitlines()[1:-1]
    return found


def show_no_secret(members: list[Daemon], secrets: list[str]) -> None:
    """Pages, command line and environment of the processes."""
    for each in members:
        process = Path(f"/proc/{each.process.pid}")
        shown = [
            (process / "cmdline").read_text(),
            (process / "environ").read_text(),
            *(page(each, path) for path in PAGES),
        ]
        assert not any(secret in text for secret in secrets for text in shown)


def page(member: Daemon, path: str) -> str:
    """Also when it says that the member isn't ready."""
    try:
        return member.page(path)
    except HTTPError as error:
        return error.read().decode()


def wait_for_answers(broker: SecuredBroker, scene: Scene, least: int) -> None:
    deadline = time.monotonic() + 120
    while (found := len(read_all(broker.plain, scene.names["forecasts"], PARTITIONS))) < least:
        assert time.monotonic() < deadline, f"{found} of {least} answers after two minutes"
        time.sleep(0.2)


def judge(broker: SecuredBroker, scene: Scene, secrets: list[str]) -> None:
    """Over TLS and with a password, as somebody who may read the forecasts and nothing else."""
    broker.set_password("reader", PASSWORD)
    broker.allow([acl("User:reader", "Read", "topic", scene.names["forecasts"])])
    found = read_all(
        broker.address("SASL"), scene.names["forecasts"], PARTITIONS,
        security_protocol="SASL_SSL", sasl_mechanism="SCRAM-SHA-512", sasl_username="reader", sasl_password=PASSWORD,
        ssl_ca_location=str(broker.certificates.authority),
    )  # fmt: skip
    expected = [(partition, offset) for partition in range(PARTITIONS) for offset in range(EVENTS // PARTITIONS)]
    assert [source_of_forecast(each) for each in found] == expected
    assert read_all(broker.plain, scene.names["dead-letters"], PARTITIONS) == []
    written = [*found, *read_all(broker.plain, scene.names["snapshots"], PARTITIONS)]
    assert len(written) > EVENTS
    contents = b"".join((each.key() or b"") + (each.value() or b"") for each in written)
    assert not any(secret.encode() in contents for secret in secrets)


def look_with_commands(
    broker: SecuredBroker, scene: Scene, given: dict[str, object], who: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """audit, state and check by the same login, each with its own permissions."""
    broker.allow(scene.documented("audit", who))
    broker.allow(scene.documented("state list, get and export", who))
    audit = say(capfd, "audit", given)
    assert audit.code == 0, audit.text
    assert f"clean: {EVENTS} events" in audit.text
    assert say(capfd, "state list", given).code == 0
    assert say(capfd, "state get", given, "pump-3").code == 0
    assert say(capfd, "check", given | {"kafka.group_instance_id": "0"}).code == 0
