"""HDF5 files of unknown origin, read by a process of their own.

The HDF5 library is known to crash on damaged files. It is loaded by `hdf5_child` only, under limits of memory and
time, and what comes back is checked like any other file.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from streamlstm.errors import BadDataError, ModelFileError
from streamlstm.model.safetensors_file import parse_safetensors
from streamlstm.model.tensors import Tensor

MAX_SECONDS = 20.0


@dataclass(frozen=True)
class Hdf5Contents:
    """tensors: every plain dataset by path; groups: every group by path; texts: text attributes of the root, each a
    list.
    """

    where: str
    tensors: dict[str, Tensor]
    groups: list[str]
    texts: dict[str, list[str]]

    def text(self, name: str) -> str | None:
        """A text attribute of the root, None when there is none."""
        found = self.texts.get(name)
        return found[0] if found else None


def read_hdf5(source: Path | bytes, where: str) -> Hdf5Contents:
    """Read a file, or the content of one. Raises ModelFileError when it is refused or breaks the library."""
    if find_spec("h5py") is None:
        problem = "reading Keras files needs h5py: pip install 'streamlstm[keras]'"
        raise ModelFileError(where, problem, expected="the package h5py", found="not installed")
    path, content = ("-", source) if isinstance(source, bytes) else (str(source.absolute()), b"")
    # -P keeps the current folder, where anything may lie, off the child's import path.
    command = [sys.executable, "-P", "-m", "streamlstm.model.hdf5_child", where, path]
    try:
        done = subprocess.run(command, input=content, capture_output=True, timeout=MAX_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        found = f"no end after {MAX_SECONDS:.0f} s"
        raise ModelFileError(where, "damaged HDF5", expected="a readable HDF5 file", found=found) from None
    if done.returncode == BadDataError.exit_code:
        problem = done.stderr.decode("utf-8", "replace").removeprefix(f"{where}: ")
        raise ModelFileError(where, problem)
    if done.returncode != 0:
        found = f"a crash of the HDF5 library (exit code {done.returncode})"
        raise ModelFileError(where, "damaged HDF5", expected="a readable HDF5 file", found=found)
    tensors, _ = parse_safetensors(done.stdout, where)
    texts = {name[1:]: _strings(tensors.pop(name)) for name in list(tensors) if name.startswith("@")}
    return Hdf5Contents(where, tensors, texts.pop("groups"), texts)


def _strings(tensor: Tensor) -> list[str]:
    strings: list[str] = json.loads(tensor.read().tobytes())
    return strings
