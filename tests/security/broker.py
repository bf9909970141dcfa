"""One secured broker for all tests here: TLS, mutual TLS and SASL beside the plain listener, and an authorizer.

Who comes by the plain listener, or without a certificate by the TLS one, is User:ANONYMOUS, a super user: the tests'
own producer, reader and administrator. Who logs in may do what the ACLs say, and nothing else.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509 import load_pem_x509_certificate

from deploy.kafka.local_kafka import LocalKafka

USER = "forecaster"
PASSWORD = "canary-hunter2-password"
KEY_PASSWORD = "canary-hunter2-key"
LISTENERS = {"TLS": "SSL", "MTLS": "SSL", "EXPIRED": "SSL", "ELSEWHERE": "SSL", "SASL": "SASL_SSL"}
AUTHORIZER = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"


def pem_of_key(certificate: trustme.LeafCert, password: str = "") -> bytes:
    """PKCS #8: the only form that Kafka reads."""
    key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
    hidden = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden)


def principal(certificate: Path) -> str:
    """Whom the broker sees in it."""
    return f"User:{load_pem_x509_certificate(certificate.read_bytes()).subject.rfc4514_string()}"


def pem_of_chain(certificate: trustme.LeafCert) -> bytes:
    return b"".join(each.bytes() for each in certificate.cert_chain_pems)


@dataclass(frozen=True)
class Certificates:
    """In `folder`: two authorities, of which the broker and the clients trust the first."""

    folder: Path
    ours: trustme.CA
    other: trustme.CA

    @property
    def authority(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def other_authority(self) -> Path:
        return self.folder / "other-ca.pem"

    def client(self, name: str = "client", password: str = "", **said: object) -> dict[str, str]:
        """The settings of a client with a new certificate in files of its own."""
        issuer = self.other if said.pop("untrusted", False) else self.ours
        return self.write(name, issuer.issue_cert("client", organization_unit_name=USER, **said), password)

    def write(self, name: str, certificate: trustme.LeafCert, password: str = "") -> dict[str, str]:
        chain, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        chain.write_bytes(pem_of_chain(certificate))
        key.write_bytes(pem_of_key(certificate, password))
        return {"ssl_certfile": str(chain), "ssl_keyfile": str(key)}


def make_certificates(folder: Path) -> Certificates:
    folder.mkdir(parents=True, exist_ok=True)
    made = Certificates(folder, trustme.CA(), trustme.CA(organization_name="a stranger"))
    made.ours.cert_pem.write_to_path(made.authority)
    made.other.cert_pem.write_to_path(made.other_authority)
    return made


@dataclass(frozen=True)
class SecuredBroker:
    kafka: LocalKafka
    admin: AdminClient
    certificates: Certificates
    folder: Path

    @property
    def plain(self) -> str:
        return self.kafka.bootstrap

    def address(self, listener: str) -> str:
        return f"127.0.0.1:{self.kafka.listener_ports[listener]}"

    def scram(self, password: str = PASSWORD, user: str = USER, mechanism: str = "SCRAM-SHA-512") -> dict[str, str]:
        """kafka.security for the SASL listener."""
        secret = self.folder / f"password-{abs(hash(password))}"
        secret.write_text(password + "\n")
        return {
            "security_protocol": "SASL_SSL", "ssl_cafile": str(self.certificates.authority),
            "sasl_mechanism": mechanism, "sasl_plain_username": user, "sasl_plain_password_file": str(secret),
        }  # fmt: skip

    def mtls(self, **client: str) -> dict[str, str]:
        """kafka.security for the listener that wants a certificate."""
        given = client or self.certificates.client()
        return {"security_protocol": "SSL", "ssl_cafile": str(self.certificates.authority), **given}

    def set_password(self, user: str, password: str) -> None:
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        change = UserScramCredentialUpsertion(user, info, password.encode())
        for future in self.admin.alter_user_scram_credentials([change]).values():
            future.result(30)

    def allow(self, acls: Iterable[AclBinding]) -> None:
        acls = list(acls)
        for future in self.admin.create_acls(acls).values():
            future.result(30)
        for each in acls:
            self._await(each, there=True)

    def forbid(self, acl: AclBinding) -> None:
        for future in self.admin.delete_acls([_filter(acl)]).values():
            assert len(future.result(30)) == 1
        self._await(acl, there=False)

    def _await(self, acl: AclBinding, *, there: bool) -> None:
        """The controller has decided it; the broker hears of it a moment later."""
        deadline = time.monotonic() + 30
        while bool(self.admin.describe_acls(_filter(acl)).result(30)) is not there:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def _filter(acl: AclBinding) -> AclBindingFilter:
    return AclBindingFilter(
        acl.restype, acl.name, acl.resource_pattern_type, acl.principal, acl.host, acl.operation, acl.permission_type
    )


def acl(principal: str, operation: str, resource: str, name: str, prefixed: bool = False) -> AclBinding:
    """As `kafka-acls.sh --add --allow-principal PRINCIPAL --operation OPERATION --RESOURCE NAME`."""
    pattern = ResourcePatternType.PREFIXED if prefixed else ResourcePatternType.LITERAL
    kinds = {
        "topic": ResourceType.TOPIC, "group": ResourceType.GROUP, "transactional-id": ResourceType.TRANSACTIONAL_ID,
    }  # fmt: skip
    operations = {
        "Read": AclOperation.READ, "Write": AclOperation.WRITE, "Create": AclOperation.CREATE,
        "Describe": AclOperation.DESCRIBE, "DescribeConfigs": AclOperation.DESCRIBE_CONFIGS,
    }  # fmt: skip
    return AclBinding(
        kinds[resource], name, pattern, principal, "*", operations[operation],
        AclPermissionType.ALLOW,
    )  # fmt: skip


@contextmanager
def secured_broker(folder: Path) -> Iterator[SecuredBroker]:
    certificates = make_certificates(folder / "certificates")
    server = certificates.ours.issue_cert("127.0.0.1", "localhost")
    yesterday = datetime.now(UTC) - timedelta(days=1)
    expired = certificates.ours.issue_cert(
        "127.0.0.1", "localhost", not_before=yesterday - timedelta(days=1), not_after=yesterday
    )
    elsewhere = certificates.ours.issue_cert("kafka.example.org")
    stores = {"TLS": server, "MTLS": server, "SASL": server, "EXPIRED": expired, "ELSEWHERE": elsewhere}
    properties = {
        "authorizer.class.name": AUTHORIZER,
        "super.users": "User:ANONYMOUS",
        "listener.name.mtls.ssl.client.auth": "required",
        "listener.name.sasl.sasl.enabled.mechanisms": "SCRAM-SHA-512,PLAIN",
        "listener.name.sasl.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
        "listener.name.sasl.plain.sasl.jaas.config": (
            f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
        ),
        "connections.max.reauth.ms": "0",
    }
    for listener, certificate in stores.items():
        store, here = certificates.folder / f"{listener}.store", f"listener.name.{listener.lower()}.ssl"
        store.write_bytes(pem_of_key(certificate) + pem_of_chain(certificate))
        properties |= {
            f"{here}.keystore.type": "PEM", f"{here}.keystore.location": str(store),
            f"{here}.truststore.type": "PEM", f"{here}.truststore.location": str(certificates.authority),
        }  # fmt: skip
    kafka = LocalKafka(folder / "kafka", properties=properties, extra_listeners=LISTENERS, light=True)
    with kafka:
        broker = SecuredBroker(
            kafka, AdminClient({"bootstrap.servers": kafka.bootstrap, "log_level": 0}), certificates, folder
        )
        broker.set_password(USER, PASSWORD)
        yield broker
