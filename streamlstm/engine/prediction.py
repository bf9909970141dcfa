"""From inputs to forecasts: into the network's unit, one step of each stream's state, back to the unit of the target,
and the judgement of what the stream's earlier forecasts were worth.
"""

from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from streamlstm.engine.backend import Backend, BackendName, make_backend
from streamlstm.engine.columns import Columns
from streamlstm.errors import ConfigError, ModelFileError
from streamlstm.kernels import anomaly as anomaly_kernel
from streamlstm.kernels import features, observe
from streamlstm.kernels import judge as judging
from streamlstm.kernels.judge_layout import TOTALS, JudgeLayout, rates
from streamlstm.kernels.layout import WORD, Layout, StateDtype
from streamlstm.model.golden import check_golden
from streamlstm.model.model_file import Model, ScalingKind

DEFAULT_LEVEL = 0.9
"""What the intervals of a guard are made for where none are asked for."""
DIRECTIONS = {"both": anomaly_kernel.BOTH, "up": anomaly_kernel.UP, "down": anomaly_kernel.DOWN}


@dataclass(frozen=True, slots=True)
class AnomalySettings:
    """Which deviations can be anomalous: on these sides of what is expected, and of at least `min_deviation`, in the
    unit of the target, and `min_deviation_ratio` times the size of the stream's mean.
    """

    direction: Literal["both", "up", "down"] = "both"
    min_deviation: float = 0.0
    min_deviation_ratio: float = 0.0


def is_judged(model: Model) -> bool:
    """Whether the model's forecasts pass the judge: it has a guard, or intervals."""
    return model.guard or model.level > 0.0


def row_layout(model: Model, state_dtype: StateDtype) -> Layout:
    """The arena row that `model` needs: state or ring, then the header of kernels/layout.py.

    Raises ConfigError for a model that has no state to be stored as anything but float32.
    """
    if model.window and state_dtype != "float32":
        raise ConfigError(
            [
                f'engine.state_dtype: expected "float32", as a model with a window ({model.window} events) keeps '
                f'inputs and no state; found "{state_dtype}"'
            ]
        )
    p, own = model.parameters, model.features
    moments = 2 * p.inputs if model.scaling.kind is ScalingKind.RUNNING else 0
    longest = max(own.lags) if own is not None else 0
    judge_words = 0
    if is_judged(model):
        judged = _judge_layout(model)
        longest = max(longest, judged.longest_lag)
        judge_words = judged.words
    return Layout(
        inputs=p.inputs,
        hidden=p.hidden,
        outputs=p.outputs,
        window=model.window,
        moments=moments,
        received=len(model.inputs) if own is not None else 0,
        history=features.history_length(longest) if longest else 0,
        judge=judge_words,
        state_dtype=state_dtype,
    )


def _judge_layout(model: Model) -> JudgeLayout:
    return JudgeLayout(model.horizons, model.features.period if model.features is not None else 0)


class Prediction:
    """`limit`: the largest |(x - offset) / scale| of an input that is let in. `totals` float64 [O][TOTALS]: what became
    of the forecasts of this process (kernels.judge_layout), for a model that is judged.
    """

    def __init__(
        self,
        model: Model,
        layout: Layout,
        max_streams: int,
        executor: Executor | None,
        threads: int,
        anomaly: AnomalySettings,
        backend: BackendName = "cpu",
    ) -> None:
        """`layout` is that of a whole row; `self.layout` that of the backend's arena. Raises ModelFileError when the
        kernels don't reproduce the model's golden vectors, ConfigError when the backend can't be had.
        """
        self.model = model
        _check_kernels(model, layout, executor, threads, backend)
        self.backend = make_backend(backend, model.parameters, layout, max_streams, executor, threads)
        self.layout = layout = self.backend.layout
        self.running = model.scaling.kind is ScalingKind.RUNNING
        step_limit = _step_limit(model, self.backend)
        self.limit = observe.RUNNING_LIMIT if self.running else step_limit
        self.offset = np.asarray(model.scaling.offset, np.float64)
        self.scale = np.asarray(model.scaling.scale, np.float64)
        if self.running:  # of the limit; what reaches the step is scaled by the stream's own moments
            self.offset, self.scale = np.zeros_like(self.offset), np.ones_like(self.scale)
        if model.features is not None:
            self.offset[model.target], self.scale[model.target] = 0.0, 1.0
        if layout.history:
            self.limit = min(self.limit, _history_limit(self.offset[model.target], self.scale[model.target]))
        self.rows = self.backend.arena.view(np.int64)
        self._moments = self.backend.arena.view(np.float64)
        if model.features is not None:
            self._lags = np.asarray(model.features.lags, np.int64)
            self._fed = np.asarray(model.features.fed, np.int64)
            lanes = features.lanes_of(len(self._lags))
            self._skip = np.zeros((layout.outputs, lanes), np.float32)
            self._skip[:, : len(self._lags)] = model.features.skip
            self._differences = np.zeros(lanes, np.float32)
        if layout.judge:
            history_at = WORD * layout.history_at
            self._plan = _judge_layout(model).plan(
                ring_at=history_at + features.VALUES, anchor_at=history_at + features.ANCHOR,
                pending_at=WORD * layout.judge_at, yhat_at=WORD * layout.yhat_at, ring=layout.history,
                target=model.target, guards=model.guard, direction=DIRECTIONS[anomaly.direction],
            )  # fmt: skip
            self._least = np.array([anomaly.min_deviation, anomaly.min_deviation_ratio])
            self._rates = rates(model.horizons, model.level or DEFAULT_LEVEL)
        self.totals = np.zeros((len(model.horizons) if layout.judge else 0, TOTALS))

    @property
    def most_events(self) -> int:
        """Of one stream in one call of `advance`."""
        return features.MOST_EVENTS if self.layout.history else observe.NEVER

    def advance(self, c: Columns, given: NDArray[np.float64], x: NDArray[np.float64], start: int, stop: int) -> None:
        """Forecast rows [start, stop) of c, which have been observed, from their inputs x float64 [N, F]: what was
        given, and what was missing filled in.
        """
        n, rows = stop - start, slice(start, stop)
        slot = c.slot[rows]
        if self.model.features is not None:
            self._relate(c, x, rows)
        else:
            self._scale(c, x, rows)
        self.backend.step(slot, c.x[rows], c.y[rows], n)
        if self.model.features is not None:
            features.add_network(n, slot, c.y[rows], c.base[rows], c.y_scale[rows], c.yhat[rows])
        else:
            observe.unscale(
                n, slot, c.y[rows], c.y_base[rows], c.y_scale[rows], self.rows, self.layout.yhat_at, c.yhat[rows]
            )
        if self.layout.judge:
            judging.judge(
                n, self._plan, self._rates, self._least, self.totals, slot, c.n_seen[rows], c.status[rows],
                given[rows], x[rows], self.rows, c.yhat[rows], c.lower[rows], c.upper[rows], c.score[rows],
            )  # fmt: skip
        elif self.model.features is not None:
            features.keep(n, slot, c.yhat[rows], self.rows, self.layout.yhat_at)

    def _relate(self, c: Columns, x: NDArray[np.float64], rows: slice) -> None:
        own, layout = self.model.features, self.layout
        assert own is not None
        features.relate(
            rows.stop - rows.start, c.slot[rows], c.n_seen[rows], x[rows], self.model.target, self.rows,
            layout.history_at, layout.history, own.scale_window, self._lags, self._fed, self._skip,
            self._differences, self.offset, self.scale, c.x[rows], c.base[rows], c.y_scale[rows],
        )  # fmt: skip

    def _scale(self, c: Columns, x: NDArray[np.float64], rows: slice) -> None:
        n, slot, model, layout = rows.stop - rows.start, c.slot[rows], self.model, self.layout
        change = model.predicts == "change"
        if self.running:
            observe.scale_running(
                n, slot, c.n_seen[rows], x[rows], self._moments, layout.moments_at, model.scaling.window,
                model.target, change, c.x[rows], c.y_base[rows], c.y_scale[rows],
            )  # fmt: skip
        else:
            observe.scale_fixed(
                n, slot, x[rows], self.offset, self.scale, model.target, change,
                c.x[rows], c.y_base[rows], c.y_scale[rows],
            )  # fmt: skip
        if layout.history:
            features.remember(
                n, slot, c.n_seen[rows], x[rows], model.target, self.rows, layout.history_at, layout.history,
                features.DEFAULT_WINDOW,
            )  # fmt: skip


def _history_limit(offset: float, scale: float) -> float:
    """Largest scaled value of the target that a history takes."""
    limit = (features.LIMIT - abs(offset)) / scale
    if limit <= 0.0:
        expected = f"numbers that let values up to {features.LIMIT:g} in"
        raise ModelFileError(
            "scaling", "too large for a guard or intervals", expected=expected, found=f"{offset:g} and {scale:g}"
        )
    return float(limit)


def _step_limit(model: Model, backend: Backend) -> float:
    """Largest scaled input that is let into the step; see kernels.layout.input_limit for the proof.

    Running scaling bounds |x'| by itself: with weight a >= 1/window for the current event, x - mean = (1 - a) d and
    var >= a (1 - a) d^2, so |x'| <= sqrt((1 - a) / a) < sqrt(window). Lags are cut off. The limit only has to be above.
    """
    limit = float(backend.input_limit)
    needed, why = 0.0, ""
    if model.scaling.kind is ScalingKind.RUNNING:
        needed, why = model.scaling.window**0.5, "running scaling"
    elif model.features is not None:
        needed, why = features.CLIP, "lags as inputs"
    if limit < needed:
        expected = f"safe inputs up to {needed:.3g}"
        raise ModelFileError("weights", f"too large for {why}", expected=expected, found=f"{limit:.3g}")
    return limit


def _check_kernels(model: Model, layout: Layout, executor: Executor | None, threads: int, name: BackendName) -> None:
    """Re-run the golden vectors through the very kernels that will serve: with a float32 state, as any other moves a
    forecast by more than their tolerance.
    """
    layout = replace(layout, state_dtype="float32")

    def run(x: NDArray[np.float32]) -> NDArray[np.float64]:
        sequences, steps, _ = x.shape
        backend = make_backend(name, model.parameters, layout, sequences, executor, threads)
        slots = np.arange(sequences, dtype=np.int64)
        y = np.zeros((sequences, steps, model.parameters.outputs), np.float32)
        for t in range(steps):
            now = np.zeros((sequences, model.parameters.outputs), np.float32)
            backend.step(slots, np.ascontiguousarray(x[:, t]), now, sequences)
            y[:, t] = now
        return y.astype(np.float64)

    check_golden(model.golden, run)
