"""The CUDA twin in Numba's simulator, in a process of its own: whether Numba simulates is decided when it's imported.

And how its work is cut up, which needs no device; and what is said where there is none.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from numpy.random import default_rng
from reference import random_parameters

from streamlstm.config import load
from streamlstm.engine.backend import make_backend, row_layout
from streamlstm.errors import ConfigError
from streamlstm.kernels import cuda_layout
from streamlstm.kernels.layout import Layout
from streamlstm.model.golden import make_golden
from streamlstm.model.model_file import Model, no_scaling
from streamlstm.service.sizing import predict

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(1200)  # a minute on a quiet machine
def test_bits_and_behaviour_in_the_simulator() -> None:
    files = sorted(map(str, (ROOT / "tests" / "cuda").glob("check_*.py")))
    done = subprocess.run(
        [sys.executable, "-c", "import sys, pytest; sys.setswitchinterval(1e-5); sys.exit(pytest.main(sys.argv[1:]))",
         "-q", "-x", "-p", "no:cacheprovider", "-o", "timeout=0", *files],
        cwd=ROOT, env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout


@pytest.mark.parametrize(
    ("inputs", "hidden"),
    [(1, (1,)), (1, (50,)), (1, (64,)), (8, (64, 64)), (4, (128, 128)), (1, (256,)), (3, (300, 7)), (5, (2000, 3000))],
)
def test_the_work_fits_a_block(inputs: int, hidden: tuple[int, ...]) -> None:
    how = cuda_layout.cut(Layout(inputs, hidden, 1), cuda_layout.THREADS, cuda_layout.WARP)
    assert how.shared_bytes <= cuda_layout.SHARED_BYTES
    assert how.units * how.groups <= how.threads <= cuda_layout.THREADS
    assert how.threads % cuda_layout.WARP == 0
    assert how.tile == how.groups * cuda_layout.STREAMS
    assert how.tile * cuda_layout.TABLES % 4 == how.tile % 4 == 0  # loads of four floats need it
    assert 1 <= how.depth <= max(inputs, *hidden) + max(hidden)


def refusal() -> str:
    p = random_parameters(default_rng(0), 1, (3,), 1)
    try:
        return type(make_backend("cuda", p, row_layout(p), 10)).__name__
    except ConfigError as error:
        return str(error)


def test_another_backend_never_stands_in() -> None:
    assert re.match('CudaBackend$|engine.backend is "cuda": .*; expected ', refusal().replace("expected:", "expected"))


def test_the_prediction_of_memory_parts_host_and_device() -> None:
    parameters = random_parameters(default_rng(0), 1, (50,), 1)
    model = Model(
        parameters, 0, ("value",), 0, "value", (1,), no_scaling(1), None, {}, make_golden(parameters, 0, "test")
    )
    here, there = (
        predict(load(None, {}, ["state.max_streams=1000000", f"engine.backend={name}"]), model)
        for name in ("cpu", "cuda")
    )
    assert here.device == ()
    assert there.device[0].per_stream == 416
    assert there.device[0].total == 416_000_000
    assert here.resident_bytes - there.resident_bytes > 300_000_000
    half = predict(load(None, {}, ["engine.backend=cuda", "engine.state_dtype=float16"]), model)
    assert half.device[0].per_stream == 224  # 104 numbers, in whole sectors
    assert "on the GPU" in str(there)
    assert "on the GPU" not in str(here)
