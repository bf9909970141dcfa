"""The strict reader of safetensors, beside the library and against files that lie."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from streamlstm.errors import ModelFileError
from streamlstm.model.safetensors_file import parse_safetensors
from streamlstm.model.tensors import read_exact


def container(header: object, data: bytes = b"", raw: bytes | None = None) -> bytes:
    text = json.dumps(header).encode() if raw is None else raw
    return len(text).to_bytes(8, "little") + text + data


def entry(shape: object = (2,), offsets: object = (0, 8), dtype: object = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_what_the_library_writes_is_read() -> None:
    rng = np.random.default_rng(1)
    arrays = {
        "a": rng.standard_normal((3, 4)).astype(np.float32),
        "b": rng.standard_normal(5),
        "c": rng.standard_normal((2, 1)).astype(np.float16),
        "d": rng.integers(0, 9, (2, 3)),
        "e": np.zeros((0, 3), np.float32),
        "f": np.array(3.0, np.float32),
    }
    tensors, metadata = parse_safetensors(safetensors.numpy.save(arrays, metadata={"k": "v"}), "m")
    assert metadata == {"k": "v"}
    assert set(tensors) == set(arrays)
    for name, array in arrays.items():
        assert tensors[name].dtype == array.dtype.name
        assert np.array_equal(tensors[name].read(), array)
        assert tensors[name].read().flags.aligned


def test_bfloat16_is_the_upper_half_of_float32() -> None:
    values = np.array([1.0, -2.5, 3.25e10, 0.0], np.float32)
    halves = (values.view(np.uint32) >> 16).astype("<u2")
    expected = (halves.astype(np.uint32) << 16).view(np.float32)
    tensors, _ = parse_safetensors(container({"a": entry((4,), (0, 8), "BF16")}, halves.tobytes()), "m")
    assert np.array_equal(read_exact(tensors["a"]), expected)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "header length"),
        (b"\x01\0\0", "header length"),
        ((1 << 63).to_bytes(8, "little") + b"{}", "header length"),
        (container([]), "JSON type"),
        (container({"a": entry()}, b"\0" * 8)[:-1], "outside the file"),
        (container({"a": entry()}, b"\0" * 9), "data section"),
        (container({"a": entry(offsets=(1, 9))}, b"\0" * 9), "a gap"),
        (container({"a": entry(), "b": entry()}, b"\0" * 8), "overlaps"),
        (container({"a": entry(), "b": entry(offsets=(4, 12))}, b"\0" * 12), "overlaps"),
        (container({"a": entry(), "b": entry(offsets=(12, 20))}, b"\0" * 20), "a gap"),
        (container({"a": entry(offsets=(8, 0))}, b"\0" * 8), "wrong length"),
        (container({"a": entry(offsets=(-8, 0))}, b"\0" * 8), "outside"),
        (container({"a": entry(offsets=(0, 8, 8))}, b"\0" * 8), "wrong length"),
        (container({"a": entry(offsets=(0.0, 8.0))}, b"\0" * 8), "wrong type"),
        (container({"a": entry(offsets=(False, 8))}, b"\0" * 8), "wrong type"),
        (container({"a": entry(shape=(2.0,))}, b"\0" * 8), "wrong type"),
        (container({"a": entry(shape="2")}, b"\0" * 8), "wrong type"),
        (container({"a": entry(shape=(-2, -1))}, b"\0" * 8), "shape"),
        (container({"a": entry(shape=(1 << 62, 1 << 62))}, b"\0" * 8), "shape"),
        (container({"a": entry(shape=(10**400,))}, b"\0" * 8), "shape"),
        (container({"a": entry(shape=(1,) * 9)}, b"\0" * 4), "dimensions"),
        (container({"a": entry(dtype="F4")}, b"\0" * 8), "unknown dtype"),
        (container({"a": entry(dtype=["F32"])}, b"\0" * 8), "unknown dtype"),
        (container({"a": entry() | {"more": 1}}, b"\0" * 8), "header entry"),
        (container({"a": {"dtype": "F32"}}), "header entry"),
        (container({"a": [1]}), "header entry"),
        (container({"__metadata__": {"a": 1}}), "metadata"),
        (container({"__metadata__": ["a"]}), "metadata"),
        (container(None, raw=b'{"a": NaN}'), "NaN"),
        (container(None, raw=b'{"a": 1, "a": 2}'), "duplicate key"),
        (container(None, raw=b'{"a": {"dtype": "F32", "dtype": "F32"}}'), "duplicate key"),
        (container(None, raw=b"\xff\xfe{}"), "JSON"),
        (container(None, raw=b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "deep"),
        (container(None, raw=b'{"a": ' + b"9" * 10_000 + b"}"), "JSON"),
    ],
)
def test_what_is_refused(content: bytes, word: str) -> None:
    with pytest.raises(ModelFileError, match=word) as error:
        parse_safetensors(content, "m")
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7F800000, 0xFF800000])
def test_weights_that_are_not_finite(bits: int) -> None:
    data = np.array([0, bits], np.uint32).tobytes()
    tensors, _ = parse_safetensors(container({"a": entry()}, data), "m")
    with pytest.raises(ModelFileError, match=r"m: a: .*finite.* at \[1\]"):
        read_exact(tensors["a"])


def test_a_sparse_file_of_any_size_is_not_read(tmp_path: Path) -> None:
    from streamlstm.model.importing import read_foreign

    path = tmp_path / "m.safetensors"
    elements = 3 << 30
    header = container({"a": entry((elements // 4,), (0, elements))})
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + elements)
    with pytest.raises(ModelFileError, match="shape"):
        read_foreign(path)
