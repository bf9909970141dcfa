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


@pytest.mark.parametrize(("file", "expect"), ROWS)
def test_import_stays_within_its_limits(file: str, expect: str, tmp_path: Path) -> None:
    output = tmp_path / "model.safetensors"
    marker = tmp_path / "payload-ran"
    command = [sys.executable, "-m", "streamlstm", "import", str(FIXTURES / file), "-o", str(output), "--carry"]
    environment = os.environ | {"STREAMLSTM_PWN_MARKER": str(marker)}
    log = tmp_path / "stderr"
    with log.open("wb") as stderr:
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr, env=environment, cwd=tmp_path)
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    allowed = {"import": (0,), "either": (0, 65), "refuse": (65,)}[expect]
    assert child.returncode in allowed, log.read_text()
    assert output.exists() == (child.returncode == 0)
    assert usage.ru_maxrss < MAX_RESIDENT_KIB
    assert usage.ru_utime + usage.ru_stime < MAX_SECONDS
    assert not marker.exists()
    assert "Traceback" not in log.read_text()
