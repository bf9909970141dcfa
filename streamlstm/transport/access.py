"""Who this client is to the brokers, what they may refuse it, and the command that allows it.

Operations and resources are those of Kafka's authorizer (KIP-11), in the words of kafka-acls.sh. Read and Write hold
Describe.
"""

import _ssl
import shlex
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any, Literal

from streamlstm.errors import AccessError

Operation = Literal["Read", "Write", "Create", "Describe", "DescribeConfigs"]
Resource = Literal["topic", "group", "transactional-id"]

OPERATION_CODES: Mapping[Operation, int] = {"Read": 3, "Write": 4, "Create": 5, "Describe": 8, "DescribeConfigs": 10}

TOPIC_DENIED, GROUP_DENIED = 29, 30  # TOPIC_AUTHORIZATION_FAILED, GROUP_AUTHORIZATION_FAILED

_ATTRIBUTES = {
    "commonName": "CN", "organizationName": "O", "organizationalUnitName": "OU", "countryName": "C",
    "stateOrProvinceName": "ST", "localityName": "L", "streetAddress": "STREET", "domainComponent": "DC",
    "userId": "UID",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Permission:
    """To do an operation with a resource of the cluster."""

    operation: Operation
    resource: Resource
    name: str

    def __str__(self) -> str:
        return f"{self.operation} {self.resource.replace('-', ' ')} {self.name!r}"

    def within(self, operations: Set[int]) -> bool:
        """Whether it is among the codes of the operations that a broker grants."""
        return OPERATION_CODES[self.operation] in operations


def lacked(code: int, read: Set[str], written: Set[str], group_id: str, transactional_id: str) -> list[Permission]:
    """What a step of a transaction lacks, by the broker's error code: 29 is about topics, whose offsets are committed
    (`read`) or which are `written` to, 30 about the group, 53 about the transactional id.
    """
    if code == TOPIC_DENIED:
        reading = [Permission("Read", "topic", topic) for topic in sorted(read)]
        return reading or [Permission("Write", "topic", topic) for topic in sorted(written)]
    if code == GROUP_DENIED:
        return [Permission("Read", "group", group_id)]
    return [Permission("Write", "transactional-id", transactional_id)]


def principal_of(security: Mapping[str, str | bool]) -> str:
    """Whom the brokers take us for, unless they map names to others (ssl.principal.mapping.rules and the like)."""
    if str(security.get("security_protocol", "")).startswith("SASL"):
        return f"User:{security.get('sasl_plain_username') or 'the Kerberos principal'}"
    if security.get("ssl_certfile"):
        return f"User:{subject_of(str(security['ssl_certfile']))}"
    return "User:ANONYMOUS"


def subject_of(path: str) -> str:
    """The subject of the first certificate in a PEM file, as RFC 2253 writes it and Kafka names its owner."""
    certificate = decoded(path)
    return distinguished_name(certificate["subject"]) if certificate else f"the subject of {path}"


def decoded(path: str) -> Mapping[str, Any]:
    """The first certificate in a PEM file as ssl's `getpeercert` gives one; {} when it can't be read.

    The ssl module's only decoder; it gives no other that works without a handshake.
    """
    try:
        found: Mapping[str, Any] = _ssl._test_decode_cert(path)  # type: ignore[attr-defined]
    except (OSError, ValueError):
        return {}
    return found


def distinguished_name(name: Iterable[Iterable[tuple[str, str]]]) -> str:
    """A name as the ssl module gives it, in the form of RFC 2253: the last part first."""
    parts = ["+".join(f"{_ATTRIBUTES.get(key, key)}={_escaped(value)}" for key, value in part) for part in name]
    return ",".join(reversed(parts))


def _escaped(value: str) -> str:
    return "".join(f"\\{letter}" if letter in ',+"\\<>;' else letter for letter in value)


def refusal(
    permissions: Iterable[Permission], security: Mapping[str, str | bool], servers: Iterable[str], why: str = ""
) -> AccessError:
    """A line for each permission that is missing, with the command that gives it. `why` is the broker's word."""
    principal, tool = principal_of(security), f"kafka-acls.sh --bootstrap-server {','.join(servers)}"
    said = f" ({why})" if why else ""
    return AccessError(
        "\n".join(
            f"{principal} may not {each}{said}; allow it: {tool} --add --allow-principal {shlex.quote(principal)} "
            f"--operation {each.operation} --{each.resource} {shlex.quote(each.name)}"
            for each in permissions
        )
    )
