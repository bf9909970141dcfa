"""Files as their decompressed bytes, read with a look at how far they are and an error that names them."""

import gzip
import io
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from streamlstm.errors import BadDataError, InputMissingError

Progress = Callable[[int], None]
"""Told of the bytes of the files (compressed, where they are) read since the last time."""

BUFFER_BYTES = 1 << 20
STDIN = "-"

_ZSTD_BYTES = 4096  # at a time, as they may become thousands of times as many
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
PACKED = (_GZIP, _ZSTD)
"""First bytes of what is compressed."""


def open_source(path: str, progress: Progress) -> io.BufferedReader:
    """The decompressed bytes of the file at `path` (gzip and zstd are known by their first bytes), or standard input
    for "-". Raises InputMissingError; reading raises BadDataError where what is compressed is cut off or damaged.
    """
    if path == STDIN:
        return io.BufferedReader(_Checked(sys.stdin.buffer, sys.stdin.buffer, "stdin", progress), BUFFER_BYTES)
    try:
        file = Path(path).open("rb")  # noqa: SIM115 - _Checked closes it
        head = file.peek(4)[:4]
    except OSError as error:
        raise InputMissingError(f"{path}: cannot be read: {error.strerror}") from error
    inner: Any = file
    if head.startswith(_GZIP):
        inner = gzip.GzipFile(fileobj=file)
    elif head == _ZSTD:
        inner = _Zstd(file)
    return io.BufferedReader(_Checked(inner, file, path, progress), BUFFER_BYTES)


class _Checked(io.RawIOBase):
    """Reads `inner` and tells of the bytes that this took from `file`."""

    def __init__(self, inner: Any, file: BinaryIO, where: str, progress: Progress) -> None:
        self._inner, self._file, self._where, self._progress = inner, file, where, progress
        self._told = 0
        self._seekable = file.seekable()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            block: bytes | memoryview = getattr(self._inner, "read1", self._inner.read)(len(buffer))
        except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
            raise BadDataError(f"{self._where}: its compressed bytes are cut off or damaged: {error}") from error
        except OSError as error:
            raise InputMissingError(f"{self._where}: cannot be read: {error.strerror}") from error
        buffer[: len(block)] = block
        at = self._file.tell() if self._seekable else self._told + len(block)
        self._progress(at - self._told)
        self._told = at
        return len(block)

    def close(self) -> None:
        if not self.closed and self._file is not sys.stdin.buffer:
            self._inner.close()
            self._file.close()
        super().close()


class _Zstd:
    """Frames of zstd, one after the other; unlike zstandard's own reader it doesn't take a cut for the end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._within = False  # a frame
        self._given = b""
        self._block = memoryview(b"")

    def read(self, size: int) -> memoryview:
        while not self._block:
            self._given = self._given or self._file.read(_ZSTD_BYTES)
            if not self._given:
                if self._within:
                    raise EOFError("the end of a zstd frame is missing")
                break
            self._block = memoryview(self._frame.decompress(self._given))
            self._within, self._given = not self._frame.eof, self._frame.unused_data
            if not self._within:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
        block, self._block = self._block[:size], self._block[size:]
        return block

    def close(self) -> None:
        """What is read belongs to the caller."""
