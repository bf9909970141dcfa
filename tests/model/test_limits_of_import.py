"""`streamlstm import` as a process: time, memory and exit code for every fixture."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FIXTURES = Path(__file__).parent.parent / "fixtures"
MANIFEST = json.loads((FIXTURES / "manifest.json").read_text())
# Every bad file, and of the models the largest of each reader.
MODELS = {
    "torch/seed_torch_checkpoint.pt",
    "torch/seed_torch_legacy.pth",
    "torch/seed_torch.safetensors",
    "torch/seed_torch_fullmodel.pt",
    "keras/stacked_keras_2_64_32_3.keras",
    "keras/seed_keras2.h5",
    "keras/seed_keras.weights.h5",
    "keras/seed_keras_savedmodel",
    "onnx/seed_torch_dynamo.onnx",
    "onnx/stacked_keras_2_64_32_3_keras.onnx",
}
ROWS = [(row["file"], row["expect"]) for row in MANIFEST["models"] if row["file"] in MODELS]
ROWS += [(row["file"], "refuse") for row in MANIFEST["bad"]]
MAX_SECONDS = 5.0  # of processor time, its own and of the process that reads HDF5
MAX_RESIDENT_KIB = 300 * 1024

# Measures from a small process: the peak of a child begins with that of the process that it was forked from.
LAUNCHER = """
import json, resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([code, usage.ru_maxrss, usage.ru_utime + usage.ru_stime]))
"""


@pytest.mark.parametrize(("file", "expect"), ROWS)
def test_import_stays_within_its_limits(file: str, expect: str, tmp_path: Path) -> None:
    output = tmp_path / "model.safetensors"
    marker = tmp_path / "payload-ran"
    command = [sys.executable, "-m", "streamlstm", "import", str(FIXTURES / file), "-o", str(output), "--carry"]
    environment = os.environ | {"STREAMLSTM_PWN_MARKER": str(marker)}
    done = subprocess.run(
        [sys.executable, "-c", LAUNCHER, *command],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        check=True,
    )
    code, resident_kib, seconds = json.loads(done.stdout)
    allowed = {"import": (0,), "either": (0, 65), "refuse": (65,)}[expect]
    assert code in allowed, done.stderr
    assert output.exists() == (code == 0)
    assert resident_kib < MAX_RESIDENT_KIB
    assert seconds < MAX_SECONDS
    assert not marker.exists()
    assert "Traceback" not in done.stderr
