"""What is compiled beforehand is all that serving calls, whatever the model and the settings."""

import subprocess
import sys

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
