"""Models to forecast with, and what their forecasts should be: one event at a time, in float64, from the equations."""

import numpy as np
from reference import Oracle, random_parameters

from streamlstm.model.features import Features
from streamlstm.model.golden import make_golden
from streamlstm.model.model_file import Model, Scaling, ScalingKind, default_inputs, no_scaling

INPUTS = 2
SCALINGS = {
    "none": no_scaling(INPUTS),
    "standard": Scaling(ScalingKind.STANDARD, (10.0, -3.0), (4.0, 0.5)),
    "minmax": Scaling(ScalingKind.MINMAX, (0.0, -5.0), (25.0, 10.0)),
    "running": Scaling(ScalingKind.RUNNING, (0.0, 0.0), (1.0, 1.0), window=30),
}


def make_model(scaling: Scaling, predicts: str = "value", window: int = 0, outputs: int = 3) -> Model:
    parameters = random_parameters(np.random.default_rng(5), INPUTS, (12, 9), outputs)
    return Model(
        parameters=parameters, window=window, inputs=default_inputs(INPUTS), target=1, predicts=predicts,  # type: ignore[arg-type]
        horizons=tuple(range(1, outputs + 1)), scaling=scaling, interval_ms=None, origin={},
        golden=make_golden(parameters, window),
    )  # fmt: skip


LAGS, FED = (1, 2, 5, 6, 11), (0, 2, 4)


def make_featured(*, period: int = 6, level: float = 0.0, guard: bool = False, window: int = 40) -> Model:
    """Lags of input 1, and input 0 as it is; horizons 1, 2 and 7."""
    rng = np.random.default_rng(6)
    parameters = random_parameters(rng, len(FED) + INPUTS - 1, (12,), 3)
    skip = rng.uniform(-0.3, 0.3, (3, len(LAGS))).astype(np.float32)
    return Model(
        parameters=parameters, window=0, inputs=default_inputs(INPUTS), target=1, predicts="change",
        horizons=(1, 2, 7), scaling=SCALINGS["standard"], interval_ms=None, origin={},
        golden=make_golden(parameters, 0), features=Features(LAGS, FED, window, period, skip), level=level, guard=guard,
    )  # fmt: skip


class Anchor:
    """What one stream's values are held by, value by value: see kernels/features.py."""

    def __init__(self, settled: int = 1024) -> None:
        self.settled, self.since, self.held = settled, 0, list[float]()

    def of(self, now: float) -> float:
        number = len(self.held) + 1
        if number == 1:
            self.anchor = now
        if number % 8 == 0 and (self.since == 0 or number - self.since >= self.settled):
            newest = [*self.held[-7:], now]
            if abs(now - self.anchor) > 4096 * (max(newest) - min(newest)):
                self.anchor, self.since = now, number
        most = float(np.finfo(np.float32).max)
        self.held.append(self.anchor + float(np.float32(min(max(now - self.anchor, -most), most))))
        return self.anchor


class ExpectedFeatured:
    """What kernels/features.py says, from whole histories."""

    def __init__(self, model: Model) -> None:
        self.model, self.oracle = model, Oracle(model.parameters)
        self.past: dict[int, tuple[list[float], Anchor]] = {}

    def event(self, stream: int, x: np.ndarray) -> np.ndarray:
        own = self.model.features
        assert own is not None
        past, anchor = self.past.setdefault(stream, ([], Anchor()))
        past.append(float(x[1]))
        anchor.of(past[-1])
        now, kept = past[-1], anchor.held
        mean = 0.0
        for k in range(1, len(past)):
            mean += (abs(past[k] - kept[k - 1]) - mean) / min(k, own.scale_window)
        d = np.array([kept[-1 - lag] - now if lag < len(past) else 0.0 for lag in own.lags])
        unit = mean if mean > 1e-12 * abs(now) else 0.0
        u = np.clip(d[list(own.fed)] / unit, -8, 8) if unit else np.zeros(len(own.fed))
        other = (x[0] - self.model.scaling.offset[0]) / self.model.scaling.scale[0]
        y = self.oracle.event(stream, np.array([*u, other], np.float32))
        return now + own.skip.astype(np.float64) @ d + unit * y


class Expected:
    """What the docstrings say of scaling and stepping."""

    def __init__(self, model: Model) -> None:
        self.model, self.oracle = model, Oracle(model.parameters, model.window)
        self.moments: dict[int, tuple[int, np.ndarray, np.ndarray]] = {}

    def event(self, stream: int, x: np.ndarray) -> np.ndarray:
        model = self.model
        offset, scale = np.array(model.scaling.offset), np.array(model.scaling.scale)
        moved = np.ones(len(x), bool)
        if model.scaling.kind is ScalingKind.RUNNING:
            n, mean, var = self.moments.get(stream, (0, np.zeros(len(x)), np.zeros(len(x))))
            alpha = 1 / min(n + 1, model.scaling.window)
            d = x - mean
            mean, var = mean + alpha * d, (1 - alpha) * (var + alpha * d * d)
            self.moments[stream] = n + 1, mean, var
            moved = np.sqrt(var) > 1e-9 * abs(mean)
            offset, scale = mean, np.where(moved, np.sqrt(var), 0.0)
        scaled = np.where(moved, (x - offset) / np.where(moved, scale, 1.0), 0.0).astype(np.float32)
        y = self.oracle.event(stream, scaled)
        base = x[model.target] if model.predicts == "change" else offset[model.target]
        return np.asarray(base + scale[model.target] * y)
