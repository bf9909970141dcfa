"""Safetensors containers, read strictly.

Layout (safetensors format): uint64 little-endian N, N bytes of JSON header, data. The library checks offsets and
overlaps but takes the last of two equal keys and admits headers of 100 MB; the checks here come before anything is
allocated.
"""

import mmap
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlstm.errors import ModelFileError
from streamlstm.model.limits import MAX_JSON_BYTES, MAX_TENSORS, count_elements, require_file
from streamlstm.model.strict_json import parse_object, type_name
from streamlstm.model.tensors import Tensor

# The name in a header -> (our name, NumPy's little-endian type that holds the bytes).
_DTYPES = {
    "F64": ("float64", "<f8"),
    "F32": ("float32", "<f4"),
    "F16": ("float16", "<f2"),
    "BF16": ("bfloat16", "<u2"),
    "I64": ("int64", "<i8"),
    "I32": ("int32", "<i4"),
    "I16": ("int16", "<i2"),
    "I8": ("int8", "i1"),
    "U64": ("uint64", "<u8"),
    "U32": ("uint32", "<u4"),
    "U16": ("uint16", "<u2"),
    "U8": ("uint8", "u1"),
    "BOOL": ("bool", "u1"),
    "F8_E4M3": ("float8_e4m3", "u1"),
    "F8_E5M2": ("float8_e5m2", "u1"),
}


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name (unread) and the metadata of the header.

    Raises ModelFileError unless the tensors tile the data section exactly, without gap or overlap.
    """
    require_file(path)
    with path.open("rb") as file:
        return parse_safetensors(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), str(path))


def parse_safetensors(content: bytes | mmap.mmap, where: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The same for a container in memory."""
    size = len(content)
    length = int.from_bytes(content[:8], "little")
    most = min(MAX_JSON_BYTES, max(size - 8, 0))
    if size < 8 or length > most:
        problem = "the header does not fit the file"
        expected, found = f"at most {most} bytes", f"{length} bytes"
        raise ModelFileError(f"{where}: header length", problem, expected=expected, found=found)
    header = parse_object(content[8 : 8 + length], f"{where}: header")
    metadata = _metadata(header.pop("__metadata__", None), where)
    if len(header) > MAX_TENSORS:
        raise ModelFileError(
            f"{where}: header", "too many tensors", expected=f"<= {MAX_TENSORS}", found=str(len(header))
        )
    spans: list[tuple[int, int, str]] = []
    tensors = {name: _tensor(name, entry, content, 8 + length, where, spans) for name, entry in header.items()}
    _require_tiling(sorted(spans), size - 8 - length, where)
    return tensors, metadata


def _metadata(entry: object, where: str) -> dict[str, str]:
    if entry is None:
        return {}
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        raise ModelFileError(
            f"{where}: __metadata__", "wrong metadata", expected="an object of strings", found=type_name(entry)
        )
    return entry


def _tensor(
    name: str, entry: object, content: bytes | mmap.mmap, base: int, where: str, spans: list[tuple[int, int, str]]
) -> Tensor:
    place = f"{where}: {name[:200]}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ModelFileError(place, "wrong header entry", expected="dtype, shape, data_offsets", found=_keys(entry))
    dtype = entry["dtype"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise ModelFileError(f"{place}: dtype", "unknown dtype", expected=" ".join(_DTYPES), found=str(dtype)[:40])
    shape = _integers(entry["shape"], f"{place}: shape")
    offsets = _integers(entry["data_offsets"], f"{place}: data_offsets")
    our_name, storage = _DTYPES[dtype]
    length = count_elements(shape, place) * np.dtype(storage).itemsize
    if len(offsets) != 2 or offsets[1] - offsets[0] != length:
        raise ModelFileError(
            f"{place}: data_offsets", "wrong length", expected=f"{length} bytes", found=str(offsets[:4])
        )
    start, stop = offsets
    if start < 0 or stop > len(content) - base:
        found = f"{start} to {stop}"[:120]
        raise ModelFileError(
            f"{place}: data_offsets", "outside the file", expected=f"0 to {len(content) - base}", found=found
        )
    spans.append((start, stop, name))
    return Tensor(place, shape, our_name, partial(_read, content, base + start, storage, shape))


def _read(content: bytes | mmap.mmap, start: int, storage: str, shape: tuple[int, ...]) -> NDArray[Any]:
    count = int(np.prod(shape, dtype=np.int64))
    return np.frombuffer(content, storage, count, start).reshape(shape).astype(np.dtype(storage).newbyteorder("="))


def _integers(value: object, where: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(element) is int for element in value):
        raise ModelFileError(where, "wrong type", expected="an array of integers", found=type_name(value))
    return tuple(value)


def _keys(entry: object) -> str:
    return ", ".join(sorted(entry))[:120] if isinstance(entry, Mapping) else type_name(entry)


def _require_tiling(spans: list[tuple[int, int, str]], total: int, where: str) -> None:
    reached = 0
    for start, stop, name in spans:
        if start != reached:
            problem = "overlaps the tensor before it" if start < reached else "a gap before it"
            raise ModelFileError(
                f"{where}: {name[:200]}: data_offsets", problem, expected=f"start {reached}", found=f"start {start}"
            )
        reached = stop
    if reached != total:
        raise ModelFileError(f"{where}: data", "data section", expected=f"{reached} bytes", found=f"{total} bytes")
