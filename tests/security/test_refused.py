"""Brokers that don't let us in: exit 77, soon, and the setting to change is in the message."""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.security.broker import USER, SecuredBroker
from tests.security.commands import Said, say, security

pytestmark = pytest.mark.kafka

HERE = "kafka.security."
SOON_SECONDS = 9.0  # a broker that is away is waited for a little longer

Settings = dict[str, str]


def audit(
    capfd: pytest.CaptureFixture[str], broker: SecuredBroker, listener: str, settings: Settings, **more: object
) -> Said:
    """The command that connects first of all; `plain` is the listener without TLS."""
    address = broker.plain if listener == "plain" else broker.address(listener)
    return say(capfd, "audit", {"kafka.bootstrap_servers": address, **security(settings), **more})


def trusting(broker: SecuredBroker, authority: str = "authority") -> Settings:
    return {"security_protocol": "SSL", "ssl_cafile": str(getattr(broker.certificates, authority))}


def without(settings: Settings, name: str) -> Settings:
    return {key: value for key, value in settings.items() if key != name}


def expired(broker: SecuredBroker) -> Settings:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    return broker.mtls(**broker.certificates.client("old", not_before=yesterday - timedelta(1), not_after=yesterday))


CASES: dict[str, tuple[str, Callable[[SecuredBroker], Settings], list[str]]] = {
    "password": (
        "SASL",
        lambda broker: broker.scram("canary-hunter2-wrong"),
        [f"refuses the login of '{USER}'", f"{HERE}sasl_plain_password_file", "SCRAM-SHA-512"],
    ),
    "password, PLAIN": (
        "SASL",
        lambda broker: broker.scram("canary-hunter2-wrong", mechanism="PLAIN"),
        [f"refuses the login of '{USER}'", f"{HERE}sasl_plain_password_file"],
    ),
    "user": (
        "SASL",
        lambda broker: broker.scram(user="somebody"),
        ["refuses the login of 'somebody'", f"{HERE}sasl_plain_username"],
    ),
    "mechanism": (
        "SASL",
        lambda broker: broker.scram(mechanism="SCRAM-SHA-256"),
        ["no login by SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN", f"{HERE}sasl_mechanism"],
    ),
    "authority": (
        "SASL",
        lambda broker: broker.scram() | {"ssl_cafile": str(broker.certificates.other_authority)},
        ["can't be trusted", "issued by", "Testing CA", f"{HERE}ssl_cafile", "other-ca.pem"],
    ),
    "authorities of the system": (
        "TLS",
        lambda broker: without(trusting(broker), "ssl_cafile"),
        ["can't be trusted", f"{HERE}ssl_cafile", "unset"],
    ),
    "host": (
        "ELSEWHERE",
        trusting,
        ["can't be trusted", "127.0.0.1", "kafka.example.org", f"{HERE}ssl_check_hostname"],
    ),
    "certificate of the broker has expired": (
        "EXPIRED",
        trusting,
        ["can't be trusted: certificate has expired", "the broker needs a new certificate"],
    ),
    "no client certificate": ("MTLS", trusting, ["wants a client certificate", f"{HERE}ssl_certfile"]),
    "client certificate of a stranger": (
        "MTLS",
        lambda broker: broker.mtls(**broker.certificates.client("stranger", untrusted=True)),
        ["refuses our certificate", f"OU={USER}", f"{HERE}ssl_certfile", "stranger.pem"],
    ),
    "client certificate has expired": ("MTLS", expired, ["refuses our certificate", f"{HERE}ssl_certfile", "old.pem"]),
    "no TLS to TLS": (
        "TLS",
        lambda _: {"security_protocol": "PLAINTEXT"},
        ["speaks SSL, and we speak PLAINTEXT", f"{HERE}security_protocol"],
    ),
    "no TLS to TLS with certificates": (
        "MTLS",
        lambda _: {"security_protocol": "PLAINTEXT"},
        ["speaks TLS (SSL or SASL_SSL), and we speak PLAINTEXT", f"{HERE}security_protocol"],
    ),
    "TLS to no TLS": ("plain", trusting, ["speaks PLAINTEXT, and we speak SSL", f"{HERE}security_protocol"]),
    "no login where one is wanted": (
        "SASL",
        trusting,
        ["speaks SASL_SSL (SCRAM-SHA-512, PLAIN), and we speak SSL", f"{HERE}security_protocol"],
    ),
    "login where none is wanted": (
        "TLS",
        lambda broker: broker.scram(),
        ["speaks SSL, and we speak SASL_SSL", f"{HERE}security_protocol"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_not_let_in(secured: SecuredBroker, case: str, capfd: pytest.CaptureFixture[str]) -> None:
    listener, settings, words = CASES[case]
    began = time.monotonic()
    said = audit(capfd, secured, listener, settings(secured))
    assert said.code == 77, said.text
    assert [word for word in words if word not in said.text] == []
    assert len(re.findall("^streamlstm: ", said.text, re.MULTILINE)) == 1
    assert time.monotonic() - began < SOON_SECONDS


def test_a_broker_that_is_away_is_none_that_refuses(secured: SecuredBroker, capfd: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    said = say(capfd, "audit", {"kafka.bootstrap_servers": "127.0.0.1:1", **security(secured.scram())})
    assert said.code == 75
    assert "no broker of 127.0.0.1:1 answers" in said.text
    assert time.monotonic() - began > 5  # it was waited for


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


FILES: dict[str, tuple[Callable[[SecuredBroker, Path], Settings], list[str]]] = {
    "password file is not there": (
        lambda broker, _: broker.scram() | {"sasl_plain_password_file": "/does/not/exist"},
        [f'{HERE}sasl_plain_password_file: found "/does/not/exist" (No such file or directory)'],
    ),
    "password file is empty": (
        lambda broker, tmp: broker.scram() | {"sasl_plain_password_file": write(tmp / "empty", "\n")},
        [f"{HERE}sasl_plain_password_file: found", "(empty)"],
    ),
    "password file is a folder": (
        lambda broker, tmp: broker.scram() | {"sasl_plain_password_file": str(tmp)},
        [f"{HERE}sasl_plain_password_file: found", "(Is a directory)"],
    ),
    "authority is no certificate": (
        lambda broker, tmp: broker.scram() | {"ssl_cafile": write(tmp / "ca.pem", "nonsense")},
        [f"{HERE}ssl_cafile: found", "expected certificates in PEM"],
    ),
    "key is another's": (
        lambda broker, _: broker.mtls(
            **broker.certificates.client("one") | {"ssl_keyfile": broker.certificates.client("two")["ssl_keyfile"]}
        ),
        [f"{HERE}ssl_keyfile: found", "two.key", "expected the key of ssl_certfile"],
    ),
    "key without its password": (
        lambda broker, _: broker.mtls(**broker.certificates.client("hidden", "canary-hunter2-key")),
        [f"{HERE}ssl_password_file: found nothing", "encrypted"],
    ),
    "key with a wrong password": (
        lambda broker, tmp: broker.mtls(
            **broker.certificates.client("hidden", "canary-hunter2-key"),
            ssl_password_file=write(tmp / "password", "canary-hunter2-wrong"),
        ),
        [f"{HERE}ssl_certfile: found", "the password of the key in ssl_password_file is wrong"],
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_no_good(
    secured: SecuredBroker, case: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings, words = FILES[case]
    said = audit(capfd, secured, "MTLS", settings(secured, tmp_path))
    assert said.code == 78, said.text
    assert [word for word in words if word not in said.text] == []


def test_a_login_by_plain(secured: SecuredBroker, capfd: pytest.CaptureFixture[str]) -> None:
    said = audit(capfd, secured, "SASL", secured.scram(mechanism="PLAIN"))
    assert f"User:{USER} may not Describe topic" in said.text


def test_a_name_that_scram_has_to_escape(secured: SecuredBroker, capfd: pytest.CaptureFixture[str]) -> None:
    user = "forecaster,eu=1"
    secured.set_password(user, "canary-hunter2-password")
    said = audit(capfd, secured, "SASL", secured.scram(user=user))
    assert "refuses the login" not in said.text
    assert f"User:{user} may not Describe topic" in said.text
