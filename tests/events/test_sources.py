"""Whom answers answer: what the encoders write comes back, and nothing else passes for it."""

import json
from collections.abc import Sequence

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlstm.events.batch import EventBatch, Reason, Run, Source
from streamlstm.events.dead_letter import DeadLetterEncoder, PoisonReference
from streamlstm.events.decode import append_batch
from streamlstm.events.encode import EncodedBatch, ForecastEncoder
from streamlstm.events.forecast import ForecastBatch, Status
from streamlstm.events.sources import MOST_TEXTS, Answered, ForecastReader, LetterReader, forecast_claim
from streamlstm.kernels.account import ELSEWHERE_ROW, OTHERS_ROW
from tests.events.record_encoding import Record, headers_section, records_section

OURS = ("plant.sensors", 3)
MODEL = "6599eda1ff6a"
PREFIX = b"__streamlstm.errors."
streams = st.text(max_size=20).map(str.encode).filter(len)


def event_batch(source: Source, offsets: Sequence[int], keys: Sequence[bytes], headers: Sequence[bytes]) -> EventBatch:
    """Events as the daemon has them before it encodes their answers."""
    batch = EventBatch(1, np.zeros(0, np.uint8), len(offsets))
    for row, (key, section) in enumerate(zip(keys, headers, strict=True)):
        batch.key_at[row] = batch.stream_at[row] = batch.append_payload(key)
        batch.key_len[row] = batch.stream_len[row] = len(key)
        batch.headers_at[row], batch.headers_len[row] = batch.append_payload(section), len(section)
        batch.value_at[row], batch.value_len[row] = batch.key_at[row], len(key)
    batch.offset[: len(offsets)] = offsets
    batch.n = len(offsets)
    batch.runs = [Run(*source, 0, batch.n)]
    return batch


def forecasts_of(
    source: Source,
    offsets: Sequence[int],
    model: str = MODEL,
    keys: Sequence[bytes] = (),
    headers: Sequence[bytes] = (),
) -> list[EncodedBatch]:
    n = len(offsets)
    batch = event_batch(source, offsets, keys or [b"pump"] * n, headers or [b"\0"] * n)
    columns = ForecastBatch(
        np.ones((n, 1)), True, np.full(n, Status.OK, np.uint8), np.arange(n, dtype=np.int64), np.full(n, 60_000)
    )  # fmt: skip
    return ForecastEncoder(model, (1,)).encode(batch, columns, source, np.arange(n))


def letters_of(source: Source, offsets: Sequence[int], headers: Sequence[bytes] = ()) -> list[EncodedBatch]:
    n = len(offsets)
    batch = event_batch(source, offsets, [b"pump"] * n, headers or [b"\0"] * n)
    batch.reason[:n] = Reason.NOT_JSON
    return DeadLetterEncoder("1.2.3").encode(batch, np.arange(n), source)


def read_back(*batches: EncodedBatch | Sequence[Record]) -> EventBatch:
    """Record batches as the audit gets them from a topic."""
    found = EventBatch(0, np.zeros(0, np.uint8), 1)
    for each in batches:
        records = bytes(each.buffer[61:]) if isinstance(each, EncodedBatch) else records_section(list(each))
        count = each.count if isinstance(each, EncodedBatch) else len(each)
        append_batch(found, "answers", 3, records, count=count, base_offset=found.n, base_timestamp=0)
    return found


def record(value: bytes | None, headers: tuple[tuple[bytes, bytes | None], ...] = ()) -> list[Record]:
    return [Record(0, 0, b"key", value, headers)]


def letter_headers(
    topic: bytes, partition: bytes, offset: bytes, **more: bytes
) -> tuple[tuple[bytes, bytes | None], ...]:
    names = {"topic": topic, "partition": partition, "offset": offset, **more}
    return tuple((PREFIX + name.encode(), content) for name, content in names.items())


def events(answered: Answered) -> list[int]:
    return answered.offset.tolist()  # type: ignore[no-any-return]


offset_lists = st.lists(st.integers(0, 10**18 - 1) | st.integers(0, 200), min_size=1, max_size=30)
some_headers = st.lists(st.tuples(st.binary(max_size=40), st.none() | st.binary(max_size=90)), max_size=3).map(
    lambda pairs: headers_section(tuple(pairs))
)


class TestForecasts:
    @given(st.data(), offset_lists, st.text(min_size=1, max_size=12))
    def test_what_the_encoder_writes(self, data: st.DataObject, offsets: list[int], topic: str) -> None:
        source, n = (topic, data.draw(st.integers(0, 1000))), len(offsets)
        keys = data.draw(st.lists(streams, min_size=n, max_size=n))
        reader = ForecastReader(source)
        batch = read_back(*forecasts_of(source, offsets, MODEL, keys))
        assert events(reader.read(batch)) == offsets
        assert events(reader.read(batch)) == offsets
        assert reader.models == {MODEL: 2 * n}

    def test_only_the_first_of_its_kind_is_read_slowly(self, monkeypatch: pytest.MonkeyPatch) -> None:
        slow = 0

        def counting(value: bytes) -> object:
            nonlocal slow
            slow += 1
            return forecast_claim(value)

        monkeypatch.setattr("streamlstm.events.sources.forecast_claim", counting)
        old, new = forecasts_of(OURS, range(5_000)), forecasts_of(OURS, range(5_000, 10_000), "0123456789ab")
        reader = ForecastReader(OURS)
        assert events(reader.read(read_back(*old, *new, *old))) == [*range(10_000), *range(5_000)]
        assert reader.models == {MODEL: 10_000, "0123456789ab": 5_000}
        assert slow == 4  # each kind once, and the text learned from it once

    def test_other_topics_and_partitions(self) -> None:
        batch = read_back(
            *forecasts_of(("other", 3), [1, 2]), *forecasts_of((OURS[0], 4), [1, 2]), *forecasts_of(OURS, [1, 2])
        )
        expected = [OTHERS_ROW] * 2 + [ELSEWHERE_ROW] * 2 + [1, 2]
        reader = ForecastReader(OURS)
        assert events(reader.read(batch)) == expected
        assert events(reader.read(batch)) == expected
        assert reader.models == {MODEL: 4}

    @pytest.mark.parametrize(
        "value",
        [
            None,
            b"",
            b"}}",
            b"7}}",
            b"not json",
            b'{"model":"m","src":7}',
            b'{"model":"m","src":{"topic":"plant.sensors","partition":3}}',
            b'{"model":"m","src":{"topic":"plant.sensors","partition":3,"offset":-1}}',
            b'{"model":"m","src":{"topic":"plant.sensors","partition":3,"offset":true}}',
            b'{"model":"m","src":{"topic":"plant.sensors","partition":3,"offset":1.0}}',
            b'{"model":"m","src":{"topic":"plant.sensors","partition":3,"offset":99999999999999999999}}',
            b'["model","src"]',
        ],
    )
    def test_what_is_no_forecast(self, value: bytes | None) -> None:
        reader = ForecastReader(OURS)
        batch = read_back(record(value), *forecasts_of(OURS, [5]), record(value))
        assert events(reader.read(batch)) == [OTHERS_ROW, 5, OTHERS_ROW]

    def test_another_order_of_fields_is_read_slowly(self) -> None:
        forms = [
            b'{"src":{"topic":"plant.sensors","partition":3,"offset":11},"model":"m"}',
            b'{ "model" : "m" , "src" : { "topic" : "plant.sensors", "partition" : 3, "offset" : 12 } }',
            b'{"model":"m","src":{"offset":13,"topic":"plant.sensors","partition":3}}',
            b'{"model":7,"src":{"topic":"plant.sensors","partition":3,"offset":14}}',
            b'{"model":"m","src":{"topic":"plant.sensors","partition":3,"offset":9223372036854775807}}',
        ]
        reader = ForecastReader(OURS)
        batch = read_back(*(record(form) for form in forms), *(record(form) for form in forms))
        expected = [11, 12, 13, 14, 2**63 - 1]
        assert events(reader.read(batch)) == 2 * expected
        assert reader.models == {"m": 8, "": 2}

    def test_a_stream_that_looks_like_the_end_of_a_forecast(self) -> None:
        tail = ',"model":"6599eda1ff6a","src":{"topic":"plant.sensors","partition":3,"offset":7}}'
        value = json.dumps({"stream": tail}, separators=(",", ":")).encode()
        reader = ForecastReader(OURS)
        batch = read_back(*forecasts_of(OURS, [5], MODEL, [tail.encode()]), record(value), record(orjson.dumps(tail)))
        assert events(reader.read(batch)) == [5, OTHERS_ROW, OTHERS_ROW]

    def test_more_kinds_than_are_kept(self) -> None:
        kinds = range(2 * MOST_TEXTS)
        batches = [batch for k in kinds for batch in forecasts_of(OURS, [k], f"model-{k}")]
        reader = ForecastReader(OURS)
        assert events(reader.read(read_back(*batches, *batches))) == [*kinds, *kinds]
        assert reader.models == {f"model-{k}": 2 for k in kinds}


class TestLetters:
    @given(st.data(), offset_lists, st.text(min_size=1, max_size=12))
    def test_what_the_encoder_writes(self, data: st.DataObject, offsets: list[int], topic: str) -> None:
        source, n = (topic, data.draw(st.integers(0, 1000))), len(offsets)
        headers = data.draw(st.lists(some_headers, min_size=n, max_size=n))
        reader = LetterReader(source)
        batch = read_back(*letters_of(source, offsets, headers))
        assert events(reader.read(batch)) == offsets
        assert events(reader.read(batch)) == offsets

    def test_ranges(self) -> None:
        encoder = DeadLetterEncoder("1.2.3")
        poison = encoder.encode_poison(PoisonReference(*OURS, 10, 19, Reason.CORRUPT_BATCH, "CRC"))
        single = encoder.encode_poison(PoisonReference(*OURS, 20, 20, Reason.UNKNOWN_CODEC, ""))
        reader = LetterReader(OURS)
        batch = read_back(*letters_of(OURS, [9]), *poison, *single, *letters_of(OURS, [21]))
        for _ in range(2):
            answered = reader.read(batch)
            assert events(answered) == [9, 10, 20, 21]
            assert answered.ranges == {1: (10, 19)}

    def test_other_topics_and_partitions(self) -> None:
        batch = read_back(*letters_of(("other", 3), [1]), *letters_of((OURS[0], 4), [1]), *letters_of(OURS, [1]))
        reader = LetterReader(OURS)
        for _ in range(2):
            assert events(reader.read(batch)) == [OTHERS_ROW, ELSEWHERE_ROW, 1]

    def test_a_dead_letter_of_a_dead_letter_answers_what_it_was_read_from(self) -> None:
        inner = headers_section(letter_headers(*(b"plant.sensors", b"3", b"7"), last_offset=b"9", reason=b"not_json"))
        ours, others = letters_of(OURS, [70], [inner]), letters_of(("other", 0), [71], [inner])
        reader = LetterReader(OURS)
        batch = read_back(*letters_of(OURS, [1]), *others, *ours, *others)
        for _ in range(2):
            answered = reader.read(batch)
            assert events(answered) == [1, OTHERS_ROW, 70, OTHERS_ROW]
            assert answered.ranges == {}

    @pytest.mark.parametrize(
        "headers",
        [
            (),
            ((b"trace", b"1"),),
            ((b"\xff\xfe", None),),
            letter_headers(b"plant.sensors", b"3", b"seven"),
            letter_headers(b"plant.sensors", b"3", b""),
            letter_headers(b"plant.sensors", b"-3", b"7"),
            letter_headers(b"plant.sensors", b"3", b"9" * 20),
            letter_headers(b"plant.sensors", b"3", b"9" * 19),  # more than an int64 holds
            letter_headers(b"plant.sensors", b"3", b"7")[:2],
            letter_headers(b"plant.sensors", b"3", b"7")[1:],
        ],
    )
    def test_what_is_no_dead_letter_of_ours(self, headers: tuple[tuple[bytes, bytes | None], ...]) -> None:
        reader = LetterReader(OURS)
        batch = read_back(record(b"v", headers), *letters_of(OURS, [5]), record(b"v", headers))
        assert events(reader.read(batch)) == [OTHERS_ROW, 5, OTHERS_ROW]

    def test_headers_in_another_order(self) -> None:
        ours = letter_headers(b"plant.sensors", b"3", b"7")
        reader = LetterReader(OURS)
        batch = read_back(
            record(b"v", ours[::-1]), record(b"v", (ours[0], (b"x", b"y"), *ours[1:])), record(b"v", ours)
        )
        for _ in range(2):
            assert events(reader.read(batch)) == [7, 7, 7]
