"""What a listener speaks, asked when it hangs up without a word: to say which side has to change.

Connections of our own, for a moment: a TLS handshake that trusts whoever answers, then a SASL handshake for a mechanism
that nobody has, to which a listener with logins answers with those it has, and another one that there are none.
"""

import socket
import ssl
import struct
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from streamlstm.transport.access import decoded, distinguished_name

_SASL_HANDSHAKE, _VERSION = 17, 1
_ILLEGAL_STATE, _UNSUPPORTED = 34, 33
_MAX_ANSWER = 1 << 16


@dataclass(frozen=True, slots=True)
class Listener:
    """`mechanisms` of login: () for none, None where it isn't known. `certificate` is what it presents."""

    encrypted: bool
    mechanisms: tuple[str, ...] | None
    certificate: Mapping[str, Any]

    @property
    def protocol(self) -> str:
        return ("SASL_" if self.mechanisms else "") + ("SSL" if self.encrypted else "PLAINTEXT")


def look_at(host: str, port: int, timeout: float) -> Listener | None:
    """What listens there; None where nobody does, or nothing that speaks Kafka."""
    try:
        certificate = _presented(host, port, timeout)
        mechanisms = _mechanisms(host, port, timeout, encrypted=certificate is not None)
    except OSError:
        return None
    if certificate is None and mechanisms is None:
        return None
    return Listener(certificate is not None, mechanisms, certificate or {})


def _presented(host: str, port: int, timeout: float) -> Mapping[str, Any] | None:
    """The certificate, {} where it can't be read; None without TLS. Raises OSError where nobody listens."""
    with socket.create_connection((host, port), timeout) as plain:
        try:
            with _trusting().wrap_socket(plain, server_hostname=host) as encrypted:
                return _decoded(encrypted.getpeercert(binary_form=True) or b"")
        except ssl.SSLError as error:
            return {} if "ALERT" in (error.reason or "") else None
        except OSError:
            return None


def _trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _decoded(certificate: bytes) -> Mapping[str, Any]:
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:  # the decoder reads files only
        file.write(ssl.DER_cert_to_PEM_cert(certificate))
        file.flush()
        return decoded(file.name)


def _mechanisms(host: str, port: int, timeout: float, *, encrypted: bool) -> tuple[str, ...] | None:
    with socket.create_connection((host, port), timeout) as sock:
        try:
            if not encrypted:
                return _ask_mechanisms(sock)
            with _trusting().wrap_socket(sock, server_hostname=host) as wrapped:
                return _ask_mechanisms(wrapped)
        except OSError:
            return None


def _ask_mechanisms(sock: socket.socket) -> tuple[str, ...] | None:
    client, nobody_has = b"streamlstm", b"?"
    request = struct.pack(f">hhih{len(client)}sh", _SASL_HANDSHAKE, _VERSION, 0, len(client), client, len(nobody_has))
    sock.sendall(struct.pack(">i", len(request) + len(nobody_has)) + request + nobody_has)
    with sock.makefile("rb") as answer:
        head = answer.read(4)
        size = int.from_bytes(head, "big", signed=True)
        body = answer.read(size) if len(head) == 4 and 10 <= size <= _MAX_ANSWER else b""
    if len(body) < 10 or struct.unpack_from(">i", body)[0] != 0:
        return None
    code, count = struct.unpack_from(">hi", body, 4)
    if code == _ILLEGAL_STATE:
        return ()
    return _texts(body[10:], count) if code == _UNSUPPORTED else None


def _texts(body: bytes, count: int) -> tuple[str, ...]:
    found, at = [], 0
    for _ in range(count):
        if at + 2 > len(body):
            break
        (length,) = struct.unpack_from(">h", body, at)
        found.append(body[at + 2 : at + 2 + length].decode(errors="replace"))
        at += 2 + length
    return tuple(found)


def names_of(certificate: Mapping[str, Any]) -> str:
    """Whose certificate it is and who says so, in words."""
    if not certificate:
        return "a certificate that cannot be read"
    subject, issuer = (distinguished_name(certificate.get(key, ())) or "nobody" for key in ("subject", "issuer"))
    return f"the certificate of {subject}, issued by {issuer}, valid until {certificate.get('notAfter', '?')}"


def hosts_of(certificate: Mapping[str, Any]) -> str:
    """The names and addresses that it is valid for."""
    return ", ".join(f"{value}" for _, value in certificate.get("subjectAltName", ())) or "no host"
