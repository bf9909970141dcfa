"""The seam to pyarrow, which the extra `train` installs: it is imported when the first table is read."""

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlstm.errors import UsageError
from streamlstm.events.batch import EventBatch
from streamlstm.history.cells import Spans

EXTRA = "train"


def load(module: str, where: str) -> Any:
    """`module` of pyarrow, "pyarrow.csv" say, to read `where`. Raises UsageError that names the extra."""
    try:
        return import_module(module)
    except ImportError as error:
        raise UsageError(
            f"{where}: expected pyarrow, which reads CSV and Parquet: pip install 'streamlstm[{EXTRA}]'; found {error}"
        ) from error


def is_text(array_type: Any) -> bool:
    types = load("pyarrow.types", "pyarrow")
    if types.is_dictionary(array_type):
        return is_text(array_type.value_type)
    return bool(types.is_string(array_type) or types.is_large_string(array_type) or types.is_string_view(array_type))


def text_spans(batch: EventBatch, array: Any) -> Spans:
    """Copy the text of an Arrow array of strings behind the payload in use; where its cells stand there."""
    arrow = load("pyarrow", "pyarrow")
    array = array.cast(arrow.large_string())
    n = len(array)
    _, offsets_buffer, bytes_buffer = array.buffers()
    offsets = (
        np.frombuffer(offsets_buffer, np.int64)[array.offset : array.offset + n + 1] if n else np.zeros(1, np.int64)
    )
    text = memoryview(bytes_buffer if bytes_buffer is not None else b"")[int(offsets[0]) : int(offsets[-1])]
    at = batch.append_payload(text) + offsets[:-1] - offsets[0]
    length = np.diff(offsets)
    if array.null_count:
        null = array.is_null().to_numpy(zero_copy_only=False)
        at[null], length[null] = -1, 0
    return Spans(at, length)


def reals(array: Any) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Numbers of any type as float64 [n], and which of them are null."""
    arrow = load("pyarrow", "pyarrow")
    null = array.is_null().to_numpy(zero_copy_only=False)
    return array.cast(arrow.float64(), safe=False).to_numpy(zero_copy_only=False), null


def integers(array: Any) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Integers, or what is stored as such (times, dates), as int64 [n]; and which of them are null or don't fit."""
    arrow = load("pyarrow", "pyarrow")
    null = array.is_null().to_numpy(zero_copy_only=False)
    if arrow.types.is_date32(array.type):
        array = array.cast(arrow.int32())
    if arrow.types.is_uint64(array.type):
        numbers = array.fill_null(0).to_numpy(zero_copy_only=False)
        return numbers.astype(np.int64), null | (numbers > np.uint64(1 << 62))
    return array.cast(arrow.int64()).fill_null(0).to_numpy(zero_copy_only=False), null
