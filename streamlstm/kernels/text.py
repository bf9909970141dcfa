"""Events in JSON text, scanned in one pass: each record's value to stream, time and inputs, without an object between.

The scanner takes what orjson takes and reads the same from it, or hands the record on to a slower reader: never a third
thing. It hands on: invalid JSON, missing fields, values of a wrong kind or out of range, escapes in what it reads, a
field that occurs twice, numbers of more than 19 digits or beyond the normal float64, nesting beyond 63 levels, and some
rare forms of times; nulls among the inputs unless they are let through as NaN. Fields that it doesn't look for are
checked and passed over.

Field names form a tree (see streamlstm.events.field_tree): the first node is the root object, the others are a name in
their parent's object. Text is addressed by int64 addresses p < end; up to 32 bytes from `end` on may be read, and never
count.
"""

import numpy as np
from numba import int64, uint64
from numpy.typing import NDArray

from streamlstm.kernels.compile import compiled, embedded
from streamlstm.kernels.memory import load_word as load_field
from streamlstm.kernels.memory import store_word as store_field
from streamlstm.kernels.number import MOST_DIGITS, nearest, number_parts
from streamlstm.kernels.strings import BACKSLASH, QUOTE, is_utf8, skip_space, string_end
from streamlstm.kernels.time_text import read_date_time, read_epoch
from streamlstm.kernels.words import load_byte, load_word, store_real

# The words of a node. Nodes, tables and names stand in one int64 array, the tree; a node is where it begins there.
FIRST_WORD = 0  # of the name: its first 8 bytes, zeros behind a shorter one
LENGTH = 1  # of the name in bytes
NAME = 2  # where the name begins
ROLE = 3
RANK = 4  # lower ones go before higher ones of the same role; an input's is its index
TABLE = 5  # where the hash table of the children begins
TABLE_MASK = 6  # its slots, a power of two, less one
PARENT = 7
NODE_WORDS = 8

# roles: what to do with the value of a name
INNER = 0  # look into the object
STREAM = 1
TIME = 2
VALUE = 3  # the only input
VALUES = 4  # all inputs, as an array or by name
INPUT = 5  # one of them, by name
HAND_ON = 6  # names that serve two purposes: for the slower reader

# where the stream id comes from
FIELD_OR_KEY, ONLY_KEY, ONLY_FIELD = range(3)

PADDING = 64
"""Bytes behind the last span that may be read: as in streamlstm.events.batch."""

MOST_NESTED = 63
_UNSEEN = 1 << 30
_NO_CHILD = -1
_OPEN_OBJECT, _CLOSE_OBJECT, _OPEN_ARRAY, _CLOSE_ARRAY = (ord(character) for character in "{}[]")
_COLON, _COMMA, _MINUS, _ZERO, _NINE, _FALSE = (ord(character) for character in ":,-09f")
_SKIPPED_DIGITS, _SKIPPED_EXPONENT = 200, 99  # any such number is finite
_WORD_TRUE, _WORD_NULL, _WORD_ALSE = (uint64(int.from_bytes(word, "little")) for word in (b"true", b"null", b"alse"))
_FOUR_BYTES = uint64(0xFFFFFFFF)
_MIX_LENGTH, _MIX_LAST, _MIX = uint64(0x9E3779B97F4A7C15), uint64(0xD6E8FEB86659FD93), uint64(0xFF51AFD7ED558CCD)


# ----------------------------------------------------------------------------------------------------- names and values


@compiled("Tuple((uint64, uint64))(int64, int64)")
def name_words(at: int, length: int) -> tuple[int, int]:
    """The first 8 bytes of the name at address `at`, zeros behind a shorter one; and a hash of it."""
    word = load_word(at)
    last = uint64(0)
    if length > 8:
        last = load_word(at + length - 8)
    elif length < 8:
        word &= (uint64(1) << uint64(8 * length)) - uint64(1)
    mixed = (word ^ (last * _MIX_LAST) ^ (uint64(length) * _MIX_LENGTH)) * _MIX
    return word, mixed >> uint64(32)


@embedded
def _find_child(tree: int, node: int, at: int, length: int) -> int:
    """The child of `node` whose name is the `length` bytes at `at`, or _NO_CHILD."""
    word, mixed = name_words(at, length)
    table, mask = load_field(tree, node + TABLE), load_field(tree, node + TABLE_MASK)
    slot = int64(mixed) & mask
    while True:
        child = load_field(tree, table + slot)
        if child == _NO_CHILD:
            return _NO_CHILD
        if load_field(tree, child + FIRST_WORD) == int64(word) and load_field(tree, child + LENGTH) == length:
            name = tree + 8 * load_field(tree, child + NAME)
            i = 8
            while i < length and load_byte(name + i) == load_byte(at + i):
                i += 1
            if i >= length:
                return child  # type: ignore[no-any-return]
        slot = (slot + 1) & mask


@embedded
def _read_name(p: int, end: int) -> tuple[int, int, int]:
    """The member of an object at p: where its name begins, its length (-1 if it has escapes), where its value begins.

    The last is 0 if there is no valid name with a colon and something behind it.
    """
    p = skip_space(p, end)
    if p >= end or load_byte(p) != QUOTE:
        return 0, 0, 0
    name = p + 1
    close = string_end(name, end)
    if close == 0:
        return 0, 0, 0
    p = skip_space(abs(close) + 1, end)
    if p >= end or load_byte(p) != _COLON:
        return 0, 0, 0
    p = skip_space(p + 1, end)
    return name, max(close - name, -1), p if p < end else 0


@compiled
def _skip_scalar(p: int, end: int) -> int:
    """Behind the valid string, finite number, true, false or null at p; 0 if there is none."""
    byte = load_byte(p)
    if byte == QUOTE:
        close = string_end(p + 1, end)
        return abs(close) + 1 if close != 0 else 0
    if byte == _MINUS or _ZERO <= byte <= _NINE:
        p, _, _, digits, _, exponent = number_parts(p, end)
        return p if digits <= _SKIPPED_DIGITS and -_SKIPPED_EXPONENT <= exponent <= _SKIPPED_EXPONENT else 0
    if byte == _FALSE:
        return p + 5 if load_word(p + 1) & _FOUR_BYTES == _WORD_ALSE else 0
    word = load_word(p) & _FOUR_BYTES
    return p + 4 if word in (_WORD_TRUE, _WORD_NULL) else 0


@compiled
def _skip_value(p: int, end: int) -> int:
    """Behind the valid JSON value at p, or 0."""
    depth = 0
    objects = uint64(0)  # bit i: is the i-th bracket, counted from the inside, that of an object
    while True:
        p = skip_space(p, end)
        if p >= end:
            return 0
        byte = load_byte(p)
        if byte in (_OPEN_OBJECT, _OPEN_ARRAY):
            depth += 1
            if depth > MOST_NESTED:
                return 0
            objects = (objects << uint64(1)) | uint64(byte == _OPEN_OBJECT)
            p = skip_space(p + 1, end)
            if p >= end:
                return 0
            if load_byte(p) != byte + 2:  # the closing bracket's code
                if byte == _OPEN_OBJECT:
                    _, _, p = _read_name(p, end)
                    if p == 0:
                        return 0
                continue
        else:
            p = _skip_scalar(p, end)
            if p == 0:
                return 0
        while depth > 0:
            p = skip_space(p, end)
            if p >= end:
                return 0
            byte = load_byte(p)
            p += 1
            if byte == _COMMA:
                if objects & uint64(1):
                    _, _, p = _read_name(p, end)
                    if p == 0:
                        return 0
                break
            if byte != (_CLOSE_OBJECT if objects & uint64(1) else _CLOSE_ARRAY):
                return 0
            objects >>= uint64(1)
            depth -= 1
        if depth == 0:
            return p


@compiled("boolean(Array(uint8, 1, 'C', readonly=True), int64)")
def nests_deeper(text: NDArray[np.uint8], limit: int) -> bool:
    """Whether more than `limit` brackets and braces are open at once anywhere in JSON text, valid or not."""
    depth = 0
    quoted = escaped = False
    for byte in text:
        if quoted:
            quoted = escaped or byte != QUOTE
            escaped = not escaped and byte == BACKSLASH
        elif byte == QUOTE:
            quoted = True
        elif byte in (_OPEN_OBJECT, _OPEN_ARRAY):
            depth += 1
            if depth > limit:
                return True
        elif byte in (_CLOSE_OBJECT, _CLOSE_ARRAY):
            depth -= 1
    return False


# --------------------------------------------------------------------------------------------------------------- inputs


@embedded
def _read_number(p: int, end: int, x: int, nulls: bool) -> int:
    """Put the float64 nearest to the JSON number at p to address x, NaN for null if `nulls`; where it ends, or 0 to
    hand on.
    """
    if nulls and p + 4 <= end and load_word(p) & _FOUR_BYTES == _WORD_NULL:
        store_real(x, np.nan)
        return p + 4
    p, negative, mantissa, digits, behind, exponent = number_parts(p, end)
    if p == 0 or digits > MOST_DIGITS:
        return 0
    if negative and mantissa == uint64(0):  # integer -0 is 0, other forms are -0.0: rare enough to hand on
        return 0
    real = nearest(mantissa, exponent - behind, negative)
    store_real(x, real)
    return p if np.isfinite(real) else 0


@compiled
def _read_array(p: int, end: int, x: int, inputs: int, nulls: bool) -> int:
    """Fill the `inputs` float64 at x from the array of as many numbers at p, behind its bracket; its end or 0."""
    for i in range(inputs):
        p = skip_space(p, end)
        if p >= end:
            return 0
        p = _read_number(p, end, x + 8 * i, nulls)
        if p == 0:
            return 0
        p = skip_space(p, end)
        if p >= end or load_byte(p) != (_COMMA if i + 1 < inputs else _CLOSE_ARRAY):
            return 0
        p += 1
    return p


@compiled
def _read_by_name(
    p: int, end: int, x: int, inputs: int, nulls: bool, tree: int, node: int, seen: int, mark: int
) -> int:
    """Fill the `inputs` float64 at x from the object at p, behind its brace, that has each once; its end or 0."""
    found = 0
    while True:
        name, length, p = _read_name(p, end)
        if p == 0 or length < 0:
            return 0
        child = _find_child(tree, node, name, length)
        if child == _NO_CHILD:
            p = _skip_value(p, end)
        elif load_field(seen, child) == mark:
            return 0
        else:
            store_field(seen, child, mark)
            found += 1
            p = _read_number(p, end, x + 8 * load_field(tree, child + RANK), nulls)
        if p == 0:
            return 0
        p = skip_space(p, end)
        if p >= end:
            return 0
        byte = load_byte(p)
        p += 1
        if byte == _CLOSE_OBJECT:
            return p if found == inputs else 0
        if byte != _COMMA:
            return 0


# --------------------------------------------------------------------------------------------------------------- events


@embedded
def _read_stream(p: int, end: int) -> tuple[int, int, int]:
    """The string or integer at p as a stream id: where the value ends (0: hand on), where the id begins, its length."""
    if load_byte(p) == QUOTE:
        close = string_end(p + 1, end)
        return close + 1 if close > p + 1 else 0, p + 1, close - p - 1
    close, negative, mantissa, digits, _, _ = number_parts(p, end)
    length = digits + negative
    plain = close - p == length and digits < MOST_DIGITS and not (negative and mantissa == uint64(0))
    return close if plain else 0, p, length


@embedded
def _scan_event(
    p: int, end: int, x: int, inputs: int, nulls: bool, tree: int, seen: int, mark: int, decimals: int
) -> tuple[bool, int, int, bool, int]:
    """Read the event at p: whether it was read to its end, inputs included; address (0: none) and length of the stream
    id; whether there was a time, and the time. The inputs are put to x.

    Of the fields of one role the one with the lowest rank counts, wherever it stands. `seen` is the address of
    as many words as the nodes have; a node's first holds `mark` when its name has occurred.
    """
    stream, stream_length, stream_rank = 0, 0, _UNSEEN
    time, time_rank, x_rank = 0, _UNSEEN, _UNSEEN
    hand_on = (False, 0, 0, False, 0)
    p = skip_space(p, end)
    if p >= end or load_byte(p) != _OPEN_OBJECT:
        return hand_on
    node, p = int64(0), p + 1
    opened = True  # only behind an opening brace may the closing one stand where a name is expected
    while True:
        p = skip_space(p, end)
        if opened and p < end and load_byte(p) == _CLOSE_OBJECT:
            opened = False
        else:
            name, length, p = _read_name(p, end)
            if p == 0 or length < 0:
                return hand_on
            child = _find_child(tree, node, name, length)
            byte = load_byte(p)
            role, rank = INNER, _UNSEEN
            if child != _NO_CHILD:
                if load_field(seen, child) == mark:
                    return hand_on
                store_field(seen, child, mark)
                role, rank = load_field(tree, child + ROLE), load_field(tree, child + RANK)
            opened = role == INNER and child != _NO_CHILD and byte == _OPEN_OBJECT
            if opened:
                node, p = child, p + 1
                continue
            if role == VALUE and rank < x_rank:
                x_rank = rank
                p = _read_number(p, end, x, nulls)
            elif role == TIME and rank < time_rank:
                time_rank = rank
                p, time = read_date_time(p + 1, end) if byte == QUOTE else read_epoch(p, end, decimals)
            elif role == STREAM and rank < stream_rank:
                stream_rank = rank
                p, stream, stream_length = _read_stream(p, end)
            elif role == VALUES and rank < x_rank:
                x_rank = rank
                if byte == _OPEN_ARRAY:
                    p = _read_array(p + 1, end, x, inputs, nulls)
                elif byte == _OPEN_OBJECT:
                    p = _read_by_name(p + 1, end, x, inputs, nulls, tree, child, seen, mark)
                else:
                    p = 0
            elif role == HAND_ON:
                p = 0
            else:
                p = _skip_value(p, end)
            if p == 0:
                return hand_on
        while True:
            p = skip_space(p, end)
            if p >= end:
                return hand_on
            byte = load_byte(p)
            p += 1
            if byte == _COMMA:
                break
            if byte != _CLOSE_OBJECT:
                return hand_on
            if node == 0:
                whole = skip_space(p, end) == end and x_rank != _UNSEEN
                return whole, stream, stream_length, time_rank != _UNSEEN, time
            node = load_field(tree, node + PARENT)


@compiled(
    "int64(uint8[::1], int64, int64, int64[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64, int64, int64,"
    " int64, boolean, int64[::1], int64[::1], int64[::1], int64[::1], int64[::1], float64[:, ::1], uint8[::1],"
    " int64[::1])"
)
def scan_events(
    payload: NDArray[np.uint8],
    start: int,
    stop: int,
    timestamp: NDArray[np.int64],
    key_at: NDArray[np.int64],
    key_len: NDArray[np.int64],
    value_at: NDArray[np.int64],
    value_len: NDArray[np.int64],
    decimals: int,
    stream_source: int,
    earliest: int,
    latest: int,
    nulls: bool,
    tree: NDArray[np.int64],
    seen: NDArray[np.int64],
    stream_at: NDArray[np.int64],
    stream_len: NDArray[np.int64],
    event_time: NDArray[np.int64],
    x: NDArray[np.float64],
    reason: NDArray[np.uint8],
    handed_on: NDArray[np.int64],
) -> int:
    """Fill stream, event time (epoch ms) and inputs of the rows [start, stop) whose reason is 0.

    Rows for the slower reader are listed in `handed_on` (room for stop - start); returns how many they are. Their
    columns mean nothing yet. `payload` has PADDING bytes behind the last span; a span elsewhere is handed on. One
    second is 10**decimals of the unit of numeric times; times outside [earliest, latest] are handed on. Inputs that are
    null become NaN if `nulls`, else they are handed on. `seen` holds as many zeros as the nodes of `tree` have words,
    and is used up.
    """
    base = int64(payload.ctypes.data)
    within = len(payload) - PADDING
    inputs, x_at = x.shape[1], int64(x.ctypes.data)
    tree_at = int64(tree.ctypes.data)
    seen_at = int64(seen.ctypes.data)
    count = 0
    for row in range(start, stop):
        if reason[row] != 0:
            continue
        at, size = value_at[row], value_len[row]
        good = 0 <= at <= at + size <= within
        if good:
            p = base + at
            good, stream, length, timed, time = _scan_event(
                p, p + size, x_at + 8 * inputs * row, inputs, nulls, tree_at, seen_at, row + 1, decimals
            )
        if good and stream == 0:
            at, length = key_at[row], key_len[row]
            stream = base + at
            good = stream_source != ONLY_FIELD and 0 <= at < at + length <= within and is_utf8(stream, stream + length)
        if good and not timed:
            time = timestamp[row]
            good = time >= 0
        if good and earliest <= time <= latest:
            stream_at[row] = stream - base
            stream_len[row] = length
            event_time[row] = time
        else:
            handed_on[count] = row
            count += 1
    return count
