"""Compile the kernels for compute capability 9.0 without a device, and read what came out: the extra [cuda] is enough.

    .venv/bin/python -m tests.cuda.ptx

The bits rest on it: every addition, product, division and fused multiply-add rounds to nearest and is none that a later
compiler may contract, subnormals aren't flushed, and the gate sums are registers, not memory. ptxas, where it is
installed, says how many registers, and whether any spill.
"""

import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from numba import cuda, types
from numba.cuda import api, dispatcher

from streamlstm.kernels import cuda as kernels
from streamlstm.kernels.compile import MOST_REGISTERS

CAPABILITY = (9, 0)
WORDS, NUMBERS, REALS, TABLE = (
    types.Array(element, dimensions, "C")
    for element, dimensions in ((types.int64, 1), (types.int32, 1), (types.float32, 1), (types.float32, 2))
)
ROWS, HALVES = types.Array(types.int64, 2, "C"), types.Array(types.uint16, 1, "C")
SIGNATURES = {
    "step": (WORDS, REALS, WORDS, REALS, HALVES, types.int64, NUMBERS, TABLE, TABLE),
    "read_rows": (WORDS, types.int64, NUMBERS, ROWS),
    "write_rows": (WORDS, types.int64, NUMBERS, ROWS),
    "clear_rows": (WORDS, types.int64, NUMBERS),
    "clear_all": (WORDS,),
}


def compile_all() -> dict[str, str]:
    device = SimpleNamespace(compute_capability=CAPABILITY)  # device functions ask for one while they are compiled
    for module in (api, dispatcher):
        module.get_current_device = lambda: device  # type: ignore[attr-defined]
    compiled = {}
    for name, arguments in SIGNATURES.items():
        compiled[name], _ = cuda.compile_ptx(getattr(kernels, name).py_func, arguments, cc=CAPABILITY)
    return compiled


def problems(ptx: str) -> list[str]:
    found = Counter(re.findall(r"^\s+(?:@!?%p\d+ )?([a-z][a-z0-9_.]*)\s", ptx, re.MULTILINE))
    inexact = re.compile(r"(add|sub|mul|div|mad|sqrt|rcp|ex2|tanh)\.(?!rn\.).*f(32|64)$")
    wrong = [f"{name} ({count})" for name, count in found.items() if inexact.match(name) or ".ftz" in name]
    if ".local" in ptx:
        wrong.append("local memory")
    return wrong


def report_of_ptxas(ptx: str) -> str:
    tool: Any = next(Path(sys.prefix).rglob("cuda_nvcc/bin/ptxas"), None)
    if tool is None:
        return "no ptxas"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "step.ptx")
        source.write_text(ptx)
        options = ["-arch=sm_90", f"-maxrregcount={MOST_REGISTERS}", "-v", "-o", f"{folder}/step.cubin"]
        done = subprocess.run([tool, *options, source], capture_output=True, text=True, check=True)
    return "; ".join(re.findall(r"\d+ bytes [a-z ]+|Used \d+ registers", done.stderr))


def main() -> None:
    bad = False
    for name, ptx in compile_all().items():
        wrong = problems(ptx)
        bad = bad or bool(wrong)
        print(f"{name}: {'; '.join(wrong) or 'as it should be'}; {report_of_ptxas(ptx)}")
        if name == "step":
            fused, quads = (ptx.count(what) for what in ("fma.rn.f32", "ld.shared.v4.f32"))
            print(f"{name}: {fused} fused multiply-adds, {quads} loads of four floats from shared memory")
            bad = bad or not (fused and quads and "div.rn.f32" in ptx)
    sys.exit(bad)


if __name__ == "__main__":
    main()
