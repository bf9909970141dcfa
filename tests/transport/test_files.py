"""Lines from files, as they come."""

import io
import os
import threading
from pathlib import Path

import pytest

from streamlstm.errors import InputMissingError
from streamlstm.transport.files import open_output, read_lines


def test_lines_come_whole_and_as_they_arrive() -> None:
    assert b"".join(read_lines(io.BytesIO(b"a\nb\nc"), chunk_bytes=2)) == b"a\nb\nc\n"
    assert all(block.endswith(b"\n") for block in read_lines(io.BytesIO(b"abcdef\ngh\n" * 50), chunk_bytes=3))
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as source:
        os.write(writer, b"first\nsec")
        blocks = read_lines(source)
        assert next(blocks) == b"first\n"  # while the writer still has the pipe open
        threading.Timer(0.05, lambda: (os.write(writer, b"ond\n"), os.close(writer))).start()
        assert b"".join(blocks) == b"second\n"


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_a_byte_order_mark_in_front_is_left_out(chunk: int) -> None:
    def read(content: bytes) -> bytes:
        return b"".join(read_lines(io.BytesIO(content), chunk))

    assert read(b"\xef\xbb\xbf{}\n\xef\xbb\xbf{}\n") == b"{}\n\xef\xbb\xbf{}\n"
    assert read(b"\xef\xbb") == b"\xef\xbb\n"
    assert read(b"\xef\xbb\xbf") == b""
    assert read(b"") == b""


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="cannot be written"), open_output(str(tmp_path)):
        pass
