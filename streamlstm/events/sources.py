"""Answers read back: which event of the input a forecast or a dead letter answers.

What stands around the offset is learned from the answers themselves: the first one of its kind is read properly, as
JSON or header by header, and the bytes around its offset are what the compiled scanner looks for from then on. So
nothing here knows how the encoders write, and a change of theirs can't be overlooked twice.
"""

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import orjson
from numpy.typing import NDArray

from streamlstm.events.batch import EventBatch, Source
from streamlstm.events.dead_letter import HEADER_PREFIX
from streamlstm.kernels.account import ELSEWHERE_ROW, OTHERS_ROW
from streamlstm.kernels.source_scan import forecast_sources, letter_sources

MOST_TEXTS = 32
"""Kinds of answers that are known at once; further ones are read slowly, each by itself."""

_MOST_OFFSET = (1 << 63) - 1
_TOPIC, _PARTITION, _OFFSET, _LAST_OFFSET = (
    HEADER_PREFIX + name for name in ("topic", "partition", "offset", "last_offset")
)
_FIRST_KEY, _RANGE_KEY = (
    np.frombuffer(bytes([2 * len(name)]) + name.encode(), np.uint8).copy() for name in (_TOPIC, _LAST_OFFSET)
)


@dataclass(frozen=True, slots=True)
class Claim:
    """What one answer says that it answers: the events [`offset`, `last`] of a partition. `model` is a forecast's."""

    source: Source
    offset: int
    last: int
    model: str = ""


@dataclass(slots=True)
class Answered:
    """What the rows of a batch answer.

    `offset` int64 [n]: of the event in the partition asked about, or OTHERS_ROW (not a claim about its topic), or
    ELSEWHERE_ROW (about another partition of it). Rows in `ranges` answer a range of events, both ends included.
    """

    offset: NDArray[np.int64]
    ranges: dict[int, tuple[int, int]] = field(default_factory=dict)


class _Texts:
    """The texts that the scanner knows, with the claim (offset aside) that each stands for."""

    def __init__(self) -> None:
        self.claims: list[Claim] = []
        self.bytes = np.zeros(0, np.uint8)
        self.ends = np.zeros(MOST_TEXTS, np.int64)

    def learn(self, text: bytes, claim: Claim) -> None:
        if len(self.claims) < MOST_TEXTS:
            self.bytes = np.concatenate((self.bytes, np.frombuffer(text, np.uint8)))
            self.ends[len(self.claims)] = len(self.bytes)
            self.claims.append(claim)


class _Reader:
    """Rows to claims: by the compiled scanner where it knows the text, else slowly, learning the text."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._texts = _Texts()
        self.models: Counter[str] = Counter()

    def read(self, batch: EventBatch) -> Answered:
        """Every row of `batch`, as it comes out of `append_batch`."""
        answered = Answered(np.full(batch.n, OTHERS_ROW, np.int64))
        text = np.full(batch.n, -1, np.int64)
        row = 0
        while (row := self._scan(batch, row, answered.offset, text)) < batch.n:
            claim = self._read_row(batch, row)
            if claim is not None:
                self._enter(answered, row, claim)
            row += 1
        for k, count in enumerate(np.bincount(text[text >= 0], minlength=len(self._texts.claims)).tolist()):
            claim = self._texts.claims[k]
            code = self._code(claim)
            if code is None:
                self.models[claim.model] += count
            elif count:
                answered.offset[text == k] = code
        return answered

    def _enter(self, answered: Answered, row: int, claim: Claim) -> None:
        code = self._code(claim)
        if code is not None:
            answered.offset[row] = code
            return
        self.models[claim.model] += 1
        answered.offset[row] = claim.offset
        if claim.last != claim.offset:
            answered.ranges[row] = (claim.offset, claim.last)

    def _code(self, claim: Claim) -> int | None:
        """What stands for the claim instead of an offset; None for one about the partition asked about."""
        if claim.source == self._source:
            return None
        return ELSEWHERE_ROW if claim.source[0] == self._source[0] else OTHERS_ROW

    def _scan(self, batch: EventBatch, row: int, offset: NDArray[np.int64], text: NDArray[np.int64]) -> int:
        raise NotImplementedError

    def _read_row(self, batch: EventBatch, row: int) -> Claim | None:
        raise NotImplementedError


class ForecastReader(_Reader):
    """Reads `src` at the end of forecasts. `models` counts those of `source` by the model they name."""

    def _scan(self, batch: EventBatch, row: int, offset: NDArray[np.int64], text: NDArray[np.int64]) -> int:
        texts = self._texts
        return forecast_sources(
            batch.payload, batch.value_at, batch.value_len, row, batch.n, texts.bytes, texts.ends, len(texts.claims),
            offset, text,
        )  # fmt: skip

    def _read_row(self, batch: EventBatch, row: int) -> Claim | None:
        at = int(batch.value_at[row])
        value = batch.payload[at : at + int(batch.value_len[row])].tobytes() if at >= 0 else b""
        claim = forecast_claim(value)
        if claim is not None:
            before, _, behind = value.rpartition(b"%d" % claim.offset)
            text = before[before.rfind(b',"model":') :]
            if behind == b"}}" and forecast_claim(b'{"":0' + text + b"0}}") == replace(claim, offset=0, last=0):
                self._texts.learn(text, claim)
        return claim


class LetterReader(_Reader):
    """Reads the headers of dead letters."""

    def _scan(self, batch: EventBatch, row: int, offset: NDArray[np.int64], text: NDArray[np.int64]) -> int:
        texts = self._texts
        return letter_sources(
            batch.payload, batch.headers_at, batch.headers_len, row, batch.n, texts.bytes, texts.ends,
            len(texts.claims), _FIRST_KEY, _RANGE_KEY, offset, text,
        )  # fmt: skip

    def _read_row(self, batch: EventBatch, row: int) -> Claim | None:
        at = int(batch.headers_at[row])
        section = batch.payload[at : at + int(batch.headers_len[row])].tobytes()
        claim, text = letter_claim(section)
        if claim is not None and text:
            self._texts.learn(text, claim)
        return claim


def forecast_claim(value: bytes) -> Claim | None:
    """What a forecast's JSON says that it answers; None when it is no forecast of streamlstm's."""
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
    source = found.get("src") if isinstance(found, dict) else None
    if not isinstance(source, dict):
        return None
    topic, partition, offset, model = (*map(source.get, ("topic", "partition", "offset")), found.get("model"))
    if (
        not isinstance(topic, str)
        or type(partition) is not int
        or type(offset) is not int
        or not 0 <= offset <= _MOST_OFFSET
    ):
        return None
    return Claim((topic, partition), offset, offset, model if isinstance(model, str) else "")


def letter_claim(section: bytes) -> tuple[Claim | None, bytes]:
    """What a raw header section says that its record answers, and the bytes that say so up to the offset's digits.

    The last headers of each name count: a dead letter of a dead letter has two sets. The bytes are b"" where the three
    headers don't stand one after the other, or stand for a range.
    """
    found: dict[str, tuple[bytes, int, int]] = {}
    count, at = _length(section, 0)
    for _ in range(count):
        begin = at
        size, at = _length(section, at)
        name = section[at : at + size].decode(errors="replace")
        at += size
        value_from = at
        size, at = _length(section, at)
        found[name] = (section[at : at + max(size, 0)], begin, value_from)
        at += max(size, 0)
    if not {_TOPIC, _PARTITION, _OFFSET} <= found.keys():
        return None, b""
    (topic, begin, _), (partition, _, _), (offset, _, value_from) = (
        found[name] for name in (_TOPIC, _PARTITION, _OFFSET)
    )
    last = found[_LAST_OFFSET][0] if _LAST_OFFSET in found and found[_LAST_OFFSET][1] > begin else offset
    numbers = (partition, offset, last)
    if not all(number.isdigit() and len(number) <= 19 and int(number) <= _MOST_OFFSET for number in numbers):
        return None, b""
    claim = Claim((topic.decode(errors="replace"), int(partition)), int(offset), max(int(last), int(offset)))
    text = section[begin:value_from]
    expected = b"".join(_framed(name, section, found) for name in (_TOPIC, _PARTITION))
    whole = text.startswith(expected) and len(text) == len(expected) + 1 + len(_OFFSET)
    return claim, text if whole and last is offset else b""


def _framed(name: str, section: bytes, found: dict[str, tuple[bytes, int, int]]) -> bytes:
    """The header as it stands in the section."""
    value, begin, value_from = found[name]
    _, at = _length(section, value_from)
    return section[begin : at + len(value)]


def _length(section: bytes, at: int) -> tuple[int, int]:
    """The zigzag varint at `at`, and where it ends. The section has been found well-formed by `append_batch`."""
    word = shift = 0
    while section[at] >= 0x80:
        word |= (section[at] & 0x7F) << shift
        shift += 7
        at += 1
    word |= section[at] << shift
    return (word >> 1) ^ -(word & 1), at + 1
