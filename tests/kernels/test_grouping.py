"""Rows to streams and what stands out in them, against plain Python (tests/history/test_oracle.py has the rest)."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlstm.kernels.grouping import group_rows, sort_groups, survey

events = st.lists(st.tuples(st.integers(0, 6), st.integers(-5, 5)), max_size=50)


@settings(max_examples=300)
@given(events, st.booleans())
def test_rows_are_grouped_and_sorted(given_rows: list[tuple[int, int]], sorts: bool) -> None:
    stream = np.array([s for s, _ in given_rows], np.int32)
    time = np.array([t for _, t in given_rows], np.int64)
    start, order = np.full(8, -1), np.full(len(given_rows), -1)
    group_rows(stream, start, order)
    assert order.tolist() == sorted(range(len(given_rows)), key=lambda row: given_rows[row][0])
    counts = Counter(s for s, _ in given_rows)
    assert np.diff(start).tolist() == [counts[s] for s in range(7)]
    late = [
        row
        for row, (s, t) in enumerate(given_rows)
        if t < max([other for r, other in given_rows[:row] if r == s], default=t)
    ]
    assert sort_groups(start, time, order, sorts) == (len(late), min(late, default=len(given_rows)))
    key = (lambda row: given_rows[row]) if sorts else (lambda row: (given_rows[row][0], 0))
    assert order.tolist() == sorted(range(len(given_rows)), key=key)


@pytest.mark.parametrize(
    ("steps", "interval", "off", "gaps", "longest"),
    [
        ([], 0, 0, 0, 0),
        ([60], 60, 0, 0, 0),
        ([60, 60, 180, 60], 60, 1, 1, 180),
        ([60, 60, 66, 67, 54, 53], 60, 2, 0, 0),
        ([60, 60, 90, 91], 60, 2, 1, 91),
        ([30, 30, 60, 60], 30, 2, 2, 60),  # of equally frequent ones the shortest
        ([0, 0, 0, 60, -5], 60, 0, 0, 0),  # only steps forward count
        (list(range(50, 71)), 60, 8, 0, 0),  # each occurs once in 21 times: the median
    ],
)
def test_interval(steps: list[int], interval: int, off: int, gaps: int, longest: int) -> None:
    time = np.concatenate(([0], np.cumsum(np.array(steps, np.int64)))).astype(np.int64)
    found = [np.full(1, -1) for _ in range(4)]
    constant = np.zeros(1, np.uint8)
    survey(np.array([0, len(time)]), time, np.ones((len(time), 2)), *found, constant)
    assert [int(each[0]) for each in found] == [interval, off, gaps, longest]
    assert constant[0] == 1


def test_constant_in_all_inputs_only() -> None:
    x = np.ones((6, 2))
    x[4, 1] = 2
    constant = np.zeros(2, np.uint8)
    survey(np.array([0, 3, 6]), np.arange(6), x, *(np.zeros(2, np.int64) for _ in range(4)), constant)
    assert constant.tolist() == [1, 0]
