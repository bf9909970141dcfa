"""Files in place of topics: JSON lines as they come, and where answers go.

Everything after this room is the daemon's own path, so a file gives the bytes that Kafka would have given.
"""

import sys
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from streamlstm.errors import InputMissingError

CHUNK_BYTES = 4 << 20


@contextmanager
def open_output(path: str) -> Iterator[BinaryIO]:
    """The file at `path`, created or replaced, or standard output for "-". Raises InputMissingError."""
    if path == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        file = Path(path).open("wb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise InputMissingError(f"{path}: cannot be written: {error.strerror}") from error
    with file:
        yield file


def read_lines(file: BinaryIO, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
    """Blocks of whole lines, each block ending in a newline; the last line may come without one. The byte order mark
    that some put in front is left out.

    Yields what has arrived rather than wait for a full block, so that a live pipe is served as it flows.
    """
    rest, block = b"", _read_some(file, chunk_bytes)
    while len(block) < len(BOM_UTF8) and BOM_UTF8.startswith(block) and (more := _read_some(file, chunk_bytes)):
        block += more
    if block.startswith(BOM_UTF8):
        block = block[len(BOM_UTF8) :] or _read_some(file, chunk_bytes)
    while block:
        cut = block.rfind(b"\n") + 1
        if cut:
            yield rest + block[:cut]
            rest = block[cut:]
        else:
            rest += block
        block = _read_some(file, chunk_bytes)
    if rest:
        yield rest + b"\n"


def _read_some(file: BinaryIO, size: int) -> bytes:
    read_available = getattr(file, "read1", file.read)
    return bytes(read_available(size))
