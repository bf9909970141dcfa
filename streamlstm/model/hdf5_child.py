"""The program that reads one HDF5 file with h5py, in a process of its own (`hdf5_file` starts it).

The HDF5 library can crash on a damaged file; here it takes nothing with it. The file's text attributes, groups and
plain datasets come back as safetensors on stdout; a refusal is its message on stderr and exit code 65.

Refused before anything is read: soft and external links, groups linked twice, virtual datasets, datasets whose bytes
live in another file, filters that load a plugin, chunks that inflate without bound, shapes larger than what is stored.
"""

import io
import json
import math
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py  # type: ignore[import-untyped]
import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from streamlstm.errors import ModelFileError
from streamlstm.model.fields import brief
from streamlstm.model.limits import MAX_JSON_BYTES, MAX_TENSORS, MIB, count_elements
from streamlstm.model.tensors import Tensor

MAX_HDF5_BYTES = 1024 * MIB
MAX_DEPTH = 16
MAX_CHUNK_BYTES = 16 * MIB
# Compressed chunks may inflate to this much, or to this many times what is stored.
FREE_INFLATED_BYTES = 8 * MIB
MAX_INFLATION = 20
RESERVED = ("@", "__metadata__")  # names that mean something else in what is handed back
ATTRIBUTES = ("model_config", "keras_version", "layer_names")
# Groups of no layer, left aside knowingly: optimizer state and metrics.
NOT_WEIGHTS = frozenset({"optimizer", "optimizer_weights", "metrics", "compile_metrics", "loss_tracker", "_metrics"})
CPU_SECONDS = 10
FREE_BYTES = 192 * MIB
COPIES = 6  # of the file's content in memory at once, with room to spare
MAX_TEXT_BYTES = 128 * MIB  # count of strings times the size of the file: no attribute can repeat its way past it


class Hdf5File:
    """An open file. Every method raises ModelFileError; tensors are to be read before it is closed."""

    def __init__(self, source: Path | bytes, where: str) -> None:
        self.where = where
        self._size = len(source) if isinstance(source, bytes) else source.stat().st_size
        if self._size > MAX_HDF5_BYTES:
            raise ModelFileError(where, "size", expected=f"at most {MAX_HDF5_BYTES} bytes", found=f"{self._size} bytes")
        with self._translated(where):
            self._file = h5py.File(io.BytesIO(source) if isinstance(source, bytes) else source, "r")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def walk(self, skip: frozenset[str] = frozenset()) -> tuple[dict[str, Tensor], list[str]]:
        """Every dataset, unread, and every group, by path; members of the root named in `skip` are left out.

        Backslashes count as separators: Keras on Windows writes them into names.
        """
        tensors: dict[str, Tensor] = {}
        groups: list[str] = []
        visited: set[Any] = set()
        waiting = [""]
        while waiting:
            at = waiting.pop()
            with self._translated(f"{self.where}: {at[:200]}"):
                self._visit(at, visited)
                for name in self._members(at):
                    if not at and name in skip:
                        continue
                    below = f"{at}/{name}".lstrip("/")
                    shown = below.replace("\\", "/")
                    member = self._file[below]
                    if isinstance(member, h5py.Group) and not shown.startswith(RESERVED):
                        groups.append(shown)
                        waiting.append(below)
                    elif isinstance(member, h5py.Dataset) and shown not in tensors and not shown.startswith(RESERVED):
                        tensors[shown] = self._tensor(member, f"{self.where}: {below[:200]}")
                    else:
                        self._refuse(below, "an odd member", "groups and datasets", type(member).__name__)
            if len(visited) + len(tensors) > MAX_TENSORS:
                self._refuse(at, "too many members", f"at most {MAX_TENSORS}", "more")
        return tensors, groups

    def texts(self, name: str) -> list[str] | None:
        """A text attribute of the root, or the texts of an array of them; None when there is none."""
        where = f"{self.where}: @{name}"
        with self._translated(where):
            attributes = self._file.attrs
            if name not in attributes:
                return None
            details = attributes.get_id(name)
            shape, dtype = details.shape or (), details.dtype
            count = math.prod(shape)
            if count == 0:
                return []
            if dtype.kind not in "OS" or len(shape) > 1:
                raise ModelFileError(where, "wrong type", expected="text", found=f"{dtype} {shape}"[:80])
            if count * dtype.itemsize > MAX_JSON_BYTES or (count > 1 and count * self._size > MAX_TEXT_BYTES):
                raise ModelFileError(where, "size", expected=f"at most {MAX_JSON_BYTES} bytes", found=f"{count} texts")
            value = attributes[name]
        return [_decoded(element, where) for element in (list(value) if shape else [value])]

    def _members(self, at: str) -> list[str]:
        """Names in a group, each proven to be a hard link."""
        group = self._file[at] if at else self._file
        if len(group) > MAX_TENSORS:
            self._refuse(at, "too many members", f"at most {MAX_TENSORS}", str(len(group)))
        names = [str(name) for name in group]
        for name in names:
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                self._refuse(f"{at}/{name}".lstrip("/"), "a link to elsewhere", "hard links", type(link).__name__)
        return names

    def _visit(self, at: str, visited: set[Any]) -> None:
        """A tree visits a group once; hard links can make loops of them."""
        if at.count("/") >= MAX_DEPTH:
            self._refuse(at, "groups nested too deep", f"at most {MAX_DEPTH} levels", "more")
        address = h5py.h5o.get_info((self._file[at] if at else self._file).id).addr
        if address in visited:
            self._refuse(at, "a group linked twice", "a tree", "a second link to it")
        visited.add(address)

    def _tensor(self, dataset: Any, where: str) -> Tensor:
        dtype, shape = dataset.dtype, dataset.shape
        if shape is None or dtype.kind not in "fiub":
            raise ModelFileError(where, "wrong dataset", expected="an array of floats", found=str(dtype)[:60])
        elements = count_elements(shape, where)
        creation = dataset.id.get_create_plist()
        if dataset.is_virtual or creation.get_external_count():
            raise ModelFileError(where, "bytes kept elsewhere", expected="bytes in this file", found="external storage")
        filters = {creation.get_filter(k)[0] for k in range(creation.get_nfilters())}
        known = {1, 2, 3}  # deflate, shuffle, fletcher32: built into HDF5, everything else may load a plugin
        if not filters <= known:
            raise ModelFileError(
                where, "filter", expected="none, gzip, shuffle or fletcher32", found=str(sorted(filters))
            )
        if dataset.chunks and count_elements(dataset.chunks, where) * dtype.itemsize > MAX_CHUNK_BYTES:
            raise ModelFileError(where, "chunk size", expected=f"<= {MAX_CHUNK_BYTES} bytes", found=str(dataset.chunks))
        size, stored = elements * dtype.itemsize, dataset.id.get_storage_size()
        least = size if not filters else 0 if size <= FREE_INFLATED_BYTES else size // MAX_INFLATION
        if stored < max(least, min(size, 1)):
            raise ModelFileError(where, "shape larger than what is stored", expected=f"{size} bytes", found=f"{stored}")
        name = str(dtype.newbyteorder("=").name)
        return Tensor(where, tuple(int(n) for n in shape), name, partial(self._read, dataset, where))

    def _read(self, dataset: Any, where: str) -> NDArray[Any]:
        with self._translated(where):
            array: NDArray[Any] = np.asarray(dataset[()])
        return array.astype(array.dtype.newbyteorder("="), copy=False)

    def _refuse(self, at: str, problem: str, expected: str, found: str) -> None:
        raise ModelFileError(f"{self.where}: {at[:200] or '/'}", problem, expected=expected, found=found)

    @contextmanager
    def _translated(self, where: str) -> Iterator[None]:
        """h5py reports a damaged file as any of these."""
        try:
            yield
        except (
            OSError,
            RuntimeError,
            KeyError,
            ValueError,
            TypeError,
            AttributeError,
            MemoryError,
            OverflowError,
        ) as error:
            found = str(error)[:160]
            raise ModelFileError(where, "damaged HDF5", expected="a readable HDF5 file", found=found) from None


def _decoded(value: object, where: str) -> str:
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogateescape")  # h5py's stand-in for bytes that aren't UTF-8
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            raise ModelFileError(where, "text", expected="UTF-8", found="other bytes") from None
    raise ModelFileError(where, "wrong type", expected="text", found=brief(value))


def contents(source: Path | bytes, where: str) -> bytes:
    """What a Keras file is read for, as safetensors: datasets by path, `@name` for texts and `@groups`, both JSON in
    bytes.
    """
    with Hdf5File(source, where) as file:
        texts = {f"@{name}": found for name in ATTRIBUTES if (found := file.texts(name)) is not None}
        tensors, groups = file.walk(skip=NOT_WEIGHTS)
        arrays = {name: tensor.read() for name, tensor in tensors.items()}
    for name, value in {**texts, "@groups": groups}.items():
        arrays[name] = np.frombuffer(json.dumps(value).encode(), np.uint8)
    return safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in arrays.items()})


def limit_resources(size: int) -> None:
    """No core dump, little more memory than now, little processor time: a damaged file can ask for anything."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
    statm = Path("/proc/self/statm")
    if statm.exists():
        mapped = int(statm.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        wanted = mapped + FREE_BYTES + COPIES * size
        resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def main(where: str, path: str) -> int:
    """`path` is the file, or - for its content on stdin."""
    source: Path | bytes = sys.stdin.buffer.read() if path == "-" else Path(path)
    limit_resources(len(source) if isinstance(source, bytes) else source.stat().st_size)
    try:
        found = contents(source, where)
    except ModelFileError as error:
        sys.stderr.write(str(error))
        return error.exit_code
    sys.stdout.buffer.write(found)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
