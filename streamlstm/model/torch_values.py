"""What a PyTorch pickle may name, and the inert values that such names become."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Symbol:
    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"[:120]


@dataclass(frozen=True)
class StorageRef:
    """A storage by its key in the file: element type, count of elements, and the view of it for legacy files."""

    dtype: str
    key: str
    elements: int


@dataclass(frozen=True)
class TensorRef:
    """A strided view of a storage: offset and strides in elements."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Opaque:
    """Something harmless that isn't a plain tensor, named by what made it."""

    kind: str


# Each storage class of torch -> dtype of its elements.
STORAGE_DTYPES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "QInt8Storage": "qint8",
    "QUInt8Storage": "quint8",
    "QInt32Storage": "qint32",
}

# Names that may stand in a checkpoint beside the weights; each stays an Opaque.
HARMLESS = frozenset(
    {
        ("argparse", "Namespace"),
        ("builtins", "complex"),
        ("collections", "Counter"),
        ("collections", "defaultdict"),
        ("datetime", "datetime"),
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "scalar"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy.core.multiarray", "scalar"),
        ("_codecs", "encode"),
        ("__builtin__", "set"),
        ("__builtin__", "dict"),
        ("builtins", "set"),
        ("builtins", "dict"),
        ("pathlib", "PosixPath"),
        ("pathlib", "WindowsPath"),
        ("torch", "Size"),
        ("torch", "device"),
        ("torch", "ScriptObject"),
        ("torch._utils", "_rebuild_device_tensor_from_numpy"),
        ("torch._utils", "_rebuild_meta_tensor_no_storage"),
        ("torch._utils", "_rebuild_nested_tensor"),
        ("torch._utils", "_rebuild_qtensor"),
        ("torch._utils", "_rebuild_sparse_csr_tensor"),
        ("torch._utils", "_rebuild_sparse_tensor"),
        ("torch._utils", "_rebuild_tensor_v3"),
        ("torch._tensor", "_rebuild_from_type_v2"),
        ("torch.serialization", "_get_layout"),
    }
    | {("torch", name) for name in STORAGE_DTYPES}
    | {("torch", name) for name in ("float16", "float32", "float64", "bfloat16", "int8", "int16", "int32", "int64")}
    | {("torch", name) for name in ("uint8", "bool", "qint8", "quint8", "per_tensor_affine", "per_channel_affine")}
    | {("torch", name) for name in ("complex64", "complex128", "strided", "Tensor")}
)
TENSOR_V2 = Symbol("torch._utils", "_rebuild_tensor_v2")
TENSOR_V1 = Symbol("torch._utils", "_rebuild_tensor")
PARAMETER = Symbol("torch._utils", "_rebuild_parameter")
PARAMETER_WITH_STATE = Symbol("torch._utils", "_rebuild_parameter_with_state")
ORDERED_DICT = Symbol("collections", "OrderedDict")
CALLABLE = frozenset({TENSOR_V2, TENSOR_V1, PARAMETER, PARAMETER_WITH_STATE, ORDERED_DICT})
