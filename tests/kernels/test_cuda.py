"""The CUDA twin in Numba's simulator, in a process of its own: whether Numba simulates is decided when it's imported.

And how its work is cut up, which needs no device; and what is said where there is none.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from numpy.random import default_rng
from reference import random_parameters

from streamlstm.engine.backend import make_backend, row_layout
from streamlstm.errors import ConfigError
from streamlstm.kernels import cuda_launch, cuda_layout
from streamlstm.kernels.layout import Layout

ROOT = Path(__file__).parents[2]


def test_bits_and_behaviour_in_the_simulator() -> None:
    files = sorted(map(str, (ROOT / "tests" / "cuda").glob("check_*.py")))
    done = subprocess.run(
        [sys.executable, "-c", "import sys, pytest; sys.setswitchinterval(1e-5); sys.exit(pytest.main(sys.argv[1:]))",
         "-q", "-x", "-p", "no:cacheprovider", *files],
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


def test_another_backend_never_stands_in() -> None:
    if cuda_launch.missing() == "":
        pytest.skip("there is a device: `make test-cuda` has the rest")
    p = random_parameters(default_rng(0), 1, (3,), 1)
    with pytest.raises(ConfigError, match=r'engine.backend is "cuda": .*expected'):
        make_backend("cuda", p, row_layout(p), 10)
