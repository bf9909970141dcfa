"""Models of the kinds whose state differs: carried, windowed, and scaled by the stream's own past."""

from pathlib import Path

from streamlstm.model.golden import make_golden
from streamlstm.model.model_file import Model, Scaling, ScalingKind, default_inputs, no_scaling, save
from tests.daemon_process import random_parameters

KINDS = ("carry", "window", "running")


def write_model(path: Path, kind: str) -> Path:
    """A model of one input, 20 units in two layers and two horizons."""
    parameters = random_parameters(hidden=20, outputs=2, layers=2)
    window = 12 if kind == "window" else 0
    scaling = Scaling(ScalingKind.RUNNING, (0.0,), (1.0,), 50) if kind == "running" else no_scaling(1)
    model = Model(
        parameters=parameters, window=window, inputs=default_inputs(1), target=0,
        predicts="change" if kind == "running" else "value", horizons=(1, 3), scaling=scaling, interval_ms=None,
        origin={}, golden=make_golden(parameters, window),
    )  # fmt: skip
    save(model, path)
    return path
