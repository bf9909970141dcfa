"""One result for every CPU: the same steps give the same bytes whatever Numba compiles for."""

from pathlib import Path

import pytest

from tests.fingerprint import fingerprint

TESTS = Path(__file__).parents[1]

# Whole and partial tiles and vectors, clipping, dropout, a carried state.
FINGERPRINT = f"""
import hashlib, sys
import numpy as np
sys.path.insert(0, {str(TESTS)!r})
from reference import random_parameters
from streamlstm.training.adam import AdamSettings
from streamlstm.training.steps import Trainer
from streamlstm.training.weights import weights_of
digest, rng = hashlib.sha256(), np.random.default_rng(1)
weights = weights_of(random_parameters(np.random.default_rng(0), 3, (50, 13), 2))
trainer, state = Trainer(weights, adam=AdamSettings(clip_norm=0.3), dropout=0.2), None
for _ in range(5):
    outcome = trainer.step(rng.normal(size=(37, 19, 3)), rng.normal(size=(37, 19, 2)), None, state)
    state = outcome.state
    digest.update(np.array([outcome.loss, outcome.gradient_norm]).tobytes())
digest.update(weights.vector.tobytes())
print(digest.hexdigest())
"""


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> str:
    return fingerprint(FINGERPRINT, tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize("cpu", ["x86-64", "x86-64-v3"])
def test_narrower_cpus_give_the_same_bytes(native: str, tmp_path: Path, cpu: str) -> None:
    """x86-64 has no fused multiply-add: libm's stands in."""
    assert len(native) == 64
    assert fingerprint(FINGERPRINT, tmp_path, NUMBA_CPU_NAME=cpu, NUMBA_CPU_FEATURES="") == native
