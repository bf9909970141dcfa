"""The compiled scanner by itself: which rows it lists, and that nothing outside a row's span matters."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlstm.events.batch import PADDING
from streamlstm.events.field_tree import FieldTree, field_tree
from streamlstm.events.fields import FieldPaths
from streamlstm.events.times import EARLIEST_MS, LATEST_MS
from streamlstm.kernels import text
from tests.events.json_texts import EVERY_FIELDS, MANY, event_texts

TREE = field_tree(FieldPaths())
GOOD = b'{"stream":"s","ts":5,"value":1.5}'


def scan(tree: FieldTree, payload: bytes, spans: list[tuple[int, int]], inputs: int = 1, reasons: Any = None) -> Any:
    """The rows handed on, and the columns stream_at, stream_len, event_time and x. Records have no key."""
    n = len(spans)
    at, size = (np.array(column, np.int64) for column in zip(*spans, strict=True))
    stream_at, stream_len, event_time = (np.full(n, -7, np.int64) for _ in range(3))
    x = np.full((n, inputs), -7.0)
    reason = np.zeros(n, np.uint8) if reasons is None else np.array(reasons, np.uint8)
    handed_on = np.full(n, -7, np.int64)
    none = np.full(n, -1, np.int64)
    count = text.scan_events(
        np.frombuffer(payload, np.uint8).copy(), 0, n, np.zeros(n, np.int64), none, none, at, size, 3,
        text.FIELD_OR_KEY, EARLIEST_MS, LATEST_MS, False, tree.words, np.zeros(tree.node_words, np.int64),
        stream_at, stream_len, event_time, x, reason, handed_on,
    )  # fmt: skip
    assert (handed_on[count:] == -7).all()
    return handed_on[:count].tolist(), (stream_at, stream_len, event_time, x)


def test_rows_handed_on_are_listed_in_order_and_rows_with_a_reason_skipped() -> None:
    bad = b'{"stream":"s","value":nul}'
    payload = GOOD + bad + bytes(PADDING)
    good_span, bad_span = (0, len(GOOD)), (len(GOOD), len(bad))
    spans = [bad_span, good_span, bad_span, bad_span, good_span]
    handed_on, (stream_at, stream_len, event_time, x) = scan(TREE, payload, spans, reasons=[0, 0, 9, 0, 9])
    assert handed_on == [0, 3]
    assert (stream_at[1], stream_len[1], event_time[1], x[1, 0]) == (11, 1, 5, 1.5)
    assert x[[2, 4], 0].tolist() == [-7, -7]


def test_spans_outside_the_payload_are_handed_on_unread() -> None:
    payload = GOOD + bytes(PADDING)
    size = len(GOOD)
    spans = [(-1, 0), (-5, size), (0, size + 1), (size, 1), (10**15, size), (0, 2**63 - 1), (5, -3), (0, size)]
    assert scan(TREE, payload, spans)[0] == list(range(len(spans) - 1))


def test_every_part_of_an_event_is_handed_on_whatever_follows() -> None:
    for cut in range(len(GOOD)):
        for behind in (GOOD[cut:], b"}" * PADDING, b'"' * PADDING, b"9" * PADDING, b" " * PADDING, b"\xff" * PADDING):
            assert scan(TREE, GOOD[:cut] + (behind + bytes(PADDING))[:PADDING], [(0, cut)])[0] == [0]


@given(event_texts(), st.binary(max_size=PADDING))
@settings(max_examples=300)
def test_bytes_around_a_record_never_matter(event: tuple[FieldPaths, bytes], behind: bytes) -> None:
    fields, value = event
    tree, inputs = field_tree(fields), len(fields.inputs)
    handed_on, alone = scan(tree, value + bytes(PADDING), [(0, len(value))], inputs)
    again, within = scan(tree, b'{"' + value + (behind + b"1" * PADDING)[:PADDING], [(2, len(value))], inputs)
    assert handed_on == again
    if not handed_on:
        assert alone[0] + 2 == within[0]
        assert all(np.array_equal(left, right) for left, right in zip(alone[1:], within[1:], strict=True))


def test_names_are_told_apart_by_every_byte() -> None:
    names = [f"{head}{tail}" for head in ("", "temperature_of_the_", "x") for tail in ("1", "2", "12", "21", "")][:-1]
    names = [name for name in dict.fromkeys(names) if name]
    fields = FieldPaths(inputs=tuple(names))
    members = ",".join(f'"{name}":{i}' for i, name in enumerate(names))
    value = b'{"stream":"s","values":{%s,"temperature_of_the":-1,"X1":-1}}' % members.encode()
    handed_on, (*_, x) = scan(field_tree(fields), value + bytes(PADDING), [(0, len(value))], len(names))
    assert handed_on == []
    assert x[0].tolist() == list(range(len(names)))


def test_a_tree_holds_each_name_once_in_its_parents_table() -> None:
    for fields in (*EVERY_FIELDS, MANY):
        tree = field_tree(fields)
        nodes = range(0, tree.node_words, text.NODE_WORDS)
        found: list[int] = []
        for node in nodes:
            first, slots = tree.words[node + text.TABLE], tree.words[node + text.TABLE_MASK] + 1
            children = [int(child) for child in tree.words[first : first + slots] if child >= 0]
            assert 4 * len(children) <= slots
            assert all(tree.words[child + text.PARENT] == node for child in children)
            found += children
        assert sorted(found) == list(nodes)[1:]


def test_the_padding_is_that_of_event_batches() -> None:
    assert text.PADDING == PADDING
