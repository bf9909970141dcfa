"""The two containers of `torch.save`, and their storages as tensors.

Zip (since PyTorch 1.6): <name>/data.pkl, <name>/data/<key> with raw elements, <name>/byteorder.
Legacy: four pickles in a row (magic number, protocol version, system, the value), a pickle of storage keys, and for
each key an int64 count of elements and the raw elements.
"""

import io
import mmap
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlstm.errors import ModelFileError
from streamlstm.model.limits import MAX_ELEMENTS, MAX_TENSORS, count_elements, require_file
from streamlstm.model.tensors import Tensor
from streamlstm.model.torch_pickle import MAX_PICKLE_BYTES, read_pickle
from streamlstm.model.torch_values import StorageRef, TensorRef
from streamlstm.model.zip_file import ZipArchive

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001

# dtype -> NumPy's little-endian type that holds an element.
_STORED_AS = {
    "float64": "<f8",
    "float32": "<f4",
    "float16": "<f2",
    "bfloat16": "<u2",
    "int64": "<i8",
    "int32": "<i4",
    "int16": "<i2",
    "int8": "i1",
    "uint8": "u1",
    "bool": "u1",
    "complex64": "<c8",
    "complex128": "<c16",
    "qint8": "i1",
    "quint8": "u1",
    "qint32": "<i4",
}


@dataclass(frozen=True)
class TorchFile:
    """value: what was saved, with a TensorRef for each tensor. read_storage: the raw bytes of a storage."""

    where: str
    value: Any
    read_storage: Callable[[StorageRef], bytes]

    def tensor(self, name: str, ref: TensorRef) -> Tensor:
        """A tensor by its name, its view checked to stay inside its storage. Raises ModelFileError."""
        where = f"{self.where}: {name[:200]}"
        elements = count_elements(ref.shape, where)
        if elements > ref.storage.elements or ref.storage.elements > MAX_ELEMENTS:
            found = f"{elements} elements over a storage of {min(ref.storage.elements, 1 << 63)}"
            raise ModelFileError(where, "shape", expected="a storage that holds every element once", found=found)
        reach = sum((size - 1) * stride for size, stride in zip(ref.shape, ref.strides, strict=True))
        inside = min(ref.strides, default=0) >= 0 and ref.offset >= 0
        if elements and not (inside and ref.offset + reach < ref.storage.elements):
            found = "a view outside it"
            raise ModelFileError(where, "offset and strides", expected=f"{ref.storage.elements} elements", found=found)
        return Tensor(where, ref.shape, ref.storage.dtype, partial(self._read, ref))

    def _read(self, ref: TensorRef) -> NDArray[Any]:
        stored_as = np.dtype(_STORED_AS[ref.storage.dtype])
        flat = np.frombuffer(self.read_storage(ref.storage), stored_as, ref.storage.elements)
        strides = [stride * stored_as.itemsize for stride in ref.strides]
        view = np.lib.stride_tricks.as_strided(flat[ref.offset :], ref.shape, strides, writeable=False)
        return np.array(view, dtype=stored_as.newbyteorder("="), order="C")


def read_zip(path: Path) -> TorchFile:
    """Raises ModelFileError on TorchScript archives, big-endian files and broken archives."""
    archive = ZipArchive(path)
    where = str(path)
    pickles = [name for name in archive.members if name.endswith("data.pkl") and name.count("/") <= 1]
    if any(name.endswith(("/constants.pkl", "/code/__torch__.py")) for name in archive.members):
        raise ModelFileError(
            where,
            "a TorchScript archive, a compiled program; save the weights instead: "
            "torch.save(torch.jit.load('file').state_dict(), 'model.pt')",
            expected="a state_dict written by torch.save",
            found="constants.pkl",
        )
    if len(pickles) != 1:
        found = f"{len(pickles)} in {len(archive.members)} members"
        raise ModelFileError(f"{where}: data.pkl", "not a PyTorch archive", expected="one data.pkl", found=found)
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.members:
        order = archive.read(f"{folder}byteorder", 16)
        if order != b"little":
            raise ModelFileError(f"{where}: byteorder", "byte order", expected="little", found=repr(order))
    content = archive.read(pickles[0], MAX_PICKLE_BYTES)
    value = read_pickle(io.BytesIO(content), f"{where}: {pickles[0][:200]}")
    return TorchFile(where, value, partial(_zip_storage, archive, folder))


def _zip_storage(archive: ZipArchive, folder: str, storage: StorageRef) -> bytes:
    name = f"{folder}data/{storage.key}"
    where = f"{archive.where}: {name[:200]}"
    expected = storage.elements * np.dtype(_STORED_AS[storage.dtype]).itemsize
    if name not in archive.members:
        raise ModelFileError(where, "missing storage", expected=f"{expected} bytes", found="no such member")
    if archive.members[name].size != expected:
        found = f"{archive.members[name].size} bytes"
        raise ModelFileError(where, "size of the storage", expected=f"{expected} bytes", found=found)
    return archive.read(name, expected)


def read_legacy(path: Path) -> TorchFile:
    """Raises ModelFileError unless the file is one that torch before 1.6 wrote, on a little-endian machine."""
    require_file(path)
    where = str(path)
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    reader = _LegacyReader(content, where)
    magic, protocol = reader.next("magic number"), reader.next("protocol version")
    if magic != MAGIC_NUMBER or protocol != PROTOCOL_VERSION:
        found = "a pickle of something else; nothing was run"
        raise ModelFileError(f"{where}: magic number", "not a PyTorch file", expected=f"{MAGIC_NUMBER:#x}", found=found)
    match reader.next("system"):
        case {"little_endian": True}:
            pass
        case _:
            raise ModelFileError(f"{where}: system", "byte order", expected="little_endian: True", found="other")
    value = reader.next("value")
    keys = reader.next("storage keys")
    if not isinstance(keys, list) or len(keys) > MAX_TENSORS or not all(isinstance(key, str) for key in keys):
        found = "something else"
        raise ModelFileError(f"{where}: storage keys", "wrong type", expected="a list of strings", found=found)
    return TorchFile(where, value, partial(reader.storage, _storage_sizes(value), tuple(keys)))


class _LegacyReader:
    def __init__(self, content: mmap.mmap, where: str) -> None:
        self._content = content
        self._where = where
        self._at = 0

    def next(self, part: str) -> Any:
        """The next pickle of the file."""
        stream = io.BytesIO(self._content[self._at : self._at + MAX_PICKLE_BYTES])
        value = read_pickle(stream, f"{self._where}: {part}")
        self._at += stream.tell()
        return value

    def storage(self, sizes: dict[str, int], keys: tuple[str, ...], wanted: StorageRef) -> bytes:
        """Walk the storages in their order, each an int64 count and that many elements, up to the wanted one."""
        at = self._at
        for key in keys:
            count = int.from_bytes(self._content[at : at + 8], "little")
            stop = at + 8 + count * sizes.get(key, 0)
            where = f"{self._where}: storage {key[:60]}"
            if key not in sizes or stop > len(self._content):
                found = f"{count} elements with {len(self._content) - at} bytes left"
                raise ModelFileError(where, "storage outside the file", expected="a storage of the value", found=found)
            if key == wanted.key:
                if count != wanted.elements:
                    raise ModelFileError(where, "elements", expected=str(wanted.elements), found=str(count))
                return self._content[at + 8 : stop]
            at = stop
        where = f"{self._where}: storage {wanted.key[:60]}"
        raise ModelFileError(where, "missing storage", expected="a key of the list", found=f"{len(keys)} other keys")


def _storage_sizes(value: Any) -> dict[str, int]:
    """Bytes per element of every storage, by key. Walks plain containers, each object once."""
    sizes: dict[str, int] = {}
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        member = waiting.pop()
        if isinstance(member, TensorRef):
            sizes[member.storage.key] = np.dtype(_STORED_AS[member.storage.dtype]).itemsize
        elif isinstance(member, dict | list | tuple) and id(member) not in seen:
            seen.add(id(member))
            waiting.extend(member.values() if isinstance(member, dict) else member)
    return sizes
