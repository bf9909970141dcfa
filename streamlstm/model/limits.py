"""Bounds on what a model file may ask for, checked before anything is allocated."""

from pathlib import Path

from streamlstm.errors import InputMissingError, ModelFileError

MIB = 1 << 20

MAX_FILE_BYTES = 4096 * MIB
MAX_ELEMENTS = 128 * MIB  # numbers in one model
MAX_JSON_BYTES = 4 * MIB
MAX_TENSORS = 16_384
MAX_DIMENSIONS = 8
MAX_LAYERS = 64


def require_file(path: Path) -> int:
    """Size in bytes of a regular file. Raises InputMissingError when it isn't there, ModelFileError when it isn't
    one.
    """
    if not path.exists():
        raise InputMissingError(f"{path}: no such file")
    if not path.is_file():
        raise ModelFileError(
            str(path),
            "not a file",
            expected="a regular file",
            found="a folder" if path.is_dir() else "a device or pipe",
        )
    try:
        with path.open("rb"):
            size = path.stat().st_size
    except OSError as error:
        raise InputMissingError(f"{path}: cannot be read: {error.strerror}") from error
    if size == 0:
        raise ModelFileError(str(path), "the file is empty", expected="a model", found="0 bytes")
    if size > MAX_FILE_BYTES:
        raise ModelFileError(str(path), "file size", expected=f"at most {MAX_FILE_BYTES} bytes", found=f"{size} bytes")
    return size


def count_elements(shape: tuple[int, ...], where: str) -> int:
    """Product of a shape, in Python integers. Raises ModelFileError on negative, many or too many dimensions."""
    if len(shape) > MAX_DIMENSIONS:
        raise ModelFileError(where, "shape", expected=f"at most {MAX_DIMENSIONS} dimensions", found=f"{len(shape)}")
    total = 1
    for size in shape:
        if not 0 <= size < 1 << 63:  # checked before printing: Python refuses to print integers of thousands of digits
            raise ModelFileError(where, "shape", expected="dimensions from 0 to 2^63", found=_word(size))
        total *= size
    if total > MAX_ELEMENTS:
        raise ModelFileError(where, "shape", expected=f"at most {MAX_ELEMENTS} elements", found=f"{total} in {shape}")
    return total


def _word(size: int) -> str:
    return f"{size}" if -(1 << 63) < size < 0 else "a number of more than 64 bits"
