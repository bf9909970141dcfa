"""The rules of the house, read from the sources: who may import whom, what lives where, and how long things get."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

HOUSE = Path(__file__).parent.parent / "streamlstm"
SOURCES = {path.relative_to(HOUSE): path for path in sorted(HOUSE.rglob("*.py"))}

# cli -> service -> { engine | history } -> { events | state | model } -> kernels; cli -> training -> model; transport
# imports config and errors only, evaluation errors only; report draws what evaluation found.
_MATTER = {"events", "state", "model", "kernels", "errors"}
MAY_IMPORT = {
    "errors": set[str](),
    "fault_points": set[str](),
    "config": {"errors"},
    "kernels": {"errors"},
    "events": {"kernels", "errors"},
    "state": {"kernels", "errors"},
    "model": {"kernels", "errors"},
    "evaluation": {"errors"},
    "report": {"evaluation"},
    "training": {"model", "kernels", "errors"},
    "engine": _MATTER,
    "history": {"events", "state", "kernels", "errors"},
    "transport": {"config", "errors", "fault_points"},
    "service": {
        *{"engine", "training", "history", "evaluation", "report", "transport", "config", "fault_points"},
        *_MATTER,
    },
    "cli": {"service", "engine", "training", "history", "config", *_MATTER} - {"kernels"},
    "__main__": {"cli"},
    "__init__": set[str](),
}

# A library -> the only places that may import it, as prefixes of paths in the package.
HOME = {
    "numba": ("kernels/",),
    "llvmlite": ("kernels/",),
    "kafka": ("transport/",),
    "prometheus_client": ("service/metrics.py",),
    "click": ("cli/",),
    "pydantic": ("config/",),
    "h5py": ("model/from_keras", "model/keras", "model/hdf5"),
    "onnx": ("model/from_onnx", "model/onnx"),
    "pyarrow": ("history/arrow",),
    "matplotlib": ("report/", "cli/curves.py"),
    "signal": ("service/", "cli/"),
    "threading": ("service/", "cli/"),
    "socket": ("service/", "cli/", "transport/"),
    "selectors": ("service/", "cli/", "transport/"),
    "socketserver": ("service/", "cli/"),
    "time": ("service/", "cli/"),
    "datetime": ("service/", "cli/"),
    "random": ("service/", "cli/"),
    "torch": (),
    "tensorflow": (),
    "pickle": ("kernels/compile.py",),
}

# Names of a module that are pure although the module has a clock or the environment in it.
PURE = {"datetime": {"datetime", "timedelta", "UTC", "timezone", "date"}}
CLOCK_CALLS = {"now", "utcnow", "today"}
ENVIRONMENT = {"environ", "getenv", "environb"}
READS_ENVIRONMENT = ("service/", "cli/", "kernels/compile.py")
THREAD_POOLS = {"ThreadPoolExecutor", "ProcessPoolExecutor"}

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 50


@dataclass(frozen=True)
class Import:
    """One imported module, `names` taken out of it, at a line."""

    module: str
    names: tuple[str, ...]
    line: int


def tree(path: Path) -> ast.Module:
    return ast.parse(SOURCES[path].read_text(), str(path))


def imports(path: Path) -> Iterator[Import]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield Import(name.name, (), node.lineno)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield Import(node.module or "", tuple(alias.name for alias in node.names), node.lineno)


def room(path: Path) -> str:
    return path.parts[0].removesuffix(".py")


def at_home(path: Path, homes: tuple[str, ...]) -> bool:
    return path.as_posix().startswith(homes) if homes else False


def test_every_file_has_a_room() -> None:
    assert {room(path) for path in SOURCES} == set(MAY_IMPORT)


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_rooms_import_downward_only(path: Path) -> None:
    allowed = MAY_IMPORT[room(path)] | {room(path)}
    wrong = []
    for found in imports(path):
        package, *rest = found.module.split(".")
        if package != "streamlstm":
            continue
        rooms = {rest[0]} if rest else {name for name in found.names if name in MAY_IMPORT}
        wrong += [f"{path}:{found.line}: {room(path)} imports {name}" for name in rooms - allowed]
    assert not wrong


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_libraries_stay_in_their_rooms(path: Path) -> None:
    wrong = []
    for found in imports(path):
        library = found.module.split(".")[0]
        if library == "os" and ENVIRONMENT & set(found.names):
            wrong.append(f"{path}:{found.line}: imports the environment by another name")
        pure = found.names and set(found.names) <= PURE.get(library, set())
        if library in HOME and not pure and not at_home(path, HOME[library]):
            wrong.append(f"{path}:{found.line}: imports {found.module}, which belongs to {HOME[library]}")
    assert not wrong


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_clock_environment_and_threads_at_the_edge_only(path: Path) -> None:
    wrong = []
    for node in ast.walk(tree(path)):
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
        if isinstance(node, ast.Attribute) and name in ENVIRONMENT and not at_home(path, READS_ENVIRONMENT):
            wrong.append(f"{path}:{node.lineno}: reads the environment")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CLOCK_CALLS:
            of_datetime = ast.unparse(node.func.value) in ("datetime", "date", "datetime.datetime", "datetime.date")
            if of_datetime and not at_home(path, ("service/", "cli/")):
                wrong.append(f"{path}:{node.lineno}: reads the clock")
        if name in THREAD_POOLS and not at_home(path, ("service/", "cli/")):
            wrong.append(f"{path}:{node.lineno}: starts threads")
    assert not wrong


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_one_decorator_compiles(path: Path) -> None:
    """numba's own decorators appear in kernels/compile.py alone, intrinsics apart; no fast-math anywhere."""
    if path.as_posix() == "kernels/compile.py":
        return
    wrong = []
    for node in ast.walk(tree(path)):
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
        if name in {"njit", "jit", "vectorize", "guvectorize"}:
            wrong.append(f"{path}:{node.lineno}: {name}")
        if isinstance(node, ast.keyword) and node.arg in {"fastmath", "parallel"}:
            wrong.append(f"{path}:{node.value.lineno}: {node.arg}")
    assert not wrong


@pytest.mark.parametrize("path", [path for path in SOURCES if room(path) != "kernels"], ids=str)
def test_nothing_a_reader_must_scroll(path: Path) -> None:
    text = SOURCES[path].read_text()
    assert text.count("\n") <= MAX_FILE_LINES
    long = [
        f"{path}:{node.lineno}: {node.name} has {length} lines"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > MAX_FUNCTION_LINES
    ]
    assert not long


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    found = tree(path)
    assert ast.get_docstring(found) or not found.body


def test_no_name_that_says_nothing() -> None:
    for path in SOURCES:
        assert path.stem not in {"utils", "util", "helpers", "common", "core", "misc", "manager"}, path


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = "numba llvmlite kafka numpy pydantic prometheus_client"
    program = f"import sys, streamlstm.cli; print(*(set(sys.modules) & set('{heavy}'.split())))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == ""
