"""One result for every CPU: the same events give the same bytes whatever Numba compiles for."""

import hashlib
from pathlib import Path

import pytest
from llvmlite.binding import get_host_cpu_features, get_host_cpu_name

from tests.fingerprint import fingerprint

TESTS = Path(__file__).parents[1]

# Rows and outputs of carried and windowed states, the former in each dtype, with every kind of block, several events
# per stream and batch.
FINGERPRINT = f"""
import hashlib, sys
import numpy as np
sys.path.insert(0, {str(TESTS)!r})
from reference import random_parameters
from streamlstm.engine.backend import CpuBackend, row_layout
from streamlstm.kernels.half import as_float32
digest = hashlib.sha256()
for inputs, hidden, outputs in ((1, (50,), 1), (3, (64, 28, 9), 5), (1, (48, 16), 1)):
    for window, dtype in ((0, "float32"), (3, "float32"), (0, "float16"), (0, "bfloat16")):
        parameters = random_parameters(np.random.default_rng(0), inputs, hidden, outputs)
        backend = CpuBackend(parameters, row_layout(parameters, window, state_dtype=dtype), 80)
        rng = np.random.default_rng(1)
        for batch in (1, 2, 5, 40, 200):
            slots, x = rng.integers(0, 80, batch), 3 * rng.normal(size=(batch, inputs)).astype(np.float32)
            y = np.zeros((batch, outputs), np.float32)
            backend.step(slots, x, y, batch)
            digest.update(y.tobytes())
        digest.update(backend.arena.tobytes())
        if dtype != "float32" and hidden == (48, 16):  # any bits, as no block has padding: that stays zero
            backend.arena[:, : backend.layout.state_bytes] = rng.integers(0, 256, (80, backend.layout.state_bytes))
            backend.step(np.arange(80), np.zeros((80, inputs), np.float32), np.zeros((80, outputs), np.float32), 80)
            state = as_float32(backend.arena[:, : backend.layout.state_bytes], dtype)
            digest.update(np.nan_to_num(state).tobytes())
print(digest.hexdigest())
"""


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of the level of x86-64 that this machine has."""
    return fingerprint(FINGERPRINT, tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize(
    ("cpu", "features"),
    [
        (get_host_cpu_name(), get_host_cpu_features().flatten()),  # the very CPU, as Numba compiles if nobody says
        ("x86-64", ""),  # SSE2, no fused multiply-add: libm's fmaf stands in
        ("x86-64-v2", ""),
        ("x86-64-v3", ""),
        ("x86-64-v2", "+avx,+fma"),
    ],
)
def test_narrower_cpus_give_the_same_bytes(native: str, tmp_path: Path, cpu: str, features: str) -> None:
    assert len(native) == hashlib.sha256().digest_size * 2
    assert fingerprint(FINGERPRINT, tmp_path, NUMBA_CPU_NAME=cpu, NUMBA_CPU_FEATURES=features) == native
