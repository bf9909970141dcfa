"""The cache of compiled kernels: every way in which its folder can be wrong ends in a right result."""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from llvmlite.binding import get_host_cpu_features

from streamlstm.kernels import compile as kernel_compile
from streamlstm.kernels.compile import compile_only_declared, compiled, warm_up
from streamlstm.kernels.cpu_level import BASELINE, LEVELS, highest_level
from streamlstm.kernels.hash_table import __name__ as a_kernel_module

USE_A_KERNEL = """
import numpy as np
from streamlstm.kernels.compile import cache_status
from streamlstm.kernels.waves import _forget
slots, waves = np.array([3, 1]), np.array([0, -1], np.int32)
seen, repeats = np.full(1, 255, np.uint8), np.full(9, 5, np.int32)
_forget(2, slots, *(a.ctypes.data for a in (seen, repeats, waves)))
assert seen[0] == 0 and repeats.tolist() == [5, 5, 5, 0, 5, 5, 5, 5, 5]
print(cache_status())
"""
IMPORT_ALL = """
import pkgutil, streamlstm.kernels as kernels
for module in pkgutil.iter_modules(kernels.__path__):
    if not module.name.startswith("cuda"):  # those need numba-cuda, and compile when they are launched
        __import__(f"streamlstm.kernels.{module.name}")
from streamlstm.kernels import compile
assert compile._Tally.compiled == compile._Tally.loaded == 0
"""


def run(code: str, **environment: str) -> str:
    """Output of `code` in a process of its own, with `environment` over this one's; warnings are errors."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "STREAMLSTM_"))}
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def use(base: Path, **environment: str) -> str:
    return run(USE_A_KERNEL, STREAMLSTM_CACHE_DIR=str(base), **environment)


def kernels_in(base: Path) -> list[Path]:
    return sorted(base.glob("streamlstm/*/*.kernel"))


@pytest.fixture(scope="module")
def filled_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("cache")
    assert "0 loaded, 1 compiled, 1 stored" in use(base)
    return base


@pytest.fixture
def filled(filled_once: Path, tmp_path: Path) -> Path:
    """A cache of its own, with everything in it that `use` needs."""
    for kernel in kernels_in(filled_once):
        copy = tmp_path / kernel.relative_to(filled_once)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(kernel.read_bytes())
    return tmp_path


def test_importing_kernels_compiles_nothing_and_touches_no_disk(tmp_path: Path) -> None:
    run(IMPORT_ALL, STREAMLSTM_CACHE_DIR=str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_the_second_process_loads(filled: Path) -> None:
    status = use(filled)
    assert status.startswith(f"kept in {filled}/streamlstm/")
    assert "1 loaded, 0 compiled, 0 stored\n" in status


def test_where_the_folder_is(tmp_path: Path) -> None:
    code = "from streamlstm.kernels.compile import cache_folder; print(cache_folder().parent)"
    places = {"STREAMLSTM_CACHE_DIR": "a", "XDG_CACHE_HOME": "b", "HOME": "c"}
    environment = {name: str(tmp_path / place) for name, place in places.items()}
    for name, found in (("STREAMLSTM_CACHE_DIR", "a"), ("XDG_CACHE_HOME", "b"), ("HOME", "c/.cache")):
        assert run(code, **environment).strip() == str(tmp_path / found / "streamlstm")
        environment[name] = ""


def test_the_folder_changes_with_the_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for file in ("cell.py", "cpu.py"):
        (tmp_path / file).write_text("one")
    monkeypatch.setattr(kernel_compile, "_HERE", tmp_path)
    version = kernel_compile._version.__wrapped__
    first = version()
    assert version() == first
    (tmp_path / "cell.py").write_text("two")
    changed = version()
    assert changed != first
    monkeypatch.setattr(kernel_compile.llvmlite, "__version__", "0")
    assert version() != changed


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "streamlstm").write_text("in the way")
    status = use(tmp_path)
    assert status.startswith("compiled in memory only; 0 loaded, 1 compiled, 0 stored; ")
    assert "cannot be made: " in status


def test_no_home() -> None:
    status = run(USE_A_KERNEL, STREAMLSTM_CACHE_DIR="", XDG_CACHE_HOME="", HOME="")
    assert "neither STREAMLSTM_CACHE_DIR, XDG_CACHE_HOME nor HOME is set" in status


REFUSE_WRITES = """
import errno, pathlib
def refuse(self, content):
    raise OSError(errno.EROFS, "Read-only file system")
pathlib.Path.write_bytes = refuse
"""


def test_a_filled_folder_that_cannot_be_written_still_serves(filled: Path) -> None:
    status = run(REFUSE_WRITES + USE_A_KERNEL, STREAMLSTM_CACHE_DIR=str(filled))
    assert "1 loaded, 0 compiled, 0 stored\n" in status


def test_an_empty_folder_that_cannot_be_written(tmp_path: Path) -> None:
    status = run(REFUSE_WRITES + USE_A_KERNEL, STREAMLSTM_CACHE_DIR=str(tmp_path))
    assert "0 loaded, 1 compiled, 0 stored; " in status
    assert "cannot be written: Read-only file system\n" in status
    assert not kernels_in(tmp_path)


GIVE_UP_ROOT = """
import os
from streamlstm.kernels.compile import compiled
@compiled
def loads_the_compiler(a): return 2 * a
assert loads_the_compiler(1) == 2
if os.geteuid() == 0:
    os.seteuid(65534)
"""


def test_a_folder_without_write_permission(filled: Path) -> None:
    with tempfile.TemporaryDirectory() as reachable:
        base = Path(reachable)
        shutil.copytree(filled, base, dirs_exist_ok=True)
        base.chmod(0o755)
        folder = kernels_in(base)[0].parent
        folder.chmod(0o555)
        environment = {"STREAMLSTM_CACHE_DIR": reachable}
        assert "1 loaded, 0 compiled, 0 stored\n" in run(GIVE_UP_ROOT + USE_A_KERNEL, **environment)
        for kernel in kernels_in(base):
            kernel.chmod(0o000)
        status = run(GIVE_UP_ROOT + USE_A_KERNEL, **environment)
        assert "cannot be read: Permission denied" in status
        assert "cannot be written: Permission denied" in status
        folder.chmod(0o755)


def test_a_folder_that_others_may_write_to_is_not_trusted(filled: Path) -> None:
    folder = kernels_in(filled)[0].parent
    folder.chmod(0o777)
    status = use(filled)
    assert "0 loaded, 1 compiled, 0 stored; " in status
    assert "not trusted" in status


@pytest.mark.parametrize("damage", ["empty", "short", "cut", "flipped", "grown", "folder"])
def test_damaged_files_are_compiled_anew_and_repaired(filled: Path, damage: str) -> None:
    for kernel in kernels_in(filled):
        content = kernel.read_bytes()
        middle = len(content) // 2
        kernel.unlink()
        if damage == "folder":
            kernel.mkdir()
            continue
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        damaged = {
            "empty": b"",
            "short": content[:20],
            "cut": content[:-1],
            "flipped": flipped,
            "grown": content + b"x",
        }
        kernel.write_bytes(damaged[damage])
    status = use(filled)
    assert "0 loaded, 1 compiled" in status
    assert ("cannot be read" if damage == "folder" else "is damaged: compiled anew") in status
    if damage != "folder":
        assert "1 loaded, 0 compiled, 0 stored\n" in use(filled)


def test_a_sound_file_of_another_shape_is_compiled_anew(filled: Path) -> None:
    """As if a future Numba had kept its version and changed its format."""
    import hashlib
    import pickle

    for kernel in kernels_in(filled):
        content = pickle.dumps(("not", "a", "compile", "result"))
        kernel.write_bytes(hashlib.sha256(content).digest() + content)
    status = use(filled)
    assert "0 loaded, 1 compiled, 1 stored" in status
    assert "cannot be used (TypeError" in status


def test_another_cpu_has_kernels_of_its_own(filled: Path) -> None:
    before = kernels_in(filled)
    assert "0 loaded, 1 compiled, 1 stored\n" in use(filled, NUMBA_CPU_NAME="x86-64-v2", NUMBA_CPU_FEATURES="")
    assert "0 loaded, 1 compiled, 1 stored\n" in use(filled, NUMBA_CPU_NAME="x86-64-v2", NUMBA_CPU_FEATURES="+avx")
    assert len(kernels_in(filled)) == 3 * len(before)
    assert "1 loaded, 0 compiled, 0 stored\n" in use(filled)


def test_a_level_needs_all_its_features() -> None:
    names = [BASELINE, *LEVELS]
    for n, (name, added) in enumerate(LEVELS.items()):
        has = {feature for level in names[1 : n + 2] for feature in LEVELS[level]} | {"sse4a", "avx512vbmi"}
        assert highest_level(has) == name
        for missing in added:
            assert highest_level(has - {missing}) == names[n]


CPU_AND_WIDTH = """
import streamlstm.kernels.compile
from streamlstm.kernels.vector import machine
print(*machine())
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="levels are x86-64's")
def test_what_is_compiled_for() -> None:
    has = {feature for feature, there in get_host_cpu_features().items() if there}
    level = highest_level(has)
    vectors = {"x86-64-v4": "AVX-512", "x86-64-v3": "AVX2"}.get(level, "portable")
    assert run(CPU_AND_WIDTH) == f"{level} {vectors}\n"
    assert run(CPU_AND_WIDTH, NUMBA_CPU_NAME="x86-64-v3") == "x86-64-v3 AVX2\n"
    assert run(CPU_AND_WIDTH, NUMBA_CPU_NAME="x86-64-v4", NUMBA_CPU_FEATURES="") == "x86-64-v4 AVX-512\n"
    assert run(CPU_AND_WIDTH, NUMBA_CPU_NAME="x86-64-v2", NUMBA_CPU_FEATURES="+avx,+fma") == "x86-64-v2 AVX2\n"
    assert run(CPU_AND_WIDTH, NUMBA_ENABLE_AVX="0").startswith(highest_level({f for f in has if f[:3] != "avx"}))


DECLARED = """
from streamlstm.kernels import stable_hash
from streamlstm.kernels import compile as kernel_compile
kernel_compile.pkgutil.iter_modules = lambda _: []
print(kernel_compile.compile_all(), kernel_compile.cache_status())
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="levels are x86-64's")
def test_compiled_for_a_level_beforehand_and_found_by_its_name(tmp_path: Path) -> None:
    kernels: dict[str, list[bytes]] = {}
    for level in ("x86-64-v2", "x86-64-v4"):
        before = kernels_in(tmp_path)
        said = run(DECLARED, STREAMLSTM_CACHE_DIR=str(tmp_path), NUMBA_CPU_NAME=level)
        assert said.startswith("2 kept in ")
        assert " 0 loaded" in said
        kernels[level] = sorted(path.read_bytes() for path in set(kernels_in(tmp_path)) - set(before))
    assert len(kernels["x86-64-v2"]) == len(kernels["x86-64-v4"]) > 0
    before = kernels_in(tmp_path)
    assert "; 2 loaded, 0 compiled, 0 stored\n" in run(
        DECLARED, STREAMLSTM_CACHE_DIR=str(tmp_path), NUMBA_CPU_NAME="x86-64-v2"
    )
    assert kernels_in(tmp_path) == before


INSTRUCTIONS = """
import numpy as np
from streamlstm.kernels.compile import compiled
@compiled
def squares(values, out):
    for n in range(values.shape[0]):
        out[n] = values[n] * values[n]
squares(np.ones(8), np.ones(8))
(text,) = squares.inspect_asm().values()
print("zmm" in text or "{%k" in text, "ymm" in text)
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="levels are x86-64's")
def test_the_code_is_that_of_the_level() -> None:
    """Its name alone would be a promise: v2 has vectors of 128 bits, v3 of 256."""
    assert run(INSTRUCTIONS, NUMBA_CPU_NAME="x86-64-v2") == "False False\n"
    assert run(INSTRUCTIONS, NUMBA_CPU_NAME="x86-64-v3") == "False True\n"


def test_runs_without_a_compiler_too() -> None:
    code = """
from streamlstm.kernels.compile import compiled, inlined, warm_up, compile_only_declared
@compiled("int64(int64)")
def double(a): return 2 * a
compile_only_declared(double)
assert double(21) == 42 and inlined(double)(1) == 2 and warm_up() == 0
"""
    run(code, NUMBA_DISABLE_JIT="1")


def test_a_function_elsewhere_is_compiled_in_memory() -> None:
    @compiled
    def double(a: int) -> int:
        return 2 * a

    assert double(21) == 42
    assert double._cache.cache_path is None  # type: ignore[attr-defined]


def test_declared_signatures() -> None:
    @compiled("float64(float64)")
    def half(a: float) -> float:
        return a / 2

    assert half.signatures == []  # type: ignore[attr-defined]
    assert half(3) == 1.5
    assert len(half.signatures) == 1  # type: ignore[attr-defined]
    compile_only_declared(half)
    assert half(3.0) == 1.5
    with pytest.raises(TypeError, match="No matching definition"):
        half("text")  # type: ignore[arg-type]


def test_division_follows_ieee() -> None:
    @compiled
    def divide(a: float, b: float) -> float:
        return a / b

    assert divide(1.0, 0.0) == float("inf")


def test_warm_up_compiles_what_is_declared() -> None:
    from streamlstm.kernels import cpu

    assert a_kernel_module in sys.modules
    assert warm_up() >= 1
    assert len(cpu.step.signatures) == 1  # type: ignore[attr-defined]
    assert warm_up() >= 1
