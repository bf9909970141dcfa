"""SASL and TLS against a real broker: what a user writes in the file reaches kafka-python, and secrets stay secret."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from daemon_process import create_topics, daemon, random_parameters, read_all
from local_kafka import LocalKafka

from streamlstm.model.golden import make_golden
from streamlstm.model.model_file import Model, no_scaling, save

PASSWORD = "canary-hunter2-canary"
STORE_PASSWORD = "canary-store"


@dataclass(frozen=True)
class SecureBroker:
    """A broker whose second listener speaks TLS and asks for a password."""

    plain: str
    secure: str
    authority: Path


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureBroker]:
    folder = tmp_path_factory.mktemp("secure")
    store, authority = folder / "broker.p12", folder / "broker.pem"
    keytool(
        "-genkeypair", "-alias", "broker", "-keyalg", "RSA", "-validity", "30", "-dname", "CN=localhost",
        "-ext", "SAN=ip:127.0.0.1,dns:localhost", "-ext", "bc=ca:true", store=store,
    )  # fmt: skip
    keytool("-exportcert", "-rfc", "-alias", "broker", "-file", str(authority), store=store)
    login = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_me="{PASSWORD}";'
    properties = {
        "listener.name.secure.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.secure.plain.sasl.jaas.config": login,
        "listener.name.secure.ssl.keystore.location": str(store),
        "listener.name.secure.ssl.keystore.password": STORE_PASSWORD,
        "listener.name.secure.ssl.key.password": STORE_PASSWORD,
    }
    running = LocalKafka(folder / "kafka", properties=properties, extra_listeners={"SECURE": "SASL_SSL"})
    with running:
        yield SecureBroker(running.bootstrap, f"127.0.0.1:{running.listener_ports['SECURE']}", authority)


def keytool(*arguments: str, store: Path) -> None:
    command = ["keytool", *arguments, "-keystore", str(store), "-storetype", "PKCS12", "-storepass", STORE_PASSWORD]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    parameters = random_parameters()
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    golden = make_golden(parameters, 0, "test")
    save(Model(parameters, 0, ("value",), 0, "value", (1,), no_scaling(1), None, {}, golden), path)
    return path


def settings(broker: SecureBroker, tmp_path: Path, password: str = PASSWORD, **changed: str) -> dict[str, str]:
    secret = tmp_path / "password"
    secret.write_text(password + "\n")
    security = {
        "security_protocol": "SASL_SSL",
        "ssl_cafile": str(broker.authority),
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "me",
        "sasl_plain_password_file": str(secret),
    }
    values = {f"kafka.security.{name}": value for name, value in (security | changed).items()}
    return values | {"kafka.bootstrap_servers": broker.secure, "log.level": "debug"}


def check(model: Path, values: dict[str, str], *more: str) -> subprocess.CompletedProcess[str]:
    arguments = [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
    done = subprocess.run(
        [sys.executable, "-m", "streamlstm", "check", "--set", f"model.path={model}", *arguments, *more],
        capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert PASSWORD not in done.stdout + done.stderr
    return done


@pytest.mark.kafka
def test_events_through_tls_and_a_password(
    broker: SecureBroker, model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """At log level debug, where kafka-python by itself prints the password in clear (auth_bytes=...)."""
    from confluent_kafka import Producer

    create_topics(broker.plain, ["events-tls"], 1)
    producer = Producer({"bootstrap.servers": broker.plain, "enable.idempotence": True})
    for n in range(10):
        producer.produce("events-tls", f'{{"ts":{n},"value":0.5}}', key="a")
    producer.flush()
    with daemon(broker.plain, model, "events-tls", 1, settings(broker, tmp_path)) as running:
        running.wait_for("streamlstm_forecasts_total", 10)
        assert PASSWORD not in running.page("/metrics")
        assert running.stop() == 0
    logged = capfd.readouterr().err
    assert "msg=stopping why=SIGTERM" in logged
    assert PASSWORD not in logged
    assert len(read_all(broker.plain, running.output, 1)) == 10


@pytest.mark.kafka
def test_check_connects_and_creates_the_topics(broker: SecureBroker, model: Path, tmp_path: Path) -> None:
    create_topics(broker.plain, ["events-check"], 3)
    values = settings(broker, tmp_path) | {
        "input.topic": "events-check", "output.topic": "forecasts-check", "dead_letter.topic": "dead-check",
        "snapshot.topic": "snapshots-check",
    }  # fmt: skip
    missing = check(model, values)
    assert missing.returncode not in (0, 70)
    assert "forecasts-check" in missing.stdout
    created = check(model, values, "--create-topics")
    assert created.returncode == 0, created.stdout
    again = check(model, values)
    assert again.returncode == 0
    assert "FAIL" not in again.stdout


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("password", "changed"),
    [("wrong-canary", {}), (PASSWORD, {"sasl_plain_username": "somebody"})],
    ids=["password", "user"],
)
def test_access_refused(
    broker: SecureBroker, model: Path, tmp_path: Path, password: str, changed: dict[str, str]
) -> None:
    done = check(model, settings(broker, tmp_path, password, **changed))
    assert done.returncode == 77, done.stdout
    assert "FAIL  brokers: " in done.stdout
    assert "wrong-canary" not in done.stdout + done.stderr


@pytest.mark.kafka
def test_a_certificate_that_is_not_trusted(broker: SecureBroker, model: Path, tmp_path: Path) -> None:
    """Trusting the system's authorities only."""
    values = settings(broker, tmp_path)
    del values["kafka.security.ssl_cafile"]
    done = check(model, values)
    assert done.returncode == 77, done.stdout
    assert "certificate" in done.stdout.lower()
