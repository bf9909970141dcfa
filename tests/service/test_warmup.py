"""What is compiled beforehand is all that serving calls, whatever the model and the settings."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from streamlstm.kernels import compile as kernel_compiler
from streamlstm.service import warmup

SERVE = """
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from deploy.demo.compile_kernels import smallest_model
from streamlstm.config import load
from streamlstm.kernels import compile as kernel_compile
from streamlstm.model.model_file import default_inputs, no_scaling
from streamlstm.service.warmup import warm_up
from tests.daemon_process import random_parameters
from streamlstm.model.golden import make_golden

def plain(inputs, hidden, layers, outputs, window):
    parameters = random_parameters(inputs, hidden, outputs, layers)
    return replace(
        smallest_model(), parameters=parameters, window=window, inputs=default_inputs(inputs), predicts="value",
        horizons=tuple(range(1, outputs + 1)), scaling=no_scaling(inputs), features=None, level=0.0, guard=False,
        golden=make_golden(parameters, window),
    )

def handled():
    return kernel_compile._Tally.loaded + kernel_compile._Tally.compiled

kernel_compile.compile_all()
before = handled()
assert before
settings = (["input.format=raw"], ["events.missing=hold", "state.on_full=evict", "output.compression=lz4"], [])
with ThreadPoolExecutor(1) as executor:
    for model in (smallest_model(), plain(1, 50, 1, 1, 0), plain(3, 20, 2, 5, 4)):
        for each in settings:
            warm_up(load(None, {}, each), model, executor)
print(handled() - before)
"""


def test_serving_compiles_nothing_more() -> None:
    done = subprocess.run([sys.executable, "-c", SERVE], capture_output=True, text=True, timeout=250, check=False)
    assert done.stdout == "0\n", done.stderr


COMPILE_APART = """
from streamlstm.kernels import compile as kernel_compile, waves
from streamlstm.service.warmup import compile_apart
before = kernel_compile.lacking()
compile_apart()
compiled = kernel_compile.kernel_counts()
kernel_compile.warm_up()
print(before > 10, kernel_compile.lacking(), compiled["compiled"], kernel_compile.kernel_counts()["compiled"])
"""


def test_what_the_cache_lacks_is_compiled_by_another_process(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMPILE_APART], env={**os.environ, "STREAMLSTM_CACHE_DIR": str(tmp_path)},
        capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.stdout == "True 0 0 0\n", done.stderr


@pytest.mark.parametrize(
    ("program", "error"), [("/bin/false", "exit code 1"), ("/nowhere/python", "No such file or directory")]
)
def test_where_that_fails_it_is_said(
    program: str, error: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kernel_compiler, "lacking", lambda: 1)
    monkeypatch.setattr(sys, "executable", program)
    with caplog.at_level(logging.WARNING):
        warmup.compile_apart()
    (record,) = caplog.records
    assert error in record.error  # type: ignore[attr-defined]


def test_a_full_cache_needs_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_compiler, "lacking", lambda: 0)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    warmup.compile_apart()


@pytest.mark.parametrize("base", ["", "a file"])
def test_nothing_is_lacking_where_nothing_can_be_kept(base: str, tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    code = "from streamlstm.kernels import compile, waves; print(compile.lacking())"
    inherited = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME")}
    where = str(tmp_path / base) if base else ""
    done = subprocess.run(
        [sys.executable, "-c", code], env={**inherited, "STREAMLSTM_CACHE_DIR": where}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == "0\n", done.stderr
