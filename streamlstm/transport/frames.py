"""A broker's answers put together where they stay, and requests sent from where they are: no copies of either.

On the wire each is a frame, a size (int32, big-endian) and so many bytes. kafka-python copies an answer four times
before it is decoded, and puts a request together in one piece; answers to a fetch and requests to produce are
megabytes.
"""

import struct
from collections.abc import Callable
from typing import Any

from kafka import errors as kafka_errors

_SIZE = struct.Struct(">i")
_SENSELESS = (struct.error, ValueError, IndexError, OverflowError)  # kafka-python would stop reading and say nothing
_AHEAD = 8192  # most answers are small: one read takes a whole one in, or several


class Answer:
    """A whole frame, for kafka-python to decode: `read` gives all that is left as a view, and a few bytes as bytes."""

    def __init__(self, content: bytearray) -> None:
        self._content = memoryview(content)
        self._at = 0

    def __len__(self) -> int:
        return len(self._content)

    def read(self, count: int | None = None) -> bytes | memoryview:
        start = self._at
        self._at = len(self) if count is None else min(start + count, len(self))
        found = self._content[start : self._at]
        return found if count is None else bytes(found)

    def seek(self, at: int) -> None:
        self._at = at

    def tell(self) -> int:
        return self._at


class Frames:
    """Cuts what a socket brings into answers: read into `room`, then tell `take` how much."""

    def __init__(self, check_size: Callable[[int], None]) -> None:
        """`check_size` raises when a frame can't be that long."""
        self._check_size = check_size
        self._ahead = memoryview(bytearray(_AHEAD))
        self._held = 0  # bytes in `ahead`
        self._frame: bytearray | None = None
        self._filled = 0

    @property
    def missing(self) -> int:
        """How many bytes complete the answer that has begun; 0 when none has."""
        return 0 if self._frame is None else len(self._frame) - self._filled

    def room(self, most: int) -> memoryview:
        """Where the next bytes go, at most that many."""
        if self._frame is None:
            return self._ahead[self._held :]
        return memoryview(self._frame)[self._filled : self._filled + most]

    def take(self, count: int) -> list[Answer]:
        """The answers that are whole now that `room` holds `count` bytes more."""
        if self._frame is None:
            return self._cut(count)
        self._filled += count
        if self._filled < len(self._frame):
            return []
        frame, self._frame = self._frame, None
        return [Answer(frame)]

    def _cut(self, count: int) -> list[Answer]:
        found: list[Answer] = []
        ahead, at, end = self._ahead, 0, self._held + count
        self._held = 0
        while end - at >= _SIZE.size:
            (size,) = _SIZE.unpack_from(ahead, at)
            self._check_size(size)
            at += _SIZE.size
            there = min(size, end - at)
            frame = bytearray(size)
            frame[:there] = ahead[at : at + there]
            at += there
            if there < size:
                self._frame, self._filled = frame, there
                return found
            found.append(Answer(frame))
        self._held = end - at
        ahead[: self._held] = bytes(ahead[at:end])
        return found


class Brought:
    """What one read has brought: so many bytes, and the answers that are whole by them."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, count: int, answers: list[Answer]) -> None:
        self._count += count
        self.answers += answers


class Pieces(list[bytes | bytearray]):
    """An encoded request as the pieces that follow one another."""


def read_answers_in_place(parser: Any) -> Frames:
    """The frames for a connection's parser, which takes what reads brought from now on and gives requests in pieces."""

    def receive(brought: Brought) -> list[tuple[int, Any]]:
        try:
            return [parser._process_response(answer) for answer in brought.answers]
        except _SENSELESS as error:
            raise kafka_errors.KafkaProtocolError(f"an answer that makes no sense: {error!r}") from error

    def send() -> Pieces:
        waiting, parser.bytes_to_send = parser.bytes_to_send, []
        return Pieces(piece for data in waiting for piece in (data if isinstance(data, Pieces) else [data]))

    parser.receive_bytes, parser.send_bytes = receive, send
    return Frames(parser._validate_frame_size)
