"""The last words of a broker that hangs up: a refused login is an answer followed by the end of the connection."""

import ssl

import pytest
from kafka import errors as kafka_errors

from streamlstm.transport.sockets import PlainTransport, TlsTransport


class Said:
    """A socket that has these things to say; an exception is raised."""

    def __init__(self, *words: bytes | Exception) -> None:
        self.words = list(words)

    def recv(self, size: int) -> bytes:
        word = self.words.pop(0)
        if isinstance(word, Exception):
            raise word
        return word


def reads(transport: type, *words: bytes | Exception) -> list[tuple[bytes, type | None]]:
    """What each read gives until the words are used up."""
    reader = object.__new__(transport)
    reader._sock = Said(*words)
    found = []
    while reader._sock.words:
        content, error = reader._sock_recv()
        found.append((content, type(error) if error else None))
    return found


LOST = kafka_errors.KafkaConnectionError


@pytest.mark.parametrize(
    ("transport", "words", "expected"),
    [
        (TlsTransport, (b"ab", b"c", ssl.SSLWantReadError()), [(b"abc", None)]),
        (TlsTransport, (b"ab", b"c", b"", b""), [(b"abc", None), (b"", LOST)]),
        (TlsTransport, (b"ab", ssl.SSLEOFError(), ssl.SSLEOFError()), [(b"ab", None), (b"", LOST)]),
        (TlsTransport, (b"",), [(b"", LOST)]),
        (PlainTransport, (b"ab", b"c", BlockingIOError()), [(b"ab", None), (b"c", None), (b"", None)]),
        (PlainTransport, (b"ab", b""), [(b"ab", None), (b"", LOST)]),
        (PlainTransport, (b"ab", ConnectionResetError()), [(b"ab", None), (b"", LOST)]),
    ],
)
def test_what_was_said_before_the_end_is_heard(
    transport: type, words: tuple[bytes | Exception, ...], expected: list[tuple[bytes, type | None]]
) -> None:
    assert reads(transport, *words) == expected
