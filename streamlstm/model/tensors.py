"""A named tensor of a foreign file that has been described but not read, and its careful reading."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlstm.errors import ModelFileError
from streamlstm.model.parameters import Float32

FLOAT_TYPES = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class Tensor:
    """`where` names file and tensor; `read` materialises exactly `shape` and is called once shapes are agreed.

    A bfloat16 tensor reads as uint16, its upper half of a float32.
    """

    where: str
    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], NDArray[Any]]


def require_shape(tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Raises ModelFileError unless the tensor has this shape and no empty axis."""
    if tensor.shape != shape:
        raise ModelFileError(tensor.where, "wrong shape", expected=str(shape), found=str(tensor.shape))
    if 0 in shape:
        raise ModelFileError(tensor.where, "an empty axis", expected="sizes of at least 1", found=str(shape))


def read_exact(tensor: Tensor) -> NDArray[Any]:
    """The tensor as float32 or float64 (16-bit floats widened), checked to be finite.

    Raises ModelFileError on other types, NaN and infinities.
    """
    if tensor.dtype not in FLOAT_TYPES:
        raise ModelFileError(tensor.where, "wrong dtype", expected=" or ".join(FLOAT_TYPES), found=tensor.dtype)
    array = tensor.read()
    if tensor.dtype == "bfloat16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    elif tensor.dtype == "float16":
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        place = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
        found = f"{array[tuple(place)]} at {place}"
        raise ModelFileError(tensor.where, "a weight that isn't finite", expected="finite numbers", found=found)
    return array


def to_float32(array: NDArray[Any], where: str) -> Float32:
    """Round to float32. Raises ModelFileError when a finite number leaves its range."""
    with np.errstate(over="ignore"):
        single: Float32 = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(single).all():
        found = f"{np.abs(array).max():.3g}"
        raise ModelFileError(where, "a weight outside float32", expected="|w| < 3.4e38", found=found)
    return single


def read_float32(tensor: Tensor) -> Float32:
    """`read_exact`, rounded to float32."""
    return to_float32(read_exact(tensor), tensor.where)
