"""`streamlstm state export`: the state of all streams, for people and for NumPy."""

from collections.abc import Iterator

import numpy as np
import orjson

from streamlstm.service.stream_columns import Columns, json_rows, keys_of
from streamlstm.service.whole_file import open_whole
from streamlstm.state.snapshot import Chunk, Leaf

Chunks = Iterator[tuple[Leaf, Chunk, Columns]]


def write_lines(path: str, chunks: Chunks) -> int:
    """A JSON line for each stream, to a file or to standard output for "-"; returns how many."""
    count = 0
    with open_whole(path) as file:
        for leaf, chunk, columns in chunks:
            header = chunk.header
            where = {
                "partition": header.partition,
                "chunk": leaf.key.decode(),
                "offset": header.offset,
                "model": header.model,
                "degraded": header.degraded,
            }
            for stream, row in zip(keys_of(chunk), json_rows(columns), strict=True):
                line = {"stream": stream, **where, **row}
                file.write(orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE))
            count += header.streams
    return count


def write_arrays(path: str, chunks: Chunks) -> int:
    """stream, partition, offset and the columns, as arrays of a .npz file; all in memory before. Returns how many."""
    found: dict[str, list[np.ndarray]] = {}
    for _, chunk, columns in chunks:
        header = chunk.header
        full: Columns = {
            "stream": np.array(keys_of(chunk), dtype=np.str_),
            "partition": np.full(header.streams, header.partition, np.int32),
            "offset": np.full(header.streams, header.offset, np.int64),
            **columns,
        }
        for name, column in full.items():
            found.setdefault(name, []).append(column.copy())
    arrays = {name: np.concatenate(parts) for name, parts in found.items()}
    with open_whole(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    return len(arrays.get("stream", ()))
