"""Records as Kafka's protocol documentation has them, encoded byte by byte: the tests' own writer and reader."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Record:
    offset_delta: int
    timestamp_delta: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[bytes, bytes | None], ...] = ()


def varint(number: int) -> bytes:
    word = (number << 1) ^ (number >> 63)
    encoded = bytearray()
    while word > 0x7F:
        encoded.append(word & 0x7F | 0x80)
        word >>= 7
    return bytes(encoded) + bytes([word])


def _sized(content: bytes | None) -> bytes:
    return varint(-1) if content is None else varint(len(content)) + content


def headers_section(headers: tuple[tuple[bytes, bytes | None], ...]) -> bytes:
    return varint(len(headers)) + b"".join(_sized(key) + _sized(value) for key, value in headers)


def records_section(records: list[Record]) -> bytes:
    section = b""
    for one in records:
        body = b"\0" + varint(one.timestamp_delta) + varint(one.offset_delta)
        body += _sized(one.key) + _sized(one.value) + headers_section(one.headers)
        section += varint(len(body)) + body
    return section


class MalformedError(Exception):
    pass


class _Reader:
    def __init__(self, content: bytes) -> None:
        self.rest = content

    def take(self, size: int) -> bytes:
        if not 0 <= size <= len(self.rest):
            raise MalformedError
        taken, self.rest = self.rest[:size], self.rest[size:]
        return taken

    def varint(self, most_bytes: int) -> int:
        word = 0
        for i in range(most_bytes):
            byte = self.take(1)[0]
            word |= (byte & 0x7F) << (7 * i)
            if byte < 0x80:
                word &= 2**64 - 1
                return (word >> 1) ^ -(word & 1)
        raise MalformedError

    def sized(self, nullable: bool = True) -> bytes | None:
        size = self.varint(5)
        return None if size == -1 and nullable else self.take(size)


def read_section(content: bytes, count: int) -> list[tuple[Record, bytes]]:
    """The records and their raw header sections. Raises MalformedError."""
    section, records, last = _Reader(content), [], -1
    for _ in range(count):
        body = _Reader(section.sized(nullable=False) or b"")
        body.take(1)
        timestamp_delta, offset_delta = body.varint(10), body.varint(5)
        if not last < offset_delta < 2**31:
            raise MalformedError
        last = offset_delta
        key, value = body.sized(), body.sized()
        raw_headers = body.rest
        how_many = body.varint(5)
        if not 0 <= how_many <= len(body.rest):
            raise MalformedError
        headers = tuple((body.sized(nullable=False) or b"", body.sized()) for _ in range(how_many))
        if body.rest:
            raise MalformedError
        records.append((Record(offset_delta, timestamp_delta, key, value, headers), raw_headers))
    if section.rest:
        raise MalformedError
    return records
