"""The JSON decoder against the model, on generated and on damaged text."""

import json
import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlstm.events.batch import Reason
from streamlstm.events.decode import JsonDecoder
from streamlstm.events.fields import FieldPaths
from tests.events.json_cases import HANDED_ON, SCANNED
from tests.events.json_model import Expected, expected_event
from tests.events.json_texts import DEFAULT, EVERY_FIELDS, FIELDED, MANY, OVERLAPPING, damaged, event_texts
from tests.events.rows import BASE_TIME, batch_of, row_of, same

DECODERS = {
    (fields, lets): JsonDecoder(fields, lets_missing=lets) for fields in (*EVERY_FIELDS, MANY) for lets in (False, True)
}

keys = st.one_of(st.just(b"key"), st.none(), st.binary(max_size=9), st.text(max_size=9).map(str.encode))


def check(fields: FieldPaths, values: list[tuple[bytes | None, bytes | None]]) -> None:
    for lets_missing in (False, True):
        check_decoder(fields, values, lets_missing)


def check_decoder(fields: FieldPaths, values: list[tuple[bytes | None, bytes | None]], lets_missing: bool) -> None:
    """Every row as the model has it, with a good one between any two that must stay what it is."""
    x = list(range(len(fields.inputs)))
    name = fields.values.split(".")
    good_value = b'{"%s":' % name[0].encode() + (b'{"%s":' % name[1].encode() if len(name) > 1 else b"")
    good_value += json.dumps(x).encode() + b"}" * len(name)
    if fields is OVERLAPPING:
        good_value = b'{"w":0}'
    if fields is FIELDED:
        good_value = good_value[:-1] + b',"stream":"good"}'
    records = [one for pair in values for one in ((b"good", good_value), pair)] + [(b"good", good_value)]
    batch = batch_of(records, len(fields.inputs))
    DECODERS[fields, lets_missing].decode(batch, 0, len(records))
    for row, (key, value) in enumerate(records):
        wanted = expected_event(value, key, BASE_TIME + row, fields, lets_missing)
        assert same(row_of(batch, row), wanted), (fields, key, value, row_of(batch, row), wanted)
        if row % 2 == 0:
            assert same(wanted, Expected(Reason.OK, b"good", BASE_TIME + row, tuple(map(float, x))))


@given(event_texts(), keys)
@settings(max_examples=800)
def test_generated_events(event: tuple[FieldPaths, bytes], key: bytes | None) -> None:
    fields, text = event
    check(fields, [(key, text)])


@given(event_texts(), st.randoms(use_true_random=False))
@settings(max_examples=250)
def test_damaged_events(event: tuple[FieldPaths, bytes], chance: random.Random) -> None:
    fields, text = event
    check(fields, [(b"key", damaged(text, chance)) for _ in range(8)])


def test_many_damaged_rows_in_one_batch() -> None:
    chance = random.Random(7)
    for fields, _, value, *_ in SCANNED + HANDED_ON:
        check(fields, [(b"key", damaged(value.encode(), chance)) for _ in range(150)])


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=50))
def test_every_float_is_read_back_bit_for_bit(found: list[float]) -> None:
    batch = batch_of([(b"k", b'{"y":%s}' % repr(one).encode()) for one in found], 1)
    DECODERS[DEFAULT, False].decode(batch, 0, len(found))
    wanted = np.array(found)
    assert np.array_equal(batch.x[: len(found), 0].view(np.uint64), wanted.view(np.uint64))
