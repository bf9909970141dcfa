"""An output that takes the place of an older one when it is whole, and not before."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from streamlstm.transport.files import open_output


@contextmanager
def open_whole(path: str) -> Iterator[BinaryIO]:
    """As files.open_output, but what is at `path` stays until the new file is written. A device, a pipe, and a file in
    a folder that takes no other are written where they are. Raises InputMissingError.
    """
    target = Path(os.path.realpath(path))
    is_there = target.exists()
    if path == "-" or (is_there and not (target.is_file() and os.access(target.parent, os.W_OK))):
        with open_output(path) as file:
            yield file
        return
    partial = target.with_name(f".{target.name}.partial")
    try:
        with open_output(str(partial)) as file:
            yield file
        if is_there:
            shutil.copymode(target, partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
