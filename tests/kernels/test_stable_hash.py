"""The marks of a replay against the leaves said plainly. The hash itself is judged in tests/state/test_slots.py."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streamlstm.events.batch import PADDING, Reason
from streamlstm.kernels import stable_hash
from streamlstm.state.slots import stable_hashes


def test_the_kernel_knows_the_reasons_by_number() -> None:
    assert stable_hash.TOMBSTONE == Reason.TOMBSTONE
    assert stable_hash.REPLAYED == Reason.REPLAYED


@given(
    keys=st.lists(st.binary(max_size=12), max_size=30),
    cuts=st.sets(st.integers(1, (1 << 64) - 1), max_size=6),
    data=st.data(),
)
def test_marks(keys: list[bytes], cuts: set[int], data: st.DataObject) -> None:
    n = len(keys)
    firsts = np.array([0, *sorted(cuts)], np.uint64)
    tags = np.array(data.draw(st.lists(st.integers(0, 40), min_size=len(firsts), max_size=len(firsts))), np.int64)
    reasons = data.draw(st.lists(st.sampled_from([0, 0, 0, Reason.TOMBSTONE, Reason.NOT_JSON]), min_size=n, max_size=n))
    start = data.draw(st.integers(0, n))
    text = np.frombuffer(b"".join(keys) + b"\xff" * PADDING, np.uint8)
    length = np.array([len(key) for key in keys], np.int64)
    at, offset, reason = np.cumsum(length) - length, np.arange(n), np.array(reasons, np.uint8)
    hashes = stable_hashes(length, text[: -PADDING or None])
    leaf = np.searchsorted(firsts, hashes, side="right") - 1
    held = (offset < tags[leaf]) & (np.arange(n) >= start)
    expected = np.where(held & (reason == 0), Reason.REPLAYED, reason)
    expected_length = np.where(held & (reason == Reason.TOMBSTONE), 0, length)
    marked = stable_hash.mark_replayed(text, start, n, at, length, offset, reason, firsts, tags)
    np.testing.assert_array_equal(reason, expected)
    np.testing.assert_array_equal(length, expected_length)
    assert marked >= np.count_nonzero(reason == Reason.REPLAYED)
