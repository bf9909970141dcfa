"""Dead letters: records that get no forecast, passed on untouched with the reason in headers.

    __streamlstm.errors.topic, .partition, .offset   where the record was read; of a batch, its first offset
    __streamlstm.errors.last_offset                  only for a batch that cannot be read: its last offset
    __streamlstm.errors.reason                       a Reason in lower case
    __streamlstm.errors.message                      the same for people
    __streamlstm.errors.stage                        poll | decode | step | encode
    __streamlstm.errors.version                      of streamlstm
    __streamlstm.errors.original_size                only when cut: bytes of key, value and headers as they came

Key, value, headers and timestamp are those of the record. What doesn't fit in a record batch is cut: the value first,
then the headers as a whole, then the key. A batch that cannot be read has neither key nor value: only the reference.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from numpy import int64
from numpy.typing import NDArray

from streamlstm.events.batch import EventBatch, Reason, Source
from streamlstm.events.encode import DEFAULT_MAX_BATCH_BYTES, BatchSealer, EncodedBatch
from streamlstm.kernels.record_encode import HEADER_BYTES

HEADER_PREFIX = "__streamlstm.errors."

STAGES: dict[Reason, str] = {
    Reason.KEY_TOO_LONG: "step",
    Reason.OUT_OF_RANGE: "step",
    Reason.CAPACITY: "step",
    Reason.CORRUPT_BATCH: "poll",
    Reason.UNKNOWN_CODEC: "poll",
    Reason.TOO_LARGE: "encode",
    Reason.DUPLICATE: "step",
    Reason.OUT_OF_ORDER: "step",
    Reason.TOO_FAR_AHEAD: "step",
}
"""Where a reason is found; those not named, at `decode`."""

MESSAGES: dict[Reason, str] = {
    Reason.NOT_JSON: "the value is not valid JSON",
    Reason.NOT_OBJECT: "the value is JSON, but not an object",
    Reason.MISSING_FIELD: "a field that the model needs is missing",
    Reason.WRONG_TYPE: "a field has another type than expected",
    Reason.WRONG_LENGTH: "the value has another length than the model's inputs need",
    Reason.NULL_VALUE: "an input of the model is null",
    Reason.NOT_FINITE: "an input of the model is NaN or infinite",
    Reason.OUT_OF_RANGE: "an input of the model is so large that the step could overflow",
    Reason.BAD_TIME: "the event time cannot be read, or lies outside the years 1900 to 2200",
    Reason.NO_KEY: "the record names no stream: neither key nor stream field",
    Reason.KEY_TOO_LONG: "the stream id is longer than max_key_bytes",
    Reason.KEY_ENCODING: "the stream id is not UTF-8",
    Reason.CAPACITY: "a new stream, while max_streams streams are known",
    Reason.TOMBSTONE: "the record has no value",
    Reason.CORRUPT_BATCH: "the record batch is corrupt",
    Reason.UNKNOWN_CODEC: "the record batch is compressed with an unknown codec",
    Reason.TOO_LARGE: "the forecast does not fit in a record batch",
    Reason.REPLAYED: "the event is part of the restored state",
    Reason.DUPLICATE: "the event has the time of the stream's latest one",
    Reason.OUT_OF_ORDER: "the event is before the stream's latest one",
    Reason.TOO_FAR_AHEAD: "the event is later than its record's timestamp by more than max_ahead_ms",
}

_LEAST_BATCH_BYTES = 4096  # room for the headers above, whatever the topic's name
_LONGEST_MESSAGE = 512  # characters
_NO_TIMESTAMP = -1
_FRAME_BYTES = 1 + 10 + 4 * 5  # attributes, timestamp and four other varints


@dataclass(frozen=True, slots=True)
class PoisonReference:
    """A record batch that cannot be read. Offsets are inclusive."""

    topic: str
    partition: int
    base_offset: int
    last_offset: int
    reason: Reason
    message: str


@dataclass(slots=True)
class _Letter:
    """`headers` is what follows the count in a record's header section, `n_headers` that count."""

    timestamp: int
    key: bytes | None
    value: bytes | None
    n_headers: int
    headers: bytes
    errors: bytes
    n_errors: int


class DeadLetterEncoder:
    """Makes record batches of dead letters. `version` is streamlstm's."""

    def __init__(self, version: str, max_batch_bytes: int = DEFAULT_MAX_BATCH_BYTES, compression: str = "none") -> None:
        self._version = version
        self._max_batch_bytes = max(max_batch_bytes, _LEAST_BATCH_BYTES)
        self._sealer = BatchSealer(compression)

    def encode(self, batch: EventBatch, rows: NDArray[int64], source: Source) -> list[EncodedBatch]:
        """The dead letters of `rows` (int64, ascending, all of `source` and all with a reason), in order."""
        return self._batches(self._letters(batch, rows, source))

    def encode_poison(self, reference: PoisonReference) -> list[EncodedBatch]:
        """The dead letter of one unreadable record batch."""
        reason = reference.reason
        message = f"{MESSAGES[reason]}: {reference.message}" if reference.message else MESSAGES[reason]
        errors = (
            _where(reference.topic, reference.partition)
            + _header("offset", str(reference.base_offset))
            + _header("last_offset", str(reference.last_offset))
            + self._verdict(reason, message[:_LONGEST_MESSAGE])
        )
        return self._batches([_Letter(_NO_TIMESTAMP, None, None, 0, b"", errors, 8)])

    def _letters(self, batch: EventBatch, rows: NDArray[int64], source: Source) -> Iterator[_Letter]:
        payload = batch.payload.data
        before_offset = _where(*source) + _sized((HEADER_PREFIX + "offset").encode())
        verdicts = {int(reason): self._verdict(reason, MESSAGES[reason]) for reason in MESSAGES}
        columns = (
            batch.reason, batch.offset, batch.timestamp, batch.key_at, batch.key_len, batch.value_at,
            batch.value_len, batch.headers_at, batch.headers_len,
        )  # fmt: skip
        for reason, offset, timestamp, key_at, key_len, value_at, value_len, headers_at, headers_len in zip(
            *(column[rows].tolist() for column in columns), strict=True
        ):
            n_headers, headers = 0, b""
            if headers_len > 1:
                n_headers, headers = _split_headers(bytes(payload[headers_at : headers_at + headers_len]))
            yield _Letter(
                timestamp,
                None if key_at < 0 else bytes(payload[key_at : key_at + key_len]),
                None if value_at < 0 else bytes(payload[value_at : value_at + value_len]),
                n_headers,
                headers,
                before_offset + _sized(b"%d" % offset) + verdicts[reason],
                7,
            )

    def _verdict(self, reason: Reason, message: str) -> bytes:
        return (
            _header("reason", reason.label)
            + _header("message", message)
            + _header("stage", STAGES.get(reason, "decode"))
            + _header("version", self._version)
        )

    def _batches(self, letters: Iterable[_Letter]) -> list[EncodedBatch]:
        sealed: list[EncodedBatch] = []
        buffer, count, base, latest = bytearray(HEADER_BYTES), 0, 0, 0
        room = self._max_batch_bytes
        for letter in letters:
            body = _body(letter, room - HEADER_BYTES)
            timestamp = max(letter.timestamp, _NO_TIMESTAMP)
            if count and len(buffer) + len(body) + _FRAME_BYTES > room:
                sealed.append(self._sealer.seal(buffer, count, base, latest))
                buffer, count = bytearray(HEADER_BYTES), 0
            if not count:
                base = latest = timestamp
            front = b"\0" + _varint(timestamp - base) + _varint(count)
            buffer += _varint(len(front) + len(body)) + front + body
            latest = max(latest, timestamp)
            count += 1
        if count:
            sealed.append(self._sealer.seal(buffer, count, base, latest))
        return sealed


def _body(letter: _Letter, room: int) -> bytes:
    """Key, value and headers of the record; cut so that the record takes at most `room` bytes."""
    key, value, headers, errors = letter.key, letter.value, letter.headers, letter.errors
    n_headers = letter.n_headers + letter.n_errors
    size = len(key or b"") + len(value or b"") + len(headers)
    if size + len(errors) + _FRAME_BYTES > room:
        errors += _header("original_size", str(size))
        n_headers += 1
        left = room - len(errors) - _FRAME_BYTES - len(key or b"")
        if len(headers) > left:
            headers = b""
            n_headers -= letter.n_headers
        value = None if value is None else value[: max(left - len(headers), 0)]
        key = None if key is None else key[: len(key) + min(left, 0)]
    return b"".join((_sized(key), _sized(value), _varint(n_headers), headers, errors))


def _where(topic: str, partition: int) -> bytes:
    return _header("topic", topic) + _header("partition", str(partition))


def _header(name: str, value: str) -> bytes:
    return _sized((HEADER_PREFIX + name).encode()) + _sized(value.encode(errors="backslashreplace"))


def _sized(content: bytes | None) -> bytes:
    return b"\x01" if content is None else _varint(len(content)) + content


def _split_headers(section: bytes) -> tuple[int, bytes]:
    """A record's header section, as its count and what follows."""
    word = shift = at = 0
    for at, byte in enumerate(section, 1):  # noqa: B007 - where the count ends
        word |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    return word >> 1, section[at:]


def _varint(n: int) -> bytes:
    """Zigzag, then seven bits to a byte, the low ones first."""
    z = n << 1 if n >= 0 else ~(n << 1)
    if z < len(_SHORT_VARINTS):
        return _SHORT_VARINTS[z]
    out = bytearray()
    while z >= 0x80:
        out.append(z & 0x7F | 0x80)
        z >>= 7
    out.append(z)
    return bytes(out)


_SHORT_VARINTS = [bytes([z]) for z in range(0x80)] + [bytes([z & 0x7F | 0x80, z >> 7]) for z in range(0x80, 0x4000)]
