"""PyTorch files that lie, bomb or try to run something."""

import pickletools
import struct
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from streamlstm.errors import ModelFileError
from streamlstm.model.importing import read_foreign
from tests.model.torch_writing import Stored, archive, dense, integer, lstm, name, pickled, ramp, save, text, tuple_of

NASTY = [
    ("posix", "system"),
    ("builtins", "eval"),
    ("builtins", "getattr"),
    ("builtins", "open"),
    ("builtins", "__import__"),
    ("torch", "load"),
    ("torch.hub", "load"),
    ("torch.serialization", "load"),
    ("torch._utils", "_rebuild_wrapper_subclass"),
    ("torch._utils", "_import_dotted_name"),
    ("torch.storage", "_load_from_bytes"),
    ("functools", "partial"),
    ("operator", "attrgetter"),
    ("numpy", "load"),
    ("numpy.testing._private.utils", "runstring"),
    ("collections", "OrderedDict.fromkeys"),
    ("collections", "namedtuple"),
    ("_pickle", "loads"),
    ("torch._utils ", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_tensor_v2\x00"),
]


def refusal(path: Path) -> str:
    with pytest.raises(ModelFileError) as error:
        read_foreign(path)
    message = str(error.value)
    assert message.startswith(str(path))
    assert "expected" in message
    assert len(message) < 1500
    return message


def test_the_writer_writes_what_is_read(tmp_path: Path) -> None:
    parameters = read_foreign(save(tmp_path / "m.pt", lstm(3, 2))).parameters
    assert (parameters.inputs, parameters.hidden, parameters.outputs) == (2, (3,), 1)
    assert np.array_equal(parameters.layers[0].weight_hh.reshape(-1), np.frombuffer(ramp(36), "<f4"))
    assert np.array_equal(parameters.layers[0].bias, 2 * np.frombuffer(ramp(12), "<f4"))


@pytest.mark.parametrize(("module", "attribute"), NASTY)
@pytest.mark.parametrize("spelling", ["GLOBAL", "STACK_GLOBAL", "INST", "NEWOBJ"])
def test_no_name_but_the_listed_ones(module: str, attribute: str, spelling: str, tmp_path: Path) -> None:
    call = {
        "GLOBAL": name(module, attribute) + tuple_of(text("true")) + b"R",
        "STACK_GLOBAL": text(module) + text(attribute) + b"\x93" + tuple_of(text("true")) + b"R",
        "INST": b"(" + text("true") + f"i{module}\n{attribute}\n".encode(),
        "NEWOBJ": name(module, attribute) + tuple_of(text("true")) + b"\x81",
    }[spelling]
    refusal(save(tmp_path / "m.pt", lstm(), {"extra": call}))


def arguments(opcode: pickletools.OpcodeInfo) -> list[bytes]:
    """Plausible and absurd argument bytes for an opcode."""
    if opcode.arg is None:
        return [b""]
    if opcode.arg.n >= 0:
        return [b"\0" * opcode.arg.n, b"\xff" * opcode.arg.n, b"\x7f" * opcode.arg.n]
    return [b"1\n", b"os\nsystem\n", b"\xff" * 9, b"\x01a", struct.pack("<I", 1) + b"a", struct.pack("<Q", 1) + b"a"]


@pytest.mark.parametrize("opcode", pickletools.opcodes, ids=lambda opcode: opcode.name)
def test_every_opcode_alone_and_after_values(opcode: pickletools.OpcodeInfo, tmp_path: Path) -> None:
    code = opcode.code.encode("latin-1")
    for prefix in (b"", b"N", b"}", b"]", b"(", b"))", b"}NN", b"(NN", name("collections", "OrderedDict") + b")"):
        for argument in arguments(opcode):
            path = archive(tmp_path / "m.pt", b"\x80\x02" + prefix + code + argument + b".", {})
            refusal(path)
            (tmp_path / "raw.pt").write_bytes(b"\x80\x02" + prefix + code + argument + b".")
            refusal(tmp_path / "raw.pt")


@pytest.mark.parametrize(
    "content",
    [
        b"Nr" + struct.pack("<I", 0xFFFFFFF0) + b".",  # LONG_BINPUT: a memo of 64 GB in CPython's own unpickler
        b"j" + struct.pack("<I", 0xFFFFFFF0) + b".",
        b"\x8e" + struct.pack("<Q", 1 << 62) + b"a.",  # BINBYTES8
        b"\x8d" + struct.pack("<Q", 1 << 62) + b"a.",  # BINUNICODE8
        b"\x96" + struct.pack("<Q", 1 << 62) + b"a.",  # BYTEARRAY8
        b"\x95" + struct.pack("<Q", 1 << 62) + b"N.",  # FRAME
        b"\x8b" + struct.pack("<i", -5) + b"a.",  # LONG4
        b"\x8b" + struct.pack("<i", 0x7FFFFFFF) + b"a.",
        b"L" + b"9" * 100_000 + b"L\n.",
        b"I" + b"9" * 100_000 + b"\n.",
        b"Pposix\n.",  # PERSID
        b"\x82\x01.",  # EXT1
        b"]" * 200_000 + b".",
        b"(" * 200_000 + b".",
        b"N" * 600_000 + b".",
        b"}" + b"]q\0" + b"h\0h\0h\0ta" * 100 + b".",
    ],
    ids=lambda content: content[:2].hex(),
)
def test_sizes_that_a_pickle_claims(content: bytes, tmp_path: Path) -> None:
    path = archive(tmp_path / "m.pt", b"\x80\x02" + content, {})
    start = time.perf_counter()
    tracemalloc.start()
    try:
        refusal(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20
    assert time.perf_counter() - start < 20.0


def test_a_nested_tuple_is_never_hashed(tmp_path: Path) -> None:
    bomb = b")q\0" + b"0" + b"".join(b"h%ch%c\x86q%c0" % (k, k, k + 1) for k in range(60)) + b"h" + bytes([60])
    path = archive(tmp_path / "m.pt", b"\x80\x02}" + bomb + b"Ns.", {})
    assert "dictionary key" in refusal(path)


def test_a_list_that_contains_itself(tmp_path: Path) -> None:
    loop = b"]q\0h\0a"
    read_foreign(save(tmp_path / "m.pt", lstm())).parameters.arrays()
    refusal(save(tmp_path / "m.pt", lstm(), {"loop": loop}))
    checkpoint = pickled({"loop": loop, "model_state_dict": pickled({k: v.pickled() for k, v in lstm().items()})[2:-1]})
    storages = {stored.key: ramp(stored.elements) for stored in lstm().values()}
    assert read_foreign(archive(tmp_path / "c.pt", checkpoint, storages)).parameters.hidden == (2,)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"offset": 1}, "offset and strides"),
        ({"offset": -1}, "offset and strides"),
        ({"offset": 1 << 62}, "offset and strides"),
        ({"strides": (-2, 1)}, "offset and strides"),
        ({"strides": (1 << 40, 1)}, "offset and strides"),
        ({"strides": (2,)}, "odd arguments"),
        ({"shape": (1 << 33, 1 << 33)}, "shape"),
        ({"shape": (8, 2, 1, 1, 1, 1, 1, 1, 1), "strides": (2, 1, 1, 1, 1, 1, 1, 1, 1)}, "dimensions"),
        ({"shape": (-8, 2)}, "shape"),
        ({"elements": 15}, "storage"),
        ({"elements": 1 << 60}, "storage"),
        ({"shape": (8, 2), "strides": (0, 0), "elements": 1}, "storage"),
        ({"storage": "LongStorage"}, "dtype"),
        ({"storage": "DoubleStorage"}, "storage"),
        ({"storage": "UntypedStorage"}, "UntypedStorage"),
        ({"key": "nope"}, "missing storage"),
        ({"key": "../data.pkl"}, "missing storage"),
    ],
)
def test_views_that_lie(change: dict[str, object], word: str, tmp_path: Path) -> None:
    tensors = lstm()
    good = tensors["lstm.weight_hh_l0"]
    members = {key: stored.pickled() for key, stored in tensors.items()}
    members["lstm.weight_hh_l0"] = replace(good, **change).pickled()
    storages = {stored.key: ramp(stored.elements) for stored in tensors.values()}
    assert word in refusal(archive(tmp_path / "m.pt", pickled(members), storages))


def test_a_transposed_view_is_honoured(tmp_path: Path) -> None:
    tensors = lstm(2)
    tensors["lstm.weight_hh_l0"] = Stored("1", 20, (8, 2), (1, 8), 3)
    found = read_foreign(save(tmp_path / "m.pt", tensors)).parameters.layers[0].weight_hh
    assert np.array_equal(found, np.frombuffer(ramp(20), "<f4")[3:19].reshape(2, 8).T)


def test_big_endian_is_refused(tmp_path: Path) -> None:
    members = {key: stored.pickled() for key, stored in lstm().items()}
    assert "little" in refusal(archive(tmp_path / "m.pt", pickled(members), {}, byteorder=b"big"))


def test_two_state_dicts_must_be_told_apart(tmp_path: Path) -> None:
    inner = pickled({key: stored.pickled() for key, stored in lstm().items()})[2:-1]
    storages = {stored.key: ramp(stored.elements) for stored in lstm().values()}
    twice = archive(tmp_path / "m.pt", pickled({"generator": inner, "critic": inner}), storages)
    assert "several state_dicts" in refusal(twice)


@pytest.mark.parametrize(
    ("extra", "word"),
    [
        ({"": (3,)}, "no output layer; expected one nn.Linear on the last h; found a tensor without name"),
        ({"": (3, 2)}, "no output layer"),
        ({"norm.weight": (3,), "norm.bias": (3,)}, "no output layer"),
        ({"lstm.weight_hh_l00": (8, 2), "fc.weight": (1, 2)}, "lstm.weight_hh_l00: a tensor of no LSTM"),
        ({"lstm.weight_hh_l\u0660": (8, 2), "fc.weight": (1, 2)}, "lstm.weight_hh_l\u0660: a tensor of no LSTM"),
        ({"lstm.weight_hh_l0\n": (8, 2), "fc.weight": (1, 2)}, "a tensor of no LSTM"),
        ({"": (3,), "fc.weight": (1, 2)}, "a tensor of no LSTM"),
    ],
)
def test_names_that_are_no_layer(extra: dict[str, tuple[int, ...]], word: str, tmp_path: Path) -> None:
    tensors = {name: stored for name, stored in lstm().items() if name.startswith("lstm.")}
    tensors |= {name: dense(f"more{k}", shape) for k, (name, shape) in enumerate(extra.items())}
    assert word in refusal(save(tmp_path / "m.pt", tensors))


def legacy(*pickles: bytes) -> bytes:
    head = [integer(0x1950A86A20F9469CFC6C), integer(1001)]
    return b"".join(b"\x80\x02" + part + b"." for part in [*head, *pickles])


@pytest.mark.parametrize(
    "content",
    [
        legacy(b"}" + text("little_endian") + b"\x89s", b"}", b"]"),
        legacy(b"}" + text("little_endian") + b"\x88s", b"}", b"]" + integer(3) + b"a"),
        legacy(b"}" + text("little_endian") + b"\x88s", b"}"),
        legacy(b"}" + text("little_endian") + b"\x88s"),
        b"\x80\x02" + integer(12) + b".",
    ],
)
def test_legacy_files_that_are_not(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.pth").write_bytes(content)
    refusal(tmp_path / "m.pth")


@pytest.mark.parametrize("count", [15, 17, 1 << 40, (1 << 64) - 1])
def test_legacy_storages_that_lie(count: int, tmp_path: Path) -> None:
    tensors = lstm()
    keys = [stored.key for stored in tensors.values()]
    members = pickled({key: stored.pickled() for key, stored in tensors.items()})[2:-1]
    content = legacy(
        b"}" + text("little_endian") + b"\x88s", members, b"](" + b"".join(text(key) for key in keys) + b"e"
    )
    for stored in tensors.values():
        claimed = count if stored.key == "1" else stored.elements
        content += struct.pack("<Q", claimed) + ramp(stored.elements)
    (tmp_path / "m.pth").write_bytes(content)
    assert "storage" in refusal(tmp_path / "m.pth")
