"""What a command writes: none of it is what it reads or writes besides, and all of it can be written. Said before
anything is read, as work of hours may come in between.
"""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from streamlstm.errors import AccessError, InputMissingError, UsageError

STANDARD = "-"

Named = tuple[str, str | Path | None]
"""What the command line calls it, and its path; None: it wasn't given. "-" is standard input."""


@dataclass(frozen=True, slots=True)
class Output:
    """What the command line calls it, and its path, "-" for standard output; None: it wasn't asked for. `file_only`: it
    is written beside its place and put there whole, so it can be nothing but a file.
    """

    option: str
    path: str | Path | None
    file_only: bool = False


def require_outputs(outputs: Sequence[Output], inputs: Sequence[Named]) -> None:
    """Raises UsageError where an output is another one's file or an input's, InputMissingError or AccessError where one
    can't be written.
    """
    taken = {_same_as(path, is_input=True): f"{name} {path}" for name, path in inputs if path is not None}
    for output in outputs:
        if output.path is None:
            continue
        same = _same_as(output.path)
        if same is not None and same in taken:
            raise UsageError(f"{output.option} {output.path}: expected a file of its own, found that of {taken[same]}")
        taken[same] = f"{output.option} {output.path}"
        _require_writable(output, str(output.path))


def _same_as(path: str | Path, *, is_input: bool = False) -> object:
    """Equal for two names of one file, through links; None for a device or a pipe, which loses nothing."""
    if str(path) == STANDARD and not is_input:
        return STANDARD
    try:
        found = os.fstat(0) if str(path) == STANDARD else os.stat(path)
    except OSError:
        return os.path.realpath(path)
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None


def _require_writable(output: Output, path: str) -> None:
    where = f"{output.option} {path}"
    if output.file_only and path == STANDARD:
        raise UsageError(f"{where}: expected a file, found standard output")
    if path == STANDARD:
        return
    is_there = os.path.exists(path)
    if is_there and (os.path.isdir(path) or (output.file_only and not os.path.isfile(path))):
        raise InputMissingError(f"{where}: cannot be written: expected a file, found a folder or a device")
    folder = os.path.dirname(path if output.file_only else os.path.realpath(path)) or "."
    if not os.path.isdir(folder):
        raise InputMissingError(f"{where}: cannot be written: expected a folder {folder}, found none")
    if not os.access(path if is_there and not output.file_only else folder, os.W_OK):
        raise AccessError(f"{where}: cannot be written: permission denied")
