"""How streamlstm compiles: one decorator for every kernel, one policy for what is kept on disk.

Compilation is lazy: importing a kernel module compiles nothing. `warm_up` compiles every function that declares a
signature, so that a service can pay before it subscribes.

What it compiles for. Not for the very CPU but for the highest level of x86-64 that it has (cpu_level.py), so that
kernels can be compiled on one machine and used on another: `compile_all` fills a folder with them. Numba's
NUMBA_CPU_NAME names another CPU or a lower level; on other architectures it is the CPU that is there.

What is kept on disk. One file per function, signature and level, in a folder of its own for each version of the
sources:

    <base>/streamlstm/<version>-<hash of kernels/*.py, Python, Numba, llvmlite>/<function>-<hash of the key>.kernel

`<base>` is STREAMLSTM_CACHE_DIR, else XDG_CACHE_HOME, else ~/.cache. This module is the one place outside `service`
and `cli` that reads the environment: a function may be compiled before any configuration has been read.
The key is Numba's own (signature, target triple, CPU name, CPU features), and a level is a CPU name to Numba: so one
folder serves different CPUs, and none is given code that it can't run. A folder that can only be read serves too.
A file begins with the SHA-256 of the rest and is written under another name, then renamed.

Numba's own cache isn't used: it raises at import when its folder can't be written (even a filled one), raises on a
truncated file, loads a damaged one, and doesn't see a change in an imported module.

Nothing that is wrong with the folder stops or changes a computation. The function is then compiled in memory, and
`cache_status` says why: the service logs it.
"""

import hashlib
import importlib
import logging
import os
import pickle
import pkgutil
import platform
import re
import stat
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, overload

import llvmlite
import numba
from llvmlite.binding import get_host_cpu_name
from numba.core import config as numba_config
from numba.core import sigutils
from numba.core.caching import NullCache
from numba.core.codegen import get_host_cpu_features
from numba.core.compiler import CompileResult
from numba.core.registry import cpu_target
from numba.core.serialize import dumps

from streamlstm import __version__
from streamlstm.kernels.cpu_level import LEVELS, highest_level

Function = TypeVar("Function", bound=Callable[..., Any])

_HERE = Path(__file__).parent
_DIGEST = 32
_log = logging.getLogger(__name__)
_config: Any = numba_config  # its names are set at run time


@overload
def compiled(function: Function) -> Function: ...


@overload
def compiled(function: str) -> Callable[[Function], Function]: ...


def compiled(function: Any) -> Any:
    """Compile on the first call: no Python objects, the GIL released, IEEE arithmetic in the order written.

    Use as `@compiled`, or as `@compiled("int64(uint8[::1], int64)")` to declare the signature that `warm_up` compiles.
    A declared signature binds nothing: other argument types are compiled when they come.
    """
    if isinstance(function, str):
        return lambda inner: _compiled(inner, function)
    return _compiled(function, None)


def _compiled(function: Any, signature: str | None) -> Any:
    dispatcher: Any = numba.njit(nogil=True, error_model="numpy", fastmath=False, forceinline=False)(function)
    if _config.DISABLE_JIT:
        return dispatcher
    if function.__module__.startswith("streamlstm.kernels."):
        dispatcher._cache = _KernelCache(function)
    dispatcher.declared_signature = signature
    return dispatcher


def inlined(function: Function) -> Function:
    """For small pieces of kernels: the body is copied into each compiled caller. Never called from Python."""
    copied: Any = numba.njit(inline="always", nogil=True, error_model="numpy", fastmath=False)
    return copied(function)  # type: ignore[no-any-return]


def embedded(function: Function) -> Function:
    """As `inlined`, but copied by LLVM after type inference: less to compile when there are many callers or returns."""
    copied: Any = numba.njit(forceinline=True, nogil=True, error_model="numpy", fastmath=False)
    return copied(function)  # type: ignore[no-any-return]


MOST_REGISTERS = 128
"""Of a thread of a CUDA kernel: two blocks of 256 threads share a multiprocessor, and hide each other's waits."""


def device_kernel(function: Function) -> Any:
    """A kernel of the CUDA twin, launched as `function[grid, block, stream, shared_bytes](...)`: compiled on its first
    launch, for the device at hand. In the simulator it runs as Python.
    """
    from numba import cuda  # noqa: PLC0415 - where it isn't asked for, it isn't there

    options = {} if _config.ENABLE_CUDASIM else {"max_registers": MOST_REGISTERS}
    return cuda.jit(fastmath=False, **options)(function)


def device_function(function: Function) -> Function:
    """A piece of such kernels. In the simulator it's the function itself: nothing there is shared between threads."""
    if _config.ENABLE_CUDASIM:
        return function
    from numba import cuda  # noqa: PLC0415

    return cuda.jit(device=True, fastmath=False)(function)  # type: ignore[no-any-return]


def device_inlined(function: Function) -> Function:
    """As `device_function`, but copied into its callers: it may then return an array of shared memory."""
    from numba import cuda  # noqa: PLC0415

    return cuda.jit(device=True, inline="always", fastmath=False)(function)  # type: ignore[no-any-return]


def warm_up() -> int:
    """Compile, or load, every function with a declared signature in the kernel modules imported so far.

    Returns how many there are.
    """
    count = 0
    for function in _declared():
        _compile_declared(function)
        count += 1
    return count


def lacking() -> int:
    """How many functions `warm_up` would have to compile and could keep: 0 as well where no cache can be written to."""
    folder = cache_folder()
    if _config.DISABLE_JIT or folder is None or not os.access(folder, os.W_OK):
        return 0
    codegen = cpu_target.target_context.codegen()
    paths = (function._cache._path(function.declared_signature, codegen) for function in _declared())
    return sum(path is not None and not path.exists() for path in paths)


def _declared() -> Iterator[Any]:
    for name, module in sorted(sys.modules.items()):
        if name.startswith("streamlstm.kernels."):
            for function in vars(module).values():
                signature = getattr(function, "declared_signature", None)
                if signature is not None and function.py_func.__module__ == name:
                    yield function


def compile_only_declared(function: Callable[..., Any]) -> None:
    """Compile, or load, the declared signature, and refuse all other argument types from now on (TypeError).

    For functions that take an array's address: another dtype would be compiled, and read as what it isn't.
    """
    _compile_declared(function)
    if not _config.DISABLE_JIT:
        function.disable_compile()  # type: ignore[attr-defined]


def _compile_declared(function: Any) -> None:
    if _config.DISABLE_JIT:
        return
    argument_types, _ = sigutils.normalize_signature(function.declared_signature)
    if argument_types not in function.signatures:
        function.compile(function.declared_signature)


# ------------------------------------------------------------------------------------------------- what is compiled for


def _those_there(features: str) -> list[str]:
    """Of a list as LLVM has it: +fma,-avx512f."""
    return [feature[1:] for feature in features.split(",") if feature.startswith("+")]


def _choose_cpu() -> None:
    """Tell Numba the level before its target is made, as the first function is decorated: later it would change the
    name, and not the code. A level that is named without features means its own.
    """
    if _config.CPU_NAME is None and _config.CPU_FEATURES is None and platform.machine() == "x86_64":
        _config.CPU_NAME = highest_level(_those_there(get_host_cpu_features()))
    if _config.CPU_NAME in LEVELS and _config.CPU_FEATURES is None:
        _config.CPU_FEATURES = ""


_choose_cpu()


def compile_all() -> int:
    """Compile every function with a declared signature into the cache; returns how many there are.

    Nothing is run: NUMBA_CPU_NAME may be a level that this machine doesn't have.
    """
    for module in pkgutil.iter_modules([str(_HERE)]):
        if not module.name.startswith("cuda"):  # compiled for the device that is there, when it is launched
            importlib.import_module(f"streamlstm.kernels.{module.name}")
    return warm_up()


# ----------------------------------------------------------------------------------------------------------- the folder


@cache
def _version() -> str:
    """Names the folder: changes with anything that could change the machine code, the CPU apart."""
    digest = hashlib.sha256()
    for source in sorted(_HERE.glob("*.py")):
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    for part in (sys.implementation.cache_tag, numba.__version__, llvmlite.__version__):
        digest.update(str(part).encode() + b"\0")
    return f"{__version__}-{digest.hexdigest()[:16]}"


@cache
def _wanted_folder() -> Path | None:
    for variable, below in (("STREAMLSTM_CACHE_DIR", "."), ("XDG_CACHE_HOME", "."), ("HOME", ".cache")):
        if base := os.environ.get(variable):
            return Path(base, below, "streamlstm", _version())
    return None


@cache
def cache_folder() -> Path | None:
    """The folder that compiled functions are read from, or None when there is none fit to use.

    A folder that others may write to, or that belongs to somebody else than this user or root, isn't used: what it
    holds would run in this process.
    """
    folder = _wanted_folder()
    if folder is None:
        _note("neither STREAMLSTM_CACHE_DIR, XDG_CACHE_HOME nor HOME is set")
        return None
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError as error:
        _note(f"{folder} cannot be made: {error.strerror}")
        return None
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & stat.S_IWOTH:
        _note(f"{folder} belongs to user {found.st_uid} with mode {stat.filemode(found.st_mode)}: not trusted")
        return None
    return folder


# -------------------------------------------------------------------------------------------------------- what happened


class _Tally:
    """What the cache did in this process, for `cache_status`."""

    loaded = 0
    compiled = 0
    stored = 0
    problems: tuple[str, ...] = ()


def _note(problem: str) -> None:
    if problem not in _Tally.problems:
        _Tally.problems += (problem,)
        _log.debug("kernel cache: %s", problem)


def cache_tally() -> tuple[int, int, tuple[str, ...]]:
    """How many functions this process has loaded, how many it had to compile, and what was wrong with the folder."""
    return _Tally.loaded, _Tally.compiled, _Tally.problems


def cache_status() -> str:
    """One line for the log: where compiled functions are kept, what was loaded, and what went wrong."""
    folder = cache_folder()
    where = f"kept in {folder}" if folder else "compiled in memory only"
    counts = f"{_Tally.loaded} loaded, {_Tally.compiled} compiled, {_Tally.stored} stored"
    return f"{where}; {counts}" + "".join(f"; {problem}" for problem in _Tally.problems)


def kernel_counts() -> dict[str, int]:
    """How many compiled functions came from the cache, and how many had to be compiled."""
    return {"loaded": _Tally.loaded, "compiled": _Tally.compiled}


def compiled_for() -> tuple[str, str]:
    """LLVM's name of this machine's CPU, and the level of x86-64 that is compiled for (on others, the architecture)."""
    triple, name, listed = cpu_target.target_context.codegen().magic_tuple()
    machine = triple.partition("-")[0]
    if machine == "x86_64":
        machine = name if name in LEVELS and not listed else highest_level(_those_there(listed))
    return get_host_cpu_name(), machine


# --------------------------------------------------------------------------------------------- one function's overloads


class _KernelCache(NullCache):  # type: ignore[misc]
    """What Numba's dispatcher asks before it compiles a signature of `function`, and tells afterwards."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled signature, or None when it isn't there or can't be trusted."""
        target_context.refresh()
        path = self._path(sig, target_context.codegen())
        if path is None:
            return None
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            _note(f"{path.name} cannot be read: {error.strerror}")
            return None
        if hashlib.sha256(content[_DIGEST:]).digest() != content[:_DIGEST]:
            _note(f"{path.name} is damaged: compiled anew")
            return None
        try:
            result = CompileResult._rebuild(target_context, *pickle.loads(content[_DIGEST:]))
        except Exception as error:  # whatever LLVM or a moved module makes of old code: it can be compiled again
            _note(f"{path.name} cannot be used ({type(error).__name__}: {error}): compiled anew")
            return None
        _Tally.loaded += 1
        return result

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep the compiled signature; a failure costs the next start some seconds and is noted."""
        _Tally.compiled += 1
        path = self._path(sig, data.codegen)
        if path is None:
            return
        if data.lifted or data.library.has_dynamic_globals:
            _note(f"{path.name} holds addresses of this process: not stored")
            return
        content = dumps(data._reduce())
        draft = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}")
        try:
            draft.write_bytes(hashlib.sha256(content).digest() + content)
            draft.replace(path)
        except OSError as error:
            _note(f"{path.parent} cannot be written: {error.strerror}")
            with suppress(OSError):  # a file system that is read-only says so of what isn't there, too
                draft.unlink(missing_ok=True)
            return
        _Tally.stored += 1

    def _path(self, sig: Any, codegen: Any) -> Path | None:
        folder = cache_folder()
        if folder is None:
            return None
        code = self._function.__code__
        closure = [cell.cell_contents for cell in self._function.__closure__ or ()]
        options = (_config.OPT, _config.LOOP_VECTORIZE, _config.SLP_VECTORIZE, _config.BOUNDSCHECK)
        argument_types, _ = sigutils.normalize_signature(sig)  # a declared one has a return type, a call hasn't
        key = repr((str(argument_types), codegen.magic_tuple(), code.co_firstlineno, options)).encode() + dumps(closure)
        name = f"{self._function.__module__.rpartition('.')[2]}.{self._function.__qualname__}"
        return folder / f"{re.sub('[^A-Za-z0-9_.]', '', name)}-{hashlib.sha256(key).hexdigest()[:20]}.kernel"
