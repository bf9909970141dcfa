"""ZIP archives of unknown origin, read in memory and strictly (PKWARE APPNOTE 6.3, sections 4.3 and 4.4).

Nothing is extracted to disk, so a member's name is only a key. Python's zipfile would parse a central directory of
any size, take the last of two members with one name and inflate without bound; here every size is checked against the
file first.
"""

import mmap
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from streamlstm.errors import ModelFileError
from streamlstm.model.limits import MAX_TENSORS, MIB, require_file

END = struct.Struct("<4sHHHHIIH")
END64_LOCATOR = struct.Struct("<4sIQI")
END64 = struct.Struct("<4sQHHIIQQQQ")
CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
LOCAL = struct.Struct("<4sHHHHHIIIHH")
STORED, DEFLATED = 0, 8
ENCRYPTED = 0x0001
MAX_MEMBERS = 2 * MAX_TENSORS
# A member may inflate to this much, or to this many times its stored size: float weights hardly compress.
FREE_INFLATED_BYTES = 8 * MIB
MAX_INFLATION = 20


@dataclass(frozen=True)
class Member:
    name: str
    method: int
    crc: int
    stored: int
    size: int
    header_at: int


class ZipArchive:
    """The members of an archive by name. Raises ModelFileError on anything that a well-behaved writer doesn't write."""

    def __init__(self, path: Path) -> None:
        require_file(path)
        self.where = str(path)
        with path.open("rb") as file:
            self._content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.members = {member.name: member for member in self._directory()}

    def read(self, name: str, limit: int) -> bytes:
        """Content of a member, checked against its CRC; `limit` in bytes."""
        member = self.members[name]
        where = f"{self.where}: {name[:200]}"
        if member.size > limit:
            raise ModelFileError(where, "member size", expected=f"at most {limit} bytes", found=f"{member.size} bytes")
        if member.size > max(FREE_INFLATED_BYTES, MAX_INFLATION * member.stored):
            found = f"{member.size} from {member.stored} bytes"
            raise ModelFileError(
                where, "member inflates too far", expected=f"at most {MAX_INFLATION} times", found=found
            )
        stored = self._stored(member, where)
        content = stored if member.method == STORED else _inflate(stored, member.size, where)
        if len(content) != member.size:
            raise ModelFileError(where, "size", expected=f"{member.size} bytes", found=f"{len(content)} bytes")
        if zlib.crc32(content) != member.crc:
            found = f"{zlib.crc32(content):08x}"
            raise ModelFileError(
                where, "CRC-32 mismatch, the file is damaged", expected=f"{member.crc:08x}", found=found
            )
        return content

    def _stored(self, member: Member, where: str) -> bytes:
        end = member.header_at + LOCAL.size
        if end <= len(self._content):
            signature, *_, name_length, extra_length = LOCAL.unpack_from(self._content, member.header_at)
            start = end + name_length + extra_length
            if signature == b"PK\x03\x04" and start + member.stored <= len(self._content):
                return self._content[start : start + member.stored]
        found = f"one at byte {member.header_at}"
        raise ModelFileError(where, "member outside the file", expected="a local header inside the file", found=found)

    def _directory(self) -> list[Member]:
        count, size, start = self._end_record()
        members: list[Member] = []
        at = start
        for _ in range(count):
            member, at = self._entry(at, start + size)
            members.append(member)
        if at != start + size:
            raise ModelFileError(
                f"{self.where}: zip directory", "size", expected=f"{size} bytes", found=str(at - start)
            )
        if len({member.name for member in members}) != len(members):
            raise ModelFileError(
                f"{self.where}: zip directory", "two members of one name", expected="unique", found="two"
            )
        return members

    def _end_record(self) -> tuple[int, int, int]:
        """Count of members, size and start of the central directory."""
        content, where = self._content, f"{self.where}: zip directory"
        at = content.rfind(b"PK\x05\x06", max(0, len(content) - END.size - 0xFFFF))
        if at < 0 or at + END.size > len(content):
            raise ModelFileError(
                where, "cut off or not a zip archive", expected="an end-of-directory record", found="none"
            )
        _, disk, first_disk, here, count, size, start, comment = END.unpack_from(content, at)
        if (disk, first_disk, here) != (0, 0, count) or at + END.size + comment != len(content):
            raise ModelFileError(where, "odd end record", expected="one disk, nothing after it", found="something else")
        if start + size > at or count > MAX_MEMBERS or size > count * (CENTRAL.size + 1024):
            found = f"{count} members, {size} bytes at {start}"
            raise ModelFileError(where, "odd sizes", expected=f"at most {MAX_MEMBERS} members", found=found)
        self._require_same_zip64(at, (count, size, start))
        return count, size, start

    def _require_same_zip64(self, end_at: int, record: tuple[int, int, int]) -> None:
        """torch writes a ZIP64 end record always; it must say what the plain one says, or readers would differ."""
        at = end_at - END64_LOCATOR.size
        if at < 0 or self._content[at : at + 4] != b"PK\x06\x07":
            return
        record_at = END64_LOCATOR.unpack_from(self._content, at)[2]
        found: tuple[int, ...] = ()
        if record_at + END64.size <= at:
            signature, _, _, _, _, _, _, *found64 = END64.unpack_from(self._content, record_at)
            found = tuple(found64) if signature == b"PK\x06\x06" else ()
        if found != record:
            where = f"{self.where}: zip directory"
            raise ModelFileError(where, "the ZIP64 end record differs", expected=str(record), found=str(found))

    def _entry(self, at: int, stop: int) -> tuple[Member, int]:
        where = f"{self.where}: zip directory"
        if at + CENTRAL.size > stop:
            raise ModelFileError(where, "cut off", expected="a whole entry", found=f"{stop - at} bytes")
        (signature, _, _, flags, method, _, _, crc, stored, size, name_length, extra, comment, _, _, _, header_at) = (
            CENTRAL.unpack_from(self._content, at)
        )
        name_at = at + CENTRAL.size
        end = name_at + name_length + extra + comment
        if signature != b"PK\x01\x02" or end > stop:
            raise ModelFileError(where, "broken entry", expected="a directory entry", found=f"other bytes at {at}")
        name = self._content[name_at : name_at + name_length].decode("utf-8", "backslashreplace")
        if "\0" in name or name.startswith("/") or ".." in name.replace("\\", "/").split("/"):
            problem = "a member's name that leads outside"
            raise ModelFileError(
                f"{where}: {name[:200]}", problem, expected="a name inside the archive", found="another"
            )
        if flags & ENCRYPTED or method not in (STORED, DEFLATED) or (method == STORED and stored != size):
            found = f"method {method}, flags {flags:#x}, {stored} of {size} bytes"
            raise ModelFileError(f"{where}: {name[:200]}", "odd entry", expected="stored or deflated", found=found)
        return Member(name, method, crc, stored, size, header_at), end


def _inflate(stored: bytes, size: int, where: str) -> bytes:
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = engine.decompress(stored, size + 1)
    except zlib.error as error:
        raise ModelFileError(where, "broken deflate stream", expected="deflated bytes", found=str(error)) from None
    if not engine.eof or engine.unused_data:
        raise ModelFileError(where, "deflate stream", expected=f"an end after {size} bytes", found="no end there")
    return content
