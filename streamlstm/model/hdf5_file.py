"""HDF5 files of unknown origin: plain datasets of floats and short text attributes, nothing that leads elsewhere.

Refused before anything is read: soft and external links, groups linked twice, virtual datasets, datasets whose bytes
live in another file, filters that load a plugin, chunks that inflate without bound, shapes larger than what is stored.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
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
MAX_TEXT_BYTES = 128 * MIB  # count of strings times the size of the file: no attribute can repeat its way past it


class Hdf5File:
    """An open file. Every method raises ModelFileError; tensors are to be read before it is closed."""

    def __init__(self, source: Path | bytes, where: str) -> None:
        h5py = self._h5py = _h5py(where)
        self.where = where
        self._size = len(source) if isinstance(source, bytes) else source.stat().st_size
        if self._size > MAX_HDF5_BYTES:
            raise ModelFileError(where, "size", expected=f"at most {MAX_HDF5_BYTES} bytes", found=f"{self._size} bytes")
        with self._translated(where):
            self._file = h5py.File(io.BytesIO(source) if isinstance(source, bytes) else source, "r")
        self._group, self._dataset, self._hard = h5py.Group, h5py.Dataset, h5py.HardLink

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def walk(self, root: str = "", skip: frozenset[str] = frozenset()) -> tuple[dict[str, Tensor], list[str]]:
        """Every dataset under a group, unread, and every group, by path below it; members of the root named in `skip`
        left out.

        Backslashes count as separators: Keras on Windows writes them into names.
        """
        tensors: dict[str, Tensor] = {}
        groups: list[str] = []
        visited: set[Any] = set()
        waiting = [(root, "", 0)] if not root or root in self._members("") else []
        while waiting:
            at, path, depth = waiting.pop()
            with self._translated(f"{self.where}: {at[:200]}"):
                node = self._file[at] if at else self._file
                self._visit(node, at, depth, visited)
                for name in self._members(at):
                    if depth == 0 and name in skip:
                        continue
                    below = f"{at}/{name}" if at else name
                    shown = f"{path}/{name}".lstrip("/").replace("\\", "/")
                    member = self._file[below]
                    if isinstance(member, self._group):
                        groups.append(shown)
                        waiting.append((below, shown, depth + 1))
                    elif isinstance(member, self._dataset) and shown not in tensors:
                        tensors[shown] = self._tensor(member, f"{self.where}: {below[:200]}")
                    else:
                        self._refuse(below, "an odd member", "groups and datasets", type(member).__name__)
            if len(visited) + len(tensors) > MAX_TENSORS:
                self._refuse(at, "too many members", f"at most {MAX_TENSORS}", "more")
        return tensors, groups

    def text(self, at: str, name: str) -> str | None:
        """A text attribute, None when there is none."""
        found = self._texts(at, name, scalar=True)
        return found[0] if found is not None else None

    def texts(self, at: str, name: str) -> list[str] | None:
        """An attribute that is an array of texts, None when there is none."""
        return self._texts(at, name, scalar=False)

    def has(self, name: str) -> bool:
        return name in self._members("")

    def has_attribute(self, name: str) -> bool:
        """Whether the root has an attribute of this name."""
        with self._translated(self.where):
            return name in self._file.attrs

    def _texts(self, at: str, name: str, scalar: bool) -> list[str] | None:
        where = f"{self.where}: {at}@{name}"
        with self._translated(where):
            attributes = (self._file[at] if at else self._file).attrs
            if name not in attributes:
                return None
            details = attributes.get_id(name)
            shape, dtype = details.shape, details.dtype
            count = int(np.prod(shape, dtype=object)) if shape is not None else 0
            stored = count * max(dtype.itemsize, 1)
            if count == 0 and not scalar:
                return []
            if dtype.kind not in "OS" or len(shape) != (0 if scalar else 1):
                raise ModelFileError(where, "wrong type", expected="text", found=f"{dtype} {shape}")
            if stored > MAX_JSON_BYTES or (count > 1 and dtype.kind == "O" and count * self._size > MAX_TEXT_BYTES):
                raise ModelFileError(where, "size", expected=f"at most {MAX_JSON_BYTES} bytes", found=f"{count} texts")
            value = attributes[name]
        values = [value] if scalar else list(value)
        return [_decoded(element, where) for element in values]

    def _members(self, at: str) -> list[str]:
        """Names in a group, each proven to be a hard link."""
        group = self._file[at] if at else self._file
        if len(group) > MAX_TENSORS:
            self._refuse(at, "too many members", f"at most {MAX_TENSORS}", str(len(group)))
        names = [str(name) for name in group]
        for name in names:
            link = group.get(name, getlink=True)
            if not isinstance(link, self._hard):
                self._refuse(f"{at}/{name}".lstrip("/"), "a link to elsewhere", "hard links", type(link).__name__)
        return names

    def _visit(self, node: Any, at: str, depth: int, visited: set[Any]) -> None:
        if depth > MAX_DEPTH:
            self._refuse(at, "groups nested too deep", f"at most {MAX_DEPTH} levels", "more")
        address = self._address(node)
        if address in visited:
            self._refuse(at, "a group linked twice", "a tree", "a second link to it")
        visited.add(address)

    def _address(self, node: Any) -> Any:
        return self._h5py.h5o.get_info(node.id).addr

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


def _h5py(where: str) -> Any:
    try:
        return import_module("h5py")
    except ImportError:
        problem = "reading Keras files needs h5py: pip install 'streamlstm[keras]'"
        raise ModelFileError(where, problem, expected="the package h5py", found="not installed") from None


def _decoded(value: object, where: str) -> str:
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            raise ModelFileError(where, "text", expected="UTF-8", found="other bytes") from None
    if not isinstance(value, str):
        raise ModelFileError(where, "wrong type", expected="text", found=brief(value))
    return value
