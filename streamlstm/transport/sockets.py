"""Sockets for kafka-python: plain and TLS, read in large pieces, connected and greeted within a deadline.

One half of what we repair in kafka-python 3.0; the other half, and the list of both, is in connection.py.
"""

import socket
import ssl
from collections.abc import Mapping
from typing import Any

from kafka import errors as kafka_errors
from kafka.net.inet import KafkaNetSocket
from kafka.net.selector import NetworkSelector
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport

from streamlstm.errors import ConfigError


def _large_reads(base: type, *would_block: type[BaseException]) -> type:
    """A transport that reads up to `read_bytes` at a time, and writes from views."""

    pending: tuple[type[BaseException], ...] = (BlockingIOError, InterruptedError, *would_block)

    class LargeReads(base):  # type: ignore[misc]
        read_bytes = 1 << 20

        def _sock_recv(self) -> tuple[bytes, Exception | None]:
            chunks: list[bytes] = []
            left = self.read_bytes
            try:
                while left > 0:
                    chunk = self._sock.recv(left)
                    if not chunk and not chunks:
                        return b"", kafka_errors.KafkaConnectionError("socket disconnected")
                    if not chunk:
                        break  # kafka-python drops what comes with an error: the next read says it again
                    chunks.append(chunk)
                    left -= len(chunk)
                    if not would_block:
                        break  # the event loop comes back when there is more; TLS may hold more that it can't see
            except pending:
                pass
            except OSError as error:
                if not chunks:
                    return b"", kafka_errors.KafkaConnectionError(error)
            return chunks[0] if len(chunks) == 1 else b"".join(chunks), None

        def write(self, chunk: bytes) -> None:
            super().write(memoryview(chunk))

    return LargeReads


PlainTransport = _large_reads(KafkaTCPTransport)
TlsTransport = _large_reads(KafkaSSLTransport, ssl.SSLWantReadError, ssl.SSLWantWriteError)


async def connect(
    net: NetworkSelector, host: str, port: int, options: list[tuple[int, int, int]], timeout_at: float | None
) -> socket.socket:
    """kafka-python's connect, without leaving a socket open when it fails."""
    addresses = KafkaNetSocket()
    failure: BaseException = kafka_errors.KafkaConnectionError("the name has no address")
    for family, kind, protocol, _, address in addresses.dns_lookup(host, port):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
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
    except BaseException:
        transport._sock.close()
        raise


def ssl_context(security: Mapping[str, str | bool]) -> ssl.SSLContext | None:
    """One context for all connections, or None for plain text. Raises ConfigError when a file of it is no good."""
    if not str(security.get("security_protocol", "PLAINTEXT")).endswith("SSL"):
        return None
    settings = {name: security.get(name, value) for name, value in KafkaSSLTransport.DEFAULT_CONFIG.items()}
    try:
        context: ssl.SSLContext = KafkaSSLTransport._build_ssl_context(settings)
        if security.get("ssl_ciphers"):
            context.set_ciphers(str(security["ssl_ciphers"]))
    except (OSError, ssl.SSLError) as error:
        names = ", ".join(str(value) for name, value in settings.items() if value and name.endswith("file"))
        raise ConfigError([f"kafka.security: TLS cannot be set up from {names or 'the settings'}: {error}"]) from error
    return context
