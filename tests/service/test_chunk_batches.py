"""Chunks go out together, as many as make up the largest record that their topic must take."""

from streamlstm.engine.checkpoint import Records
from streamlstm.service.pipeline import _together
from streamlstm.transport.record_batches import RECORD_FRAME_BYTES, encode_batch


def chunks(*sizes: int | None) -> Records:
    return [(b"%05d" % k, None if size is None else bytes(size)) for k, size in enumerate(sizes)]


def test_few_small_chunks_are_one_batch() -> None:
    given = chunks(100, None, 200, 0)
    assert list(_together(given, 1000)) == [given]
    assert not list(_together([], 1000))


def test_no_batch_is_larger_than_the_largest_chunk_may_be() -> None:
    given = chunks(300, 400, 500, 5000, None, 100, 900)
    found = list(_together(given, 1000))
    assert [record for batch in found for record in batch] == given
    assert [len(batch) for batch in found] == [2, 1, 1, 2, 1]
    for batch in found:
        largest = max(len(key) + len(value or b"") for key, value in batch)
        assert len(encode_batch(batch, 0)) <= max(1000, largest + RECORD_FRAME_BYTES) + RECORD_FRAME_BYTES
