"""An output that takes the place of an older one when it is whole, and not before."""

import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from streamlstm.errors import InputMissingError
from streamlstm.transport.files import open_output


@contextmanager
def open_whole(path: str) -> Iterator[BinaryIO]:
    """As files.open_output, but what is at `path` stays until the new file is written. A device, a pipe, and a file in
    a folder that takes no other are written where they are. Raises InputMissingError.
    """
    target = Path(os.path.realpath(path))
    if path == "-" or _stays(path, target.parent):
        with open_output(path) as file:
            yield file
        return
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        file = partial.open("xb")
    except OSError as error:
        raise InputMissingError(f"{path}: cannot be written: {error.strerror}") from error
    try:
        with file:
            yield file
        _put(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _stays(path: str, folder: Path) -> bool:
    """Whether what is at `path` can't be replaced. It's asked for as it was given: /dev/stdout leads to no name."""
    try:
        found = os.stat(path)
    except OSError:
        return False
    return not (stat.S_ISREG(found.st_mode) and os.access(folder, os.W_OK))


def _put(partial: Path, target: Path) -> None:
    try:
        if target.exists():
            shutil.copymode(target, partial)
        partial.replace(target)
    except OSError:  # a mount point, or another user's file in a sticky folder: its content can be replaced
        shutil.copyfile(partial, target)
