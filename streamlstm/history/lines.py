"""JSON lines to a history, by the decoder of the daemon: each line is a record's value, the file's name its key."""

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from streamlstm.errors import BadDataError
from streamlstm.events.batch import EventBatch
from streamlstm.events.decode import JsonDecoder
from streamlstm.events.fields import FieldPaths
from streamlstm.events.lines import NEWLINE, append_lines, line_spans
from streamlstm.history.collector import Collector

BLOCK_BYTES = 4 << 20
MOST_LINE_BYTES = 64 << 20
NO_TIMESTAMP = -1
"""A line without a time has none: its record's timestamp stands for no time that an event may have."""

_BOM = b"\xef\xbb\xbf"


def read_lines(collector: Collector, file: BinaryIO, where: str, stream: str, fields: FieldPaths) -> None:
    """Add every line of `file` to `collector`; `stream` is the key of lines that name no stream.

    Raises BadDataError for a line of more than MOST_LINE_BYTES, and for a file that is one JSON array.
    """
    decoder = JsonDecoder(fields, lets_missing=collector.rules.keep_missing)
    batch = EventBatch(len(fields.inputs), np.zeros(0, np.uint8), 1024)
    collector.begin_source(where)
    before, unnamed = 0, 0
    for block in _blocks(file, where):
        if before == 0 and block.lstrip().startswith(b"["):
            raise BadDataError(f"{where}: expected one JSON object per line, found an array")
        starts, lengths = line_spans(block)
        batch.clear()
        append_lines(batch, block, starts, lengths, where, 0, 0)
        newlines = np.flatnonzero(np.frombuffer(block, np.uint8) == NEWLINE)
        batch.offset[: batch.n] = before + 1 + np.searchsorted(newlines, starts)
        before += len(newlines)
        batch.timestamp[: batch.n] = NO_TIMESTAMP
        key = batch.append_payload(stream.encode("utf-8", "replace"))
        batch.key_at[: batch.n], batch.key_len[: batch.n] = key, batch.payload_used - key
        decoder.decode(batch, 0, batch.n)
        unnamed += int((batch.stream_at[: batch.n] == key).sum())
        collector.add(batch)
    if unnamed:
        collector.report.note(f"{where}: {unnamed:,} rows name no stream; they were taken for stream {stream}")


def _blocks(file: BinaryIO, where: str) -> Iterator[bytes]:
    """Blocks of whole lines, each ending in a newline, without the byte order mark that some put in front."""
    first = True
    parts: list[bytes] = []
    size = 0
    while block := file.read(BLOCK_BYTES):
        if first:
            block, first = block.removeprefix(_BOM), False
        cut = block.rfind(b"\n") + 1
        if cut:
            yield b"".join((*parts, block[:cut]))
            parts, size = [], 0
        parts.append(block[cut:])
        size += len(block) - cut
        if size > MOST_LINE_BYTES:
            raise BadDataError(f"{where}: expected lines of {MOST_LINE_BYTES:,} bytes at most, found a longer one")
    if size:
        yield b"".join((*parts, b"\n"))
