"""What changes while a daemon runs: permissions, passwords and certificates."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from daemon_process import daemon, read_all, source_of_forecast
from kafka.protocol.metadata import MetadataRequest

from streamlstm.errors import AccessError
from streamlstm.transport.cluster import Cluster, NotSent
from streamlstm.transport.settings import ConnectionSettings
from tests.security.broker import PASSWORD, USER, SecuredBroker, acl
from tests.security.commands import CANARY, PARTITIONS, Scene, feed, make_scene, security

pytestmark = pytest.mark.kafka

PRINCIPAL = f"User:{USER}"


@pytest.mark.parametrize(
    ("operation", "resource", "name"), [("Write", "topic", "forecasts"), ("Read", "group", "streamlstm")]
)
def test_a_permission_that_is_taken_away(
    secured: SecuredBroker, model: Path, operation: str, resource: str, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exit 77 at the next commit; given back, the next start goes on, and nothing is lost or answered twice."""
    scene = make_scene(secured, model)
    secured.allow(scene.documented("The daemon", PRINCIPAL))
    taken = acl(PRINCIPAL, operation, resource, scene.names[name])
    given = {
        **scene.settings, "kafka.bootstrap_servers": secured.address("SASL"), **security(secured.scram()),
        "kafka.group_instance_id": "0",
    }  # fmt: skip
    feed(secured, scene, 0, 100)
    with daemon(secured.plain, model, scene.names["events"], PARTITIONS, given) as running:
        running.wait_for("streamlstm_forecasts_total", 100)
        secured.forbid(taken)
        feed(secured, scene, 100, 200)
        assert running.process.wait(60) == 77
    said = capfd.readouterr().err
    assert CANARY not in said
    assert f"{PRINCIPAL} may not {operation} {resource} '{scene.names[name]}'" in said
    assert f"--operation {operation} --{resource} {scene.names[name]}" in said
    secured.allow([taken])
    with daemon(secured.plain, model, scene.names["events"], PARTITIONS, given) as running:
        running.wait_for("streamlstm_forecasts_total", 100)
        assert running.stop() == 0
    assert answered(secured, scene) == [(p, offset) for p in range(PARTITIONS) for offset in range(100)]


def answered(broker: SecuredBroker, scene: Scene) -> list[tuple[int, int]]:
    found = read_all(broker.plain, scene.names["forecasts"], PARTITIONS)
    return [source_of_forecast(each) for each in found]


@contextmanager
def connected(broker: SecuredBroker, listener: str, settings: dict[str, str]) -> Iterator[Callable[[], object]]:
    """A question to the broker over a new connection each time."""
    with closing(Cluster.connect(connection(broker, listener, settings), time.monotonic)) as cluster:
        connections = cluster._connections

        def ask() -> object:
            for each in list(connections._conns.values()):
                connections.call_soon(each.close)
            deadline = cluster.deadline()
            while isinstance(answer := cluster.send_any(MetadataRequest(topics=[], max_version=9), deadline), NotSent):
                if "connect" not in answer.why.lower() and "closed" not in answer.why.lower():
                    break
                cluster.pause(0.05)
            return answer

        yield ask


def connection(broker: SecuredBroker, listener: str, settings: dict[str, str]) -> ConnectionSettings:
    given: dict[str, str | bool] = {key: value for key, value in settings.items() if not key.endswith("_password_file")}
    if "sasl_plain_password_file" in settings:
        given["sasl_plain_password"] = Path(settings["sasl_plain_password_file"]).read_text().strip()
    return ConnectionSettings((broker.address(listener),), security=given, reconnect_backoff_max_ms=50)


def is_answer(found: object) -> bool:
    return hasattr(found, "brokers")


def test_a_client_certificate_is_replaced(secured: SecuredBroker, capfd: pytest.CaptureFixture[str]) -> None:
    """New connections use the new files, unless these are no good."""
    yesterday = datetime.now(UTC) - timedelta(days=1)
    made = secured.certificates
    files = made.client("renewed")
    with connected(secured, "MTLS", secured.mtls(**files)) as ask:
        assert is_answer(ask())
        Path(files["ssl_keyfile"]).write_text("half of what is to come")
        assert is_answer(ask())
        made.client("renewed")
        assert is_answer(ask())
        made.client("renewed", not_before=yesterday - timedelta(days=1), not_after=yesterday)
        with pytest.raises(AccessError, match=r"refuses our certificate .*kafka\.security\.ssl_certfile"):
            ask()


def test_a_broker_that_is_not_trusted_any_more_is_waited_for(secured: SecuredBroker, tmp_path: Path) -> None:
    trusted = tmp_path / "ca.pem"
    shutil.copy(secured.certificates.authority, trusted)
    settings = {"security_protocol": "SSL", "ssl_cafile": str(trusted)}
    with connected(secured, "TLS", settings) as ask:
        assert is_answer(ask())
        shutil.copy(secured.certificates.other_authority, trusted)
        refused = ask()
        assert isinstance(refused, NotSent)
        assert "certificate" in refused.why
        shutil.copy(secured.certificates.authority, trusted)
        time.sleep(0.1)  # the pause before a broker is tried again
        assert is_answer(ask())


def test_a_password_is_changed(secured: SecuredBroker) -> None:
    secured.set_password("changing", PASSWORD)
    with connected(secured, "SASL", secured.scram(user="changing")) as ask:
        assert is_answer(ask())
        secured.set_password("changing", "canary-hunter2-new")
        with pytest.raises(AccessError, match="refuses the login of 'changing'") as refused:
            ask()
    assert CANARY not in str(refused.value)
