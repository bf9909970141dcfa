"""Sockets for kafka-python: plain and TLS, read to where answers stay, connected and greeted within a deadline.

Part of what we repair in kafka-python 3.0; the list of all of it is in connection.py.
"""

import logging
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from kafka import errors as kafka_errors
from kafka.net.inet import KafkaNetSocket
from kafka.net.selector import NetworkSelector
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport

from streamlstm.errors import ConfigError
from streamlstm.transport.frames import Brought, Frames, Pieces, read_answers_in_place

log = logging.getLogger(__name__)

# What a broker says (RFC 8446, section 6) that has no use for our certificate.
CERTIFICATE_ALERTS = (
    "CERTIFICATE_REQUIRED",
    "BAD_CERTIFICATE",
    "CERTIFICATE_UNKNOWN",
    "CERTIFICATE_EXPIRED",
    "CERTIFICATE_REVOKED",
    "UNSUPPORTED_CERTIFICATE",
    "UNKNOWN_CA",
    "ACCESS_DENIED",
)
_TLS_ALERT = b"\x15\x03"  # RFC 8446, section 5.1
_MOST_PIECES = 512  # of one system call; Linux takes 1,024
_FILES = ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_crlfile")


class ClientCertificateError(kafka_errors.KafkaConnectionError):  # type: ignore[misc]
    """A broker refuses our certificate, or wants one where we have none."""


class UntrustedBrokerError(kafka_errors.KafkaConnectionError):  # type: ignore[misc]
    """A broker's certificate is not one that we trust; `cause` is OpenSSL's verdict."""

    def __init__(self, cause: ssl.SSLCertVerificationError) -> None:
        self.cause = cause
        super().__init__(cause.verify_message)


class CutOffError(kafka_errors.KafkaConnectionError):  # type: ignore[misc]
    """A broker takes the connection and ends it before the first answer."""


def _lost(why: str | OSError) -> Exception:
    lost: Exception = kafka_errors.KafkaConnectionError(why)
    return lost


def connection_error(error: OSError) -> Exception:
    """An error of a socket as one of kafka-python's, or of the above where it is about a certificate."""
    reason = getattr(error, "reason", None) or ""
    if isinstance(error, ssl.SSLCertVerificationError):
        return UntrustedBrokerError(error)
    if isinstance(error, ssl.SSLError) and "ALERT" in reason and reason.endswith(CERTIFICATE_ALERTS):
        return ClientCertificateError(reason.rpartition("ALERT_")[2].lower().replace("_", " "))
    return _lost(error)


class _Socket(socket.socket):
    """The event loop prints a socket each time it waits for one, and drops the text: this asks the system nothing."""

    __repr__ = object.__repr__


class _InPlace:
    """Of a transport: reads answers to where they stay, up to `read_bytes` at a time."""

    read_bytes = 1 << 20
    _pending: tuple[type[BaseException], ...] = (BlockingIOError, InterruptedError)
    _frames: Frames | None = None
    _has_read = False
    _sock: Any
    _protocol: Any

    def _sock_recv(self) -> tuple[Brought, Exception | None]:
        if self._frames is None:
            self._frames = read_answers_in_place(self._protocol.parser)
        brought = Brought()
        try:
            self._read_in(self._frames, brought)
        except self._pending:
            pass
        except OSError as error:
            if not brought:  # kafka-python drops what comes with an error: the next read says it again
                return brought, connection_error(error)
        except kafka_errors.KafkaError as error:
            return brought, error
        return brought, None

    def _read_in(self, frames: Frames, brought: Brought) -> None:
        raise NotImplementedError

    def _read_once(self, frames: Frames, brought: Brought, most: int) -> None:
        count = self._sock.recv_into(frames.room(most))
        if not count:
            raise ConnectionError("socket disconnected")
        if not self._has_read and frames.room(2)[:2] == _TLS_ALERT:  # as the size of an answer it would be 352 MB
            raise CutOffError("it answers with a TLS alert")
        self._has_read = True
        brought.add(count, frames.take(count))


class PlainTransport(_InPlace, KafkaTCPTransport):  # type: ignore[misc]
    """Sends a request's pieces from where they are."""

    _woken_at = 1

    def _read_in(self, frames: Frames, brought: Brought) -> None:
        """What is there, a piece of it; the event loop comes back when there is more."""
        self._read_once(frames, brought, self.read_bytes)
        woken_at = max(1, min(frames.missing, self.read_bytes))
        if woken_at != self._woken_at:  # the kernel holds back the rest of a large answer until it pays
            with suppress(OSError):  # or there is a sandbox that can't
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, woken_at)
            self._woken_at = woken_at

    def write(self, data: bytes | Pieces) -> None:
        """Send this, after what waits."""
        self.writelines([memoryview(each) for each in (data if isinstance(data, Pieces) else [data]) if each])

    def _sock_send(self) -> tuple[int, Exception | None]:
        waiting, sent = self._write_buffer, 0
        if self._sock is None:
            return 0, _lost("closed while it was sent to")
        try:
            while waiting:
                count = self._sock.sendmsg(list(islice(waiting, _MOST_PIECES)))
                sent += count
                while count:
                    first = waiting.popleft()
                    if count < len(first):
                        waiting.appendleft(first[count:])
                    count -= min(count, len(first))
        except self._pending:
            pass
        except OSError as error:
            return sent, _lost(error)
        return sent, None


class TlsTransport(_InPlace, KafkaSSLTransport):  # type: ignore[misc]
    """Sends a request in one: each piece would be a TLS record."""

    _pending = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

    def _read_in(self, frames: Frames, brought: Brought) -> None:
        """All that is there, or enough of it; and then what TLS still holds, which wakes no event loop."""
        while most := max(self.read_bytes - len(brought), self._sock.pending()):
            self._read_once(frames, brought, most)

    def write(self, data: bytes | Pieces) -> None:
        """Send this, after what waits."""
        super().write(memoryview(b"".join(data) if isinstance(data, Pieces) else data))


async def connect(
    net: NetworkSelector, host: str, port: int, options: list[tuple[int, int, int]], timeout_at: float | None
) -> socket.socket:
    """kafka-python's connect, without leaving a socket open when it fails. An address that doesn't answer leaves time
    for the name's next one: its SYN is sent twice, within 3 s.
    """
    addresses = KafkaNetSocket()
    failure: BaseException = kafka_errors.KafkaConnectionError("the name has no address")
    found = list(addresses.dns_lookup(host, port))
    for left, (family, kind, protocol, _, address) in zip(range(len(found) - 1, -1, -1), found, strict=True):
        sock = _Socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            if left and hasattr(socket, "TCP_SYNCNT"):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, 1)
            for option in options:
                sock.setsockopt(*option)
            connected: socket.socket = await addresses.sock_connect(net, sock, address, timeout_at=timeout_at)
            return connected
        except BaseException as error:
            sock.close()
            if not isinstance(error, OSError | kafka_errors.KafkaError):
                raise
            failure = error
    raise failure


async def tls_handshake(net: NetworkSelector, transport: Any, timeout_at: float | None) -> None:
    try:
        while True:
            try:
                transport._sock.do_handshake()
                return
            except ssl.SSLWantReadError:
                await net.wait_read(transport._sock, timeout_at)
            except ssl.SSLWantWriteError:
                await net.wait_write(transport._sock, timeout_at)
    except BaseException as error:
        transport._sock.close()
        if not isinstance(error, OSError):
            raise
        found = connection_error(error)
        if isinstance(found, ClientCertificateError | UntrustedBrokerError):
            raise found from error
        raise CutOffError(f"it ends the TLS handshake: {error}") from error


class TlsContext:
    """The context of new connections, made anew once a file of it has changed: so certificates are renewed without a
    restart. Connections that are there keep what they began with.
    """

    def __init__(self, security: Mapping[str, str | bool]) -> None:
        """Raises ConfigError when a file is no good."""
        self._security = security
        self._stamp = self._files_now()
        self._context = ssl_context(security)

    def current(self) -> ssl.SSLContext | None:
        """None for plain text. Files that are no good, or half of what was to be replaced, change nothing."""
        stamp = self._files_now()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._context = ssl_context(self._security)
                log.info("the TLS files have changed; new connections use them")
            except ConfigError as error:
                log.warning("the TLS files have changed and are no good; the former go on", extra={"why": str(error)})
        return self._context

    def _files_now(self) -> list[tuple[int, int, int] | None]:
        paths = [Path(str(self._security[name])) for name in _FILES if self._security.get(name)]
        return [_stamp(path) for path in paths]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def ssl_context(security: Mapping[str, str | bool]) -> ssl.SSLContext | None:
    """One context for all connections, or None for plain text. Raises ConfigError when a file of it is no good."""
    if not str(security.get("security_protocol", "PLAINTEXT")).endswith("SSL"):
        return None
    given = {name: str(value) for name, value in security.items() if value}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = bool(security.get("ssl_check_hostname", True))
    name = "ssl_cafile"
    try:
        if name in given:
            context.load_verify_locations(given[name])
        else:
            context.load_default_certs()
        name = "ssl_certfile"
        if name in given:
            key_password = _password(given.get("ssl_password"))
            context.load_cert_chain(given[name], given.get("ssl_keyfile"), key_password)
        name = "ssl_crlfile"
        if name in given:
            context.load_verify_locations(given[name])
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        name = "ssl_ciphers"
        if name in given:
            context.set_ciphers(given[name])
    except (OSError, ssl.SSLError) as error:
        raise ConfigError([_no_good(name, given, error)]) from error
    return context


def _password(password: str | None) -> Callable[[], str]:
    """Asked for when the key is encrypted. OpenSSL would ask the terminal, and a daemon would wait for ever."""

    def ask() -> str:
        if password is None:
            expected = "a file with the password of the key in kafka.security.ssl_keyfile, which is encrypted"
            raise ConfigError([f"kafka.security.ssl_password_file: found nothing; expected {expected}"])
        return password

    return ask


def _no_good(name: str, given: Mapping[str, str], error: OSError) -> str:
    reason = getattr(error, "reason", None) or error.strerror or type(error).__name__
    expected = {
        "ssl_cafile": "certificates in PEM",
        "ssl_certfile": "a certificate with its chain and, here or in ssl_keyfile, its private key, in PEM",
        "ssl_crlfile": "a revocation list in PEM",
        "ssl_ciphers": "an OpenSSL cipher list",
    }[name]
    found = f'"{given[name]}"' if name in given else "the certificates of the system"
    if name == "ssl_certfile" and reason == "KEY_VALUES_MISMATCH":
        name, expected = "ssl_keyfile", "the key of ssl_certfile"
        found = f'"{given.get(name, given["ssl_certfile"])}"'
    elif name == "ssl_certfile" and "ssl_password" in given:
        expected += "; or the password of the key in ssl_password_file is wrong"
    return f"kafka.security.{name}: found {found} ({reason}); expected {expected}"
