"""ZIP archives that lie about themselves."""

import struct
import zipfile
from pathlib import Path

import pytest

from streamlstm.errors import ModelFileError
from streamlstm.model.zip_file import ZipArchive

LIMIT = 1 << 20


def write(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytearray:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return bytearray(path.read_bytes())


def refused(path: Path, content: bytes, read: str | None = None) -> str:
    path.write_bytes(content)

    def attempt() -> None:
        archive = ZipArchive(path)
        if read is not None:
            archive.read(read, LIMIT)

    with pytest.raises(ModelFileError) as error:
        attempt()
    return str(error.value)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_plain_archives_are_read(method: int, tmp_path: Path) -> None:
    members = {"a": b"", "b/c": b"text" * 1000, "d": bytes(range(256)) * 40}
    write(tmp_path / "z", members, method)
    archive = ZipArchive(tmp_path / "z")
    assert {name: archive.read(name, LIMIT) for name in archive.members} == members


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/../../b", "..\\a", "a/.."])
def test_names_that_lead_outside(name: str, tmp_path: Path) -> None:
    write(tmp_path / "z", {"x": b"1"})
    with zipfile.ZipFile(tmp_path / "z", "w") as file:
        file.writestr(zipfile.ZipInfo(name), b"1")
    assert "leads outside" in refused(tmp_path / "z", (tmp_path / "z").read_bytes())


def test_two_members_of_one_name(tmp_path: Path) -> None:
    content = write(tmp_path / "z", {"aaaa": b"1", "bbbb": b"2"})
    assert "two members" in refused(tmp_path / "z", content.replace(b"bbbb", b"aaaa"))


@pytest.mark.parametrize(("method", "at", "value"), [(0, 8, 1), (0, 10, 14), (0, 10, 9), (8, 10, 0)])
def test_encryption_and_other_methods(method: int, at: int, value: int, tmp_path: Path) -> None:
    content = write(tmp_path / "z", {"a": b"text" * 100}, method)
    content[content.rindex(b"PK\x01\x02") + at] = value
    assert "odd entry" in refused(tmp_path / "z", content)


@pytest.mark.parametrize(
    ("signature", "at", "form", "value", "word"),
    [
        (b"PK\x05\x06", 8, "<H", 2, "end record"),
        (b"PK\x05\x06", 10, "<H", 2, "end record"),
        (b"PK\x05\x06", 12, "<I", 1 << 31, "odd sizes"),
        (b"PK\x05\x06", 16, "<I", 1 << 31, "odd sizes"),
        (b"PK\x05\x06", 16, "<I", 1, "broken entry"),
        (b"PK\x05\x06", 4, "<H", 1, "end record"),
        (b"PK\x05\x06", 20, "<H", 3, "end record"),
        (b"PK\x01\x02", 28, "<H", 0xFFFF, "broken entry"),
        (b"PK\x01\x02", 16, "<I", 1, "CRC"),
        (b"PK\x01\x02", 42, "<I", 1 << 30, "outside the file"),
        (b"PK\x01\x02", 42, "<I", 3, "outside the file"),
        (b"PK\x03\x04", 28, "<H", 0xFFFF, "outside the file"),
    ],
)
def test_fields_that_lie(signature: bytes, at: int, form: str, value: int, word: str, tmp_path: Path) -> None:
    content = write(tmp_path / "z", {"a": b"text"})
    struct.pack_into(form, content, content.rindex(signature) + at, value)
    assert word in refused(tmp_path / "z", content, "a")


@pytest.mark.parametrize("size", [3, 5, 1 << 31, 0xFFFFFFFF])
def test_a_deflated_member_of_another_size(size: int, tmp_path: Path) -> None:
    content = write(tmp_path / "z", {"a": b"text"}, zipfile.ZIP_DEFLATED)
    struct.pack_into("<I", content, content.rindex(b"PK\x01\x02") + 24, size)
    refused(tmp_path / "z", content, "a")


def test_a_bomb_is_not_inflated(tmp_path: Path) -> None:
    content = write(tmp_path / "z", {"a": b"\0" * (64 << 20)}, zipfile.ZIP_DEFLATED)
    (tmp_path / "z").write_bytes(content)
    with pytest.raises(ModelFileError, match="inflates too far"):
        ZipArchive(tmp_path / "z").read("a", 1 << 30)


def test_a_zip64_record_that_says_something_else(tmp_path: Path) -> None:
    content = write(tmp_path / "z", {"a": b"text"})
    end = content.rindex(b"PK\x05\x06")
    count, size, start = struct.unpack_from("<HII", content, end + 10)
    for claimed in (count, count + 1):
        record = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, claimed, claimed, size, start)
        locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
        both = bytes(content[:end]) + record + locator + bytes(content[end:])
        if claimed == count:
            (tmp_path / "z").write_bytes(both)
            assert ZipArchive(tmp_path / "z").read("a", LIMIT) == b"text"
        else:
            assert "ZIP64" in refused(tmp_path / "z", both)


def test_cut_anywhere(tmp_path: Path) -> None:
    content = bytes(write(tmp_path / "z", {"a": b"text" * 10, "b": b"x"}))
    for length in range(1, len(content)):
        refused(tmp_path / "cut", content[:length])
