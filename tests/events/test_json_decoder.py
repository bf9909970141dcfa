"""JSON events to rows, by example; the examples are in json_cases.py."""

import pytest

from streamlstm.errors import ConfigError, InvariantError
from streamlstm.events.batch import Reason
from streamlstm.events.decode import JsonDecoder
from streamlstm.events.fields import FieldPaths
from tests.events.json_cases import HANDED_ON, REFUSED, SCANNED
from tests.events.json_model import Expected, expected_event
from tests.events.json_texts import DEFAULT, FIELDED, KEYED, THREE
from tests.events.rows import BASE_TIME, batch_of, row_of, same

NAN = float("nan")


def decoded(value: bytes | None, fields: FieldPaths = DEFAULT, key: bytes | None = b"key") -> tuple[Expected, int]:
    """The row of one record, and whether it was handed on (0 or 1)."""
    batch = batch_of([(key, value)], len(fields.inputs))
    handed_on = JsonDecoder(fields).decode(batch, 0, 1)
    return row_of(batch, 0), handed_on


@pytest.mark.parametrize(("fields", "key", "value", "stream", "time", "x"), SCANNED)
def test_taken_by_the_scanner(
    fields: FieldPaths, key: bytes | None, value: str, stream: bytes, time: int, x: list[float]
) -> None:
    wanted = Expected(Reason.OK, stream, time, tuple(x))
    assert expected_event(value.encode(), key, BASE_TIME, fields) == wanted
    found, handed_on = decoded(value.encode(), fields, key)
    assert same(found, wanted)
    assert handed_on == 0


@pytest.mark.parametrize(("fields", "key", "value", "stream", "time", "x"), HANDED_ON)
def test_taken_by_the_reader(
    fields: FieldPaths, key: bytes | None, value: str, stream: bytes, time: int, x: list[float]
) -> None:
    wanted = Expected(Reason.OK, stream, time, tuple(x))
    assert expected_event(value.encode(), key, BASE_TIME, fields) == wanted
    found, handed_on = decoded(value.encode(), fields, key)
    assert same(found, wanted)
    assert handed_on == 1


@pytest.mark.parametrize(("fields", "key", "value", "reason"), REFUSED)
def test_refused_with_its_reason(
    fields: FieldPaths, key: bytes | None, value: bytes | None, reason: Reason
) -> None:  # fmt: skip
    assert decoded(value, fields, key) == (Expected(reason), 1)
    assert expected_event(value, key, BASE_TIME, fields) == Expected(reason)


@pytest.mark.parametrize(
    ("fields", "value", "x", "handed_on"),
    [
        (DEFAULT, b'{"value":null}', [NAN], 0),
        (DEFAULT, b'{"value": null ,"y":1}', [NAN], 0),
        (DEFAULT, b'{"values":[null]}', [NAN], 0),
        (DEFAULT, b'{"values":null}', [NAN], 1),
        (THREE, b'{"values":[1,null,3]}', [1.0, NAN, 3.0], 0),
        (THREE, '{"values":{"load":null,"temp":1,"température in °C":3}}'.encode(), [1.0, NAN, 3.0], 0),
    ],
)  # fmt: skip
def test_missing_inputs_are_let_through(fields: FieldPaths, value: bytes, x: list[float], handed_on: int) -> None:
    batch = batch_of([(b"k", value)], len(fields.inputs))
    assert JsonDecoder(fields, lets_missing=True).decode(batch, 0, 1) == handed_on
    assert same(row_of(batch, 0), Expected(Reason.OK, b"k", BASE_TIME, tuple(x)))
    assert decoded(value, fields) == (Expected(Reason.NULL_VALUE), 1)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b'{"y":NaN}', Reason.NOT_FINITE),  # isn't JSON
        (b'{"y":1e999}', Reason.NOT_FINITE),
        (b"{}", Reason.MISSING_FIELD),
        (b'{"y":nul}', Reason.NOT_JSON),
        (b'{"y":nulll}', Reason.NOT_JSON),
        (b'{"y":nul', Reason.NOT_JSON),
    ],
)
def test_null_alone_is_missing(value: bytes, reason: Reason) -> None:
    batch = batch_of([(b"k", value)], 1)
    JsonDecoder(DEFAULT, lets_missing=True).decode(batch, 0, 1)
    assert row_of(batch, 0) == Expected(reason)


@pytest.mark.parametrize(("fields", "named"), [(DEFAULT, True), (KEYED, True), (FIELDED, False)])
def test_a_tombstone_names_its_stream_where_keys_do(fields: FieldPaths, named: bool) -> None:
    batch = batch_of([(b"k", None), (None, None)], 1)
    JsonDecoder(fields).decode(batch, 0, 2)
    assert batch.reason[:2].tolist() == [Reason.TOMBSTONE] * 2
    assert batch.stream_len[:2].tolist() == [int(named), 0]
    assert batch.stream_at[:2].tolist() == [batch.key_at[0] if named else -1, -1]


def test_a_record_without_timestamp_needs_a_time_of_its_own() -> None:
    batch = batch_of([(b"k", b'{"y":1}'), (b"k", b'{"y":1,"ts":5}'), (b"k", b'{"y":1}')], 1, [-1, -1, 0])
    JsonDecoder(DEFAULT).decode(batch, 0, 3)
    assert batch.reason[:3].tolist() == [Reason.BAD_TIME, Reason.OK, Reason.OK]
    assert batch.event_time[1:3].tolist() == [5, 0]


def test_only_the_rows_asked_for_that_have_no_reason_yet() -> None:
    batch = batch_of([(b"k", b'{"y":%d}' % i) for i in range(5)], 1)
    batch.reason[2] = Reason.CAPACITY
    batch.x[:] = 77
    JsonDecoder(DEFAULT).decode(batch, 1, 4)
    assert batch.x[:, 0].tolist() == [77, 1, 77, 3, 77]
    assert batch.reason[:5].tolist() == [0, 0, Reason.CAPACITY, 0, 0]


@pytest.mark.parametrize(("inputs", "start", "stop"), [(2, 0, 1), (1, -1, 1), (1, 0, 2), (1, 1, 0)])
def test_rows_or_inputs_that_are_not_there_are_refused(inputs: int, start: int, stop: int) -> None:
    batch = batch_of([(b"k", b'{"y":1}')], inputs)
    with pytest.raises(InvariantError, match=r"rows: expected within 0\.\.1"):
        JsonDecoder(DEFAULT).decode(batch, start, stop)


def test_fields_that_make_no_sense_are_named_all_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        FieldPaths(stream=("a..b",), values="", inputs=("x", "x"), time_unit="h", stream_source="?")  # type: ignore[arg-type]
    assert len(caught.value.problems) == 5


def test_a_large_event_is_read_and_large_nonsense_refused() -> None:
    large = b'{"more":[%s],"y":1}' % b",".join([b'{"a":[1,2,{"b":"c"}]}'] * 100_000)
    assert decoded(large) == (Expected(Reason.OK, b"key", BASE_TIME, (1.0,)), 0)
    for nonsense in (
        b"[" * 3_000_000,
        b'["\\"' * 600_000,
        b'{"y":' + b"1" * 3_000_000 + b"}",
        b'{"y":1' + b" " * 3_000_000,
    ):
        assert decoded(nonsense)[0].reason in (Reason.NOT_JSON, Reason.NOT_FINITE)
