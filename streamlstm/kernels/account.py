"""The account of one partition: which offsets hold a record, and which of them have been answered, a bit for each.

Offset `first + i` is bit i mod 64 of word i div 64. `judge` says what is wrong with answers, in the order they come.
"""

import numpy as np
from numba import uint64
from numpy.typing import NDArray

from streamlstm.kernels.compile import compiled, embedded
from streamlstm.kernels.words import trailing_zeros

Bits = NDArray[np.uint64]
Int64s = NDArray[np.int64]

# what may be wrong with an answer
(
    DUPLICATE,  # the event has been answered before
    REORDERED,  # it comes behind the answer to a later event
    NO_RECORD,  # there is no record at the offset
    AHEAD,  # the group hasn't committed so far
    ELSEWHERE,  # it names another partition than the one it is in
    FAULTS,
) = range(6)

# what source[row] may say instead of an offset
OTHERS_ROW = -1  # answers nothing of this topic
ELSEWHERE_ROW = -2


@embedded
def _is_set(bits: Bits, i: int) -> bool:
    return (bits[i >> 6] >> uint64(i & 63)) & uint64(1) != uint64(0)  # type: ignore[no-any-return]


@embedded
def _set(bits: Bits, i: int) -> None:
    bits[i >> 6] |= uint64(1) << uint64(i & 63)


@compiled("int64(uint64[::1], int64, int64, int64[::1])")
def mark(bits: Bits, first: int, end: int, offsets: Int64s) -> int:
    """Set the bits of those offsets that lie in [first, end); returns how many weren't set before."""
    new = 0
    for i in range(offsets.shape[0]):
        at = offsets[i] - first
        if 0 <= at < end - first and not _is_set(bits, at):
            _set(bits, at)
            new += 1
    return new


@compiled("int64(uint64[::1], int64, int64)")
def mark_range(bits: Bits, start: int, stop: int) -> int:
    """Set bits [start, stop); returns how many were set before."""
    before = 0
    for at in range(start, stop):
        before += 1 if _is_set(bits, at) else 0
        _set(bits, at)
    return before


@compiled("int64(uint64[::1], int64, int64)")
def count_range(bits: Bits, start: int, stop: int) -> int:
    """How many of the bits [start, stop) are set."""
    count = 0
    for at in range(start, stop):
        count += 1 if _is_set(bits, at) else 0
    return count


@compiled("int64(uint64[::1], uint64[::1], int64, int64, int64[::1])")
def unanswered(known: Bits, answered: Bits, start: int, stop: int, found: Int64s) -> int:
    """How many of the bits [start, stop) are set in `known` and not in `answered`; the first of them go to `found`."""
    count = 0
    if start >= stop:
        return 0
    for word in range(start >> 6, ((stop - 1) >> 6) + 1):
        left = known[word] & ~answered[word]
        while left != uint64(0):
            at = 64 * word + trailing_zeros(left)
            left &= left - uint64(1)
            if start <= at < stop:
                if count < found.shape[0]:
                    found[count] = at
                count += 1
    return count


@embedded
def _note(fault: int, source: int, at: int, counts: Int64s, found: NDArray[np.int64]) -> None:
    if counts[fault] < found.shape[1]:
        found[fault, counts[fault], 0] = source
        found[fault, counts[fault], 1] = at
    counts[fault] += 1


@compiled(
    "Tuple((int64, int64, int64))(int64[::1], int64[::1], int64, int64, int64, boolean, uint64[::1], uint64[::1], "
    "int64, int64[::1], int64[:,:,::1])"
)
def judge(
    source: Int64s,
    at: Int64s,
    first: int,
    end: int,
    committed: int,
    compacted: bool,
    known: Bits,
    answered: Bits,
    highest: int,
    counts: Int64s,
    found: NDArray[np.int64],
) -> tuple[int, int, int]:
    """Enter answers to `source` offsets, which stand at the offsets `at` of their topic, into the account of
    [first, end).

    `answered` is filled; `counts` int64 [FAULTS] goes up, and the first faults of each kind go to `found` int64
    [FAULTS, K, 2] as source and at. Order is judged from `highest`, the latest event answered before, or -1. Where the
    input is `compacted`, an answer to no record isn't a fault: the record has gone since.

    Returns the new `highest`, the answers within [first, end), faulty ones included, and those to no event of ours.
    """
    inside = others = 0
    for i in range(source.shape[0]):
        event = source[i]
        if event == OTHERS_ROW:
            others += 1
            continue
        if event == ELSEWHERE_ROW:
            _note(ELSEWHERE, event, at[i], counts, found)
            continue
        if event >= committed:
            _note(AHEAD, event, at[i], counts, found)
            continue
        if first <= event < end:
            inside += 1
            place = event - first
            if _is_set(answered, place):
                _note(DUPLICATE, event, at[i], counts, found)
                continue
            _set(answered, place)
            if not compacted and not _is_set(known, place):
                _note(NO_RECORD, event, at[i], counts, found)
                continue
            if event < highest:
                _note(REORDERED, event, at[i], counts, found)
        highest = max(highest, event)
    return highest, inside, others
