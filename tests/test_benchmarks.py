"""The benchmarks take hours and peers that the tests don't install; but what they use of us has to be there."""

import ast
import importlib
import importlib.machinery
import importlib.util
from pathlib import Path

import pytest

BENCHMARKS = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))
OURS = {path.stem for path in BENCHMARKS}


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.name)
def test_what_a_benchmark_imports_is_there(path: Path) -> None:
    defined = {each.stem: _names(each) for each in BENCHMARKS}
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or node.module is None:
            continue
        for name in (alias.name for alias in node.names):
            if node.module.startswith("streamlstm") and "cuda" in node.module:
                continue  # there with the extra [cuda] alone
            if node.module.startswith("streamlstm"):
                module = importlib.import_module(node.module)
                assert hasattr(module, name) or importlib.util.find_spec(f"{node.module}.{name}"), (
                    f"{node.module}.{name}"
                )
            elif node.module in OURS:
                assert name in defined[node.module], f"{node.module}.{name}"


def test_no_benchmark_hides_a_library() -> None:
    """A folder of scripts comes first on the path: cuda.py would be what torch imports as `cuda`."""
    specs = [importlib.machinery.PathFinder.find_spec(name) for name in OURS]
    found = {spec.name: Path(str(spec.origin)) for spec in specs if spec is not None and spec.has_location}
    assert not [name for name, origin in found.items() if origin not in BENCHMARKS]


def _names(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)}
    return names
