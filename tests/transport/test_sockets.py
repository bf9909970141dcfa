"""Reading and writing for kafka-python: in place, gathered, and with an ear for the last words of a broker that hangs
up: a refused login is an answer followed by the end of the connection.
"""

import select
import socket
import ssl
import struct
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import trustme
from kafka import errors as kafka_errors
from kafka.protocol.parser import KafkaProtocol

from streamlstm.transport.frames import Pieces
from streamlstm.transport.sockets import CutOffError, PlainTransport, TlsTransport

LOST = kafka_errors.KafkaConnectionError
A, B = (struct.pack(">i", 2) + text for text in (b"ab", b"cd"))


class Said:
    """A socket that has these things to say; an exception is raised."""

    def __init__(self, *words: bytes | Exception) -> None:
        self.words = list(words)
        self.woken_at: list[int] = []

    def recv_into(self, room: memoryview) -> int:
        word = self.words.pop(0)
        if isinstance(word, Exception):
            raise word
        room[: len(word)] = word
        return len(word)

    def pending(self) -> int:
        return 0

    def setsockopt(self, level: int, option: int, value: int) -> None:
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_RCVLOWAT)
        self.woken_at.append(value)


class Connection:
    """kafka-python's, as far as a transport sees it."""

    def __init__(self) -> None:
        self.parser = KafkaProtocol(client_id="test")


def reader_of(transport: type, *words: bytes | Exception) -> Any:
    reader = object.__new__(transport)
    reader._sock, reader._protocol = Said(*words), Connection()
    return reader


def reads(transport: type, *words: bytes | Exception) -> list[tuple[list[bytes], type | None]]:
    """The answers that each read gives, and how it ends, until the words are used up."""
    reader, found = reader_of(transport, *words), []
    while reader._sock.words:
        brought, error = reader._sock_recv()
        found.append(([bytes(answer.read()) for answer in brought.answers], type(error) if error else None))
    return found


@pytest.mark.parametrize(
    ("transport", "words", "expected"),
    [
        (TlsTransport, (A, B, ssl.SSLWantReadError()), [([b"ab", b"cd"], None)]),
        (TlsTransport, (A[:3], A[3:] + B, b"", b""), [([b"ab", b"cd"], None), ([], LOST)]),
        (TlsTransport, (A, ssl.SSLEOFError(), ssl.SSLEOFError()), [([b"ab"], None), ([], LOST)]),
        (TlsTransport, (b"",), [([], LOST)]),
        (TlsTransport, (A, struct.pack(">i", -5)), [([b"ab"], kafka_errors.InvalidReceiveError)]),
        (PlainTransport, (A + B, A, BlockingIOError()), [([b"ab", b"cd"], None), ([b"ab"], None), ([], None)]),
        (PlainTransport, (A, b""), [([b"ab"], None), ([], LOST)]),
        (PlainTransport, (A, ConnectionResetError()), [([b"ab"], None), ([], LOST)]),
        (PlainTransport, (b"\x15\x03\x03\x00\x02\x02\x46",), [([], CutOffError)]),
        (PlainTransport, (A, struct.pack(">i", -5)), [([b"ab"], None), ([], kafka_errors.InvalidReceiveError)]),
    ],
)
def test_what_was_said_before_the_end_is_heard(
    transport: type, words: tuple[bytes | Exception, ...], expected: list[tuple[list[bytes], type | None]]
) -> None:
    assert reads(transport, *words) == expected


def test_the_rest_of_a_large_answer_wakes_when_it_pays() -> None:
    whole = struct.pack(">i", 10_000) + bytes(10_000)
    reader = reader_of(PlainTransport, whole[:4000], whole[4000:8000], whole[8000:], A)
    reader.read_bytes = 5000
    brought = [reader._sock_recv()[0] for _ in range(4)]
    assert reader._sock.woken_at == [5000, 2004, 1]
    assert [len(each) for each in brought] == [4000, 4000, 2004, 6]
    assert [bytes(answer.read()) for each in brought for answer in each.answers] == [bytes(10_000), b"ab"]


@pytest.mark.parametrize("more", [1, 150, 16_384, 30_000])
def test_tls_holds_back_nothing(more: int) -> None:
    """What OpenSSL has taken from the socket and not given out yet would wait for the next answer, or for ever."""
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("broker").configure_cert(server)
    authority.configure_trust(client)
    near, far = socket.socketpair()
    with near, far, ThreadPoolExecutor(1) as other:
        accepted = other.submit(server.wrap_socket, far, server_side=True)
        reader = reader_of(TlsTransport)
        reader._sock, reader.read_bytes = client.wrap_socket(near, server_hostname="broker"), 40_000
        with accepted.result() as broker, reader._sock:
            broker.sendall(struct.pack(">i", 40_000 - 4 + more) + bytes(40_000 - 4 + more))
            reader._sock.setblocking(False)
            brought = []
            while sum(map(len, brought)) < 40_000 + more and select.select([reader._sock], [], [], 0)[0]:
                brought.append(reader._sock_recv()[0])
            assert [len(answer.read()) for each in brought for answer in each.answers] == [40_000 - 4 + more]


def writer_of(transport: type, sock: Any) -> Any:
    writer = object.__new__(transport)
    writer._sock, writer._write_buffer = sock, deque()
    writer._closed, writer._write, writer._writing = False, True, True
    return writer


class Takes:
    """A socket that takes so many bytes at a time."""

    def __init__(self, *counts: int | Exception) -> None:
        self.counts, self.taken = list(counts), b""

    def sendmsg(self, pieces: list[memoryview]) -> int:
        count = self.counts.pop(0) if self.counts else BlockingIOError()
        if isinstance(count, Exception):
            raise count
        taken = b"".join(pieces)[:count]
        self.taken += taken
        return len(taken)


def test_pieces_leave_in_order_and_what_is_left_waits() -> None:
    sock = Takes(3, 4, BlockingIOError(), 100)
    writer = writer_of(PlainTransport, sock)
    writer.write(Pieces([b"ab", bytearray(b"cdefg"), b"", b"hi"]))
    writer.write(b"jk")
    assert writer._sock_send() == (7, None)
    assert sock.taken == b"abcdefg"
    assert writer._sock_send() == (4, None)
    assert (sock.taken, list(writer._write_buffer)) == (b"abcdefghijk", [])


def test_a_broken_pipe_is_a_lost_connection() -> None:
    writer = writer_of(PlainTransport, Takes(1, BrokenPipeError()))
    writer.write(b"abc")
    sent, error = writer._sock_send()
    assert (sent, type(error)) == (1, LOST)


def test_tls_sends_a_request_in_one() -> None:
    writer = writer_of(TlsTransport, None)
    writer.write(Pieces([b"ab", b"cd"]))
    assert [bytes(each) for each in writer._write_buffer] == [b"abcd"]
