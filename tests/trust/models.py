"""Models of the kinds whose state differs: carried, windowed, scaled by the stream's own past, and with lags of it, a
guard and intervals.
"""

from pathlib import Path
from typing import Any

import numpy as np

from streamlstm.model.features import Features
from streamlstm.model.golden import make_golden
from streamlstm.model.model_file import Model, Scaling, ScalingKind, default_inputs, no_scaling, save
from tests.daemon_process import random_parameters

KINDS = ("carry", "window", "running", "judged")


def _judged() -> dict[str, Any]:
    skip = np.random.default_rng(8).uniform(-0.3, 0.3, (2, 5)).astype(np.float32)
    return {"features": Features((1, 2, 3, 11, 12), (0, 3, 4), 100, 12, skip), "level": 0.9, "guard": True}


def write_model(path: Path, kind: str) -> Path:
    """A model of one input, 20 units in two layers and two horizons."""
    judged = _judged() if kind == "judged" else {}
    parameters = random_parameters(hidden=20, outputs=2, layers=2, inputs=3 if judged else 1)
    window = 12 if kind == "window" else 0
    scaling = Scaling(ScalingKind.RUNNING, (0.0,), (1.0,), 50) if kind == "running" else no_scaling(1)
    model = Model(
        parameters=parameters, window=window, inputs=default_inputs(1), target=0,
        predicts="change" if kind in ("running", "judged") else "value", horizons=(1, 3), scaling=scaling,
        interval_ms=None, origin={}, golden=make_golden(parameters, window), **judged,
    )  # fmt: skip
    save(model, path)
    return path
