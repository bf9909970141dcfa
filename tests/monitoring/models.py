"""The models of the monitored replicas: one that `train` makes, one that is worse than no model, one that is slow."""

import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from streamlstm.model.golden import make_golden
from streamlstm.model.model_file import Model, default_inputs, load, no_scaling, save
from tests.daemon_process import random_parameters
from tests.monitoring.fleet import STREAMS, plausible
from tests.trust.models import write_model

HISTORY = 400
SECONDS_BETWEEN = STREAMS / 200


def write_models(folder: Path) -> dict[str, Path]:
    return {"good": _trained(folder), "bad": _untrained(folder), "heavy": _heavy(folder)}


def _trained(folder: Path) -> Path:
    chance, history, path = random.Random(1), folder / "history.csv", folder / "good.safetensors"
    lines = [
        f"stream-{stream},{round(1_730_000_000_000 + 1000 * n * SECONDS_BETWEEN)},{plausible(chance, stream, n)}"
        for n in range(HISTORY)
        for stream in range(STREAMS)
    ]
    history.write_text("\n".join(["stream,ts,value", *lines]) + "\n")
    command = ["train", str(history), "-o", str(path), "--time-limit", "60", "--threads", "1"]
    subprocess.run([sys.executable, "-m", "streamlstm", *command], check=True, stdout=subprocess.DEVNULL)
    return path


def _untrained(folder: Path) -> Path:
    """With intervals, so that it is judged, and without the guard that would save it."""
    path = write_model(folder / "bad.safetensors", "judged")
    save(replace(load(path), guard=False, model_hash=""), path)
    return path


def _heavy(folder: Path) -> Path:
    """Some hundred events per second and core."""
    parameters, path = random_parameters(hidden=256, layers=2), folder / "heavy.safetensors"
    model = Model(
        parameters=parameters, window=60, inputs=default_inputs(1), target=0, predicts="value", horizons=(1,),
        scaling=no_scaling(1), interval_ms=None, origin={}, golden=make_golden(parameters, 60),
    )  # fmt: skip
    save(model, path)
    return path
