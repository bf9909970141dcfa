"""Pickles and archives as torch.save writes them, opcode by opcode, so that tests can write wrong ones too."""

import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np


def text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def integer(value: int) -> bytes:
    if 0 <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def tuple_of(*members: bytes) -> bytes:
    return b"(" + b"".join(members) + b"t"


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


@dataclass
class Stored:
    """A tensor to write: key of its storage, elements there, and the view."""

    key: str
    elements: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    storage: str = "FloatStorage"

    def pickled(self) -> bytes:
        identity = tuple_of(
            text("storage"), name("torch", self.storage), text(self.key), text("cpu"), integer(self.elements)
        )
        return (
            name("torch._utils", "_rebuild_tensor_v2")
            + tuple_of(
                identity + b"Q",
                integer(self.offset),
                tuple_of(*map(integer, self.shape)),
                tuple_of(*map(integer, self.strides)),
                b"\x89",
                name("collections", "OrderedDict") + b")R",
            )
            + b"R"
        )


def pickled(members: dict[str, bytes]) -> bytes:
    return b"\x80\x02}(" + b"".join(text(key) + value for key, value in members.items()) + b"u."


def dense(key: str, shape: tuple[int, ...]) -> Stored:
    strides = tuple(int(np.prod(shape[k + 1 :])) for k in range(len(shape)))
    return Stored(key, int(np.prod(shape)), shape, strides)


def lstm(H: int = 2, inputs: int = 1) -> dict[str, Stored]:
    """A state_dict of an LSTM and a Linear, each tensor in a storage of its own."""
    shapes = {
        "lstm.weight_ih_l0": (4 * H, inputs),
        "lstm.weight_hh_l0": (4 * H, H),
        "lstm.bias_ih_l0": (4 * H,),
        "lstm.bias_hh_l0": (4 * H,),
        "fc.weight": (1, H),
        "fc.bias": (1,),
    }
    return {tensor: dense(str(k), shape) for k, (tensor, shape) in enumerate(shapes.items())}


def archive(path: Path, pickle: bytes, storages: dict[str, bytes], byteorder: bytes = b"little") -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("m/data.pkl", pickle)
        file.writestr("m/byteorder", byteorder)
        for key, content in storages.items():
            file.writestr(f"m/data/{key}", content)
    return path


def ramp(elements: int) -> bytes:
    return (np.arange(elements, dtype="<f4") * 0.01).tobytes()


def save(path: Path, tensors: dict[str, Stored], extra: dict[str, bytes] | None = None) -> Path:
    members = {key: stored.pickled() for key, stored in tensors.items()} | (extra or {})
    storages = {stored.key: ramp(stored.elements) for stored in tensors.values()}
    return archive(path, pickled(members), storages)
