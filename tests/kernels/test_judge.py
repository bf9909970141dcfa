"""Guard, intervals and self-scoring: bit by bit against the equations in plain Python, and what they promise."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from streamlstm.events.forecast import Status
from streamlstm.kernels import anomaly
from streamlstm.kernels import judge as kernel
from streamlstm.kernels import judge_layout as at
from tests.engine.expected import Anchor

FLOAT_MAX = float(np.finfo(np.float32).max)
CASES = {at.INSIDE: (0, 0), at.LEFT_BELOW: (1, 0), at.LEFT_ABOVE: (0, 1)}  # case -> (missed below, missed above)
Reals = NDArray[np.float64]


def f32(value: float) -> float:
    return float(np.float32(min(max(value, -FLOAT_MAX), FLOAT_MAX)))


def growth(x: float) -> float:
    return (1.0 + x * x / 12.0 + 0.5 * x) / (1.0 + x * x / 12.0 - 0.5 * x)


@dataclass
class Horizon:
    """What the equations carry along for one horizon."""

    h: int
    errors: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])  # model, naive, seasonal
    scale: float = 0.0
    q: list[float] = field(default_factory=lambda: [2.5, 2.5])
    seen: int = 0
    pending: dict[int, tuple[float, float, float, float, float]] = field(default_factory=dict)
    """Of a target the anchor of the origin; model and yhat, less that; widths."""
    sums: list[float] = field(default_factory=lambda: [0.0] * at.TOTALS)

    def meets(self, y: float, anchor: float, target: int, naive: float, seasonal: float, level: float) -> None:
        origin, model, yhat, below, above = self.pending[target]
        emitted = origin + yhat
        residual = y - emitted
        errors = [abs(y - (origin + model)), *(abs(y - (anchor + candidate)) for candidate in (naive, seasonal))]
        for word, amount in (
            (at.SCORED, 1.0), (at.ABSOLUTE, abs(residual)), (at.SQUARED, residual * residual),
            (at.NAIVE_ABSOLUTE, errors[1]), (at.SEASONAL_ABSOLUTE, errors[2]),
        ):  # fmt: skip
            self.sums[word] += amount
        gain = 0.04 / (1.0 + (self.h - 1) / 24.0)
        self.seen += 1
        usual = max(self.scale, self.errors[1])
        limit = min(20.0 * usual, FLOAT_MAX) if usual > 0.0 and self.seen > 4 else FLOAT_MAX
        pace = 1.0 / self.seen if self.seen * gain < 1.0 else gain
        scale = self.scale + pace * (min(abs(residual), limit) - self.scale)
        if below < math.inf:
            case = at.LEFT_BELOW if y < emitted - below else at.LEFT_ABOVE if y > emitted + above else at.INSIDE
            self.sums[at.COVERED + case] += 1.0
            self.sums[at.WIDTHS] += below + above
            both, missing = 0.15 / (1.0 + (self.h - 1) / 8.0), 1.0 - level
            for side in range(2):
                step = both / 8.0 * (CASES[case][side] - missing / 2.0) + both * (sum(CASES[case]) - missing)
                factor = growth((1.0 + (10.0 / self.h) / self.seen) * step if self.seen <= 100 else step)
                self.q[side] = f32(min(max(self.q[side] * factor, 1e-3), 1e4))
        for c, error in enumerate(errors):
            self.errors[c] = f32(self.errors[c] + pace * (min(error, limit) - self.errors[c]))
        self.scale = f32(scale)

    def mixes(self, model: float, naive: float, seasonal: float | None) -> float:
        if self.seen == 0:
            return f32(model)
        errors = [self.errors[0], self.errors[1], math.inf if seasonal is None else self.errors[2]]
        ratios = [(min(errors) + 1e-60) / (error + 1e-60) for error in errors]
        weights = [max((ratio * ratio) * (ratio * ratio) - 0.0016, 0.0) for ratio in ratios]
        change = weights[0] * (model - naive) + weights[2] * ((naive if seasonal is None else seasonal) - naive)
        mixed = naive + change / (weights[0] + weights[2] + weights[1])
        if weights[0] == 0.0:
            return f32(mixed)
        power = (self.errors[0] + 1e-60) / (self.scale + 1e-60)
        for _ in range(4):
            power *= power
        return f32(mixed + 1.0 / (1.0 + 3.0 * power) * (model - mixed))


class Equations:
    """One stream, with all of its past at hand."""

    def __init__(self, horizons: tuple[int, ...], period: int, level: float) -> None:
        self.period, self.level = period, level
        self.horizons = [Horizon(h) for h in horizons]
        self.past: list[tuple[float, float]] = []  # anchor, and the value less that, from the first event on
        self.anchors = Anchor()
        self.first = 0  # the first event since the last gap

    def event(self, y: float, status: int, models: Reals) -> list[tuple[float, float, float]]:
        n, anchor = len(self.past), self.anchors.of(y)
        self.past.append((anchor, f32(y - anchor)))
        if status == Status.GAP:
            self.first = n
        emitted, known = [], None
        for horizon, forecast in zip(self.horizons, models, strict=True):
            h = horizon.h
            lag = self.period * -(-h // self.period) if self.period else 0
            if n - h >= self.first and status != Status.FILLED:
                naive = self.before(n - h)
                seasonal = self.before(n - lag) if lag and n - lag >= self.first else naive
                horizon.meets(y, anchor, n, naive, seasonal, self.level)
            source = n + h - lag
            seasonal_next = self.before(source) if lag and source >= self.first else None
            model = self.before(n) if math.isnan(forecast) else min(max(forecast - anchor, -FLOAT_MAX), FLOAT_MAX)
            mixed = horizon.mixes(model, self.before(n), seasonal_next)
            known = horizon if horizon.seen else known
            widths = [math.inf, math.inf]
            if known:
                unit = known.scale * (1.0 + 3.0 / known.seen if known.seen <= 100 else 1.0)
                unit *= h / known.h if known.h != h else 1.0
                widths = [f32(q * unit) for q in known.q]
            horizon.pending[n + h] = (anchor, f32(model), mixed, *widths)
            yhat = anchor + mixed
            emitted.append((yhat, yhat - widths[0], yhat + widths[1]))
        return emitted

    def before(self, n: int) -> float:
        """The value of that event, less the anchor of the newest."""
        (anchor, value), (newest, _) = self.past[n], self.past[-1]
        return min(max(value + (anchor - newest), -FLOAT_MAX), FLOAT_MAX)


def f32s(values: Reals) -> Reals:
    return values.astype(np.float32).astype(float)


class Judged:
    """An arena of streams, and everything that `judge` said."""

    def __init__(
        self, horizons: tuple[int, ...], period: int = 0, streams: int = 1, level: float = 0.9,
        guards: bool = True,
    ) -> None:  # fmt: skip
        self.layout = at.JudgeLayout(horizons, period)
        self.calls = 64  # most events of a stream in one call
        self.ring = self.layout.longest_lag + self.calls
        pending_at = 32 + 8 * len(horizons)
        judged_at = pending_at + self.layout.pending_bytes
        ring_at = pending_at + 8 * self.layout.words
        row_bytes = -(-(ring_at + 4 * self.ring) // 64) * 64
        self.plan = self.layout.plan(
            ring_at=ring_at, anchor_at=8, pending_at=pending_at, yhat_at=32, ring=self.ring, guards=guards
        )
        self.rows = np.zeros((streams, row_bytes // 8), np.int64)
        self.rings = self.rows.view(np.float32)[:, ring_at // 4 : ring_at // 4 + self.ring]
        self.tracked = self.rows.view(np.float32)[:, judged_at // 4 + at.TRACKED_AT :]
        self.rates, self.totals = at.rates(horizons, level), np.zeros((len(horizons), at.TOTALS))
        self.seen = np.zeros(streams, np.int64)
        self.anchors = [Anchor() for _ in range(streams)]
        self.said: list[list[Any]] = [[] for _ in range(streams)]
        self.scores: list[list[float]] = [[] for _ in range(streams)]

    def call(self, slots: NDArray[np.int64], y: Reals, models: Reals, status: NDArray[np.uint8]) -> None:
        n, outputs = models.shape
        numbers = np.zeros(n, np.int64)
        for i, s in enumerate(slots):  # as `observe` and the features do before
            if s >= 0:
                self.seen[s] += 1
                numbers[i] = self.seen[s]
                reals, former = self.rows.view(np.float64)[s], self.rows.view(np.float64)[s, 1]
                reals[1] = self.anchors[s].of(float(y[i]))
                if numbers[i] > 1 and reals[1] != former:
                    reals[2], self.rows[s, 3] = former, numbers[i]
                self.rings[s, numbers[i] % self.ring] = f32(y[i] - reals[1])
        yhat, lower, upper, score = models.copy(), np.zeros((n, outputs)), np.zeros((n, outputs)), np.zeros(n)
        kernel.judge(n, self.plan, self.rates, np.zeros(2), self.totals, slots, numbers, status,
                     np.where(status == Status.FILLED, np.nan, y)[:, None], y[:, None], self.rows,
                     yhat, lower, upper, score)  # fmt: skip
        for i, s in enumerate(slots):
            if s >= 0:
                self.scores[s].append(float(score[i]))
                assert (self.rows.view(np.float64)[s, 4 : 4 + outputs] == yhat[i]).all() or s in slots[i + 1 :]
                self.said[s].append([*zip(yhat[i].tolist(), lower[i].tolist(), upper[i].tolist(), strict=True)])

    def stream(self, y: Reals, models: Reals, status: NDArray[np.uint8] | None = None, batch: int = 37) -> Reals:
        """[N, O, 3]: yhat, lower, upper of one stream."""
        status = np.zeros(len(y), np.uint8) if status is None else status
        for start in range(0, len(y), batch):
            part = slice(start, start + batch)
            self.call(np.zeros(len(y[part]), np.int64), y[part], models[part], status[part])
        return np.array(self.said[0])


def series(kind: str, n: int = 260) -> tuple[Reals, Reals, NDArray[np.uint8]]:
    """(y, the model's forecasts [N, 3], status)."""
    rng = np.random.default_rng(3)
    y = 100.0 + 5.0 * np.tile([0.0, 1.0, 4.0, 2.0, -3.0, 0.5, 1.0], n // 7 + 1)[:n] + rng.normal(size=n).cumsum()
    status = np.zeros(n, np.uint8)
    models = np.stack([np.roll(y, -h) + rng.normal(size=n) for h in (1, 3, 24)], axis=1)
    match kind:
        case "constant":
            y[:], models[:] = 7.0, 7.0
        case "few values":
            y = rng.integers(0, 2, n) * 3.0
        case "spike":
            y[100], models[180] = 1e30, -1e30
        case "huge":
            y *= 1e148
            models *= 1e148
        case "tiny":
            y *= 1e-300
        case "no model":
            models[50:120], models[130], models[131] = math.nan, math.inf, -math.inf
        case "scale":
            y[130:] *= 1e6
        case "stray":
            y[0], models[0] = -1e9, -1e9
        case "gaps":
            status[[40, 41, 90]], status[60:64] = Status.GAP, Status.FILLED
            status[[10, 70]] = Status.LATE
    return y, models, status


KINDS = ("walk", "constant", "few values", "spike", "huge", "tiny", "no model", "scale", "stray", "gaps")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("period", "level"), [(0, 0.9), (7, 0.9), (24, 0.5), (5, 0.99)])
def test_every_bit_follows_from_the_equations(kind: str, period: int, level: float) -> None:
    y, models, status = series(kind)
    horizons = (1, 3, 24)
    judged = Judged(horizons, period, level=level)
    equations = Equations(horizons, period, level)
    expected = [equations.event(*event) for event in zip(y.tolist(), status.tolist(), models, strict=True)]
    found = judged.stream(y, models, status)
    np.testing.assert_array_equal(found, np.array(expected))
    np.testing.assert_array_equal(judged.totals, [horizon.sums for horizon in equations.horizons])
    for k, horizon in enumerate(equations.horizons):
        words = judged.tracked[0, k * at.TRACKED : (k + 1) * at.TRACKED].astype(float).tolist()
        assert words == [*horizon.errors, horizon.scale, *horizon.q, float(horizon.seen)]
    assert not np.isnan(found).any()
    assert np.isfinite(found[:, :, 0]).all()
    assert np.isfinite(judged.totals).all()


def test_a_stream_is_judged_by_its_own_events_alone() -> None:
    events = [series(kind) for kind in KINDS]
    alone = []
    for y, models, status in events:
        judged = Judged((1, 3, 24), 7)
        judged.stream(y, models, status, batch=64)
        alone.append((judged.said[0], judged.rows[0]))
    together = Judged((1, 3, 24), 7, streams=len(KINDS) + 1)
    rng = np.random.default_rng(0)
    order = rng.permutation(np.repeat(np.arange(-1, len(KINDS)), 260))
    at_event = np.zeros(len(KINDS), int)
    columns = [], [], []
    for s in order:
        k = at_event[s] if s >= 0 else 0
        for column, values in zip(columns, events[s], strict=True):
            column.append(values[k])
        at_event[s] += s >= 0
    slots, y, models, status = order, np.array(columns[0]), np.array(columns[1]), np.array(columns[2], np.uint8)
    start = 0
    for size in [1, 2, 3, *[60] * len(order)]:
        part = slice(start, start + size)
        together.call(slots[part], y[part], models[part], status[part])
        start += size
    for s, (said, row) in enumerate(alone):
        assert together.said[s] == said
        np.testing.assert_array_equal(together.rows[s], row)
    assert not together.rows[-1].any()


def test_the_interval_is_not_known_before_an_error_is() -> None:
    y, models, _ = series("walk", 40)
    said = Judged((1, 3, 24)).stream(y, models)
    assert said[0, :, 1].tolist() == [-math.inf] * 3
    assert said[0, :, 2].tolist() == [math.inf] * 3
    widths = said[1:, :, 2] - said[1:, :, 1]
    assert np.isfinite(widths).all()
    np.testing.assert_allclose(widths[:2] / widths[:2, :1], [[1, 3, 24]] * 2, rtol=1e-6)
    first = abs(y[1] - said[0, 0, 0])
    assert widths[0, 0] > 10 * first


def test_a_stream_that_never_moves_has_no_width() -> None:
    said = Judged((1,)).stream(np.full(30, 7.0), np.full((30, 1), 7.0))
    assert said[1:].tolist() == [[[7.0, 7.0, 7.0]]] * 29


NOISE = {
    "normal": lambda rng, n: rng.normal(size=n),
    "heavy": lambda rng, n: rng.standard_t(2.5, size=n),
    "one-sided": lambda rng, n: rng.exponential(size=n),
    "bursts": lambda rng, n: rng.normal(size=n) * np.repeat(np.exp(rng.normal(size=-(-n // 50))), 50)[:n],
    "floor": lambda rng, n: np.maximum(rng.normal(size=n), 0.3),
}


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("change", ["level", "up", "down"])
def test_ninety_percent_means_ninety_percent_before_and_after_a_shift(noise: str, change: str) -> None:
    n = 1000
    for seed in range(5):
        y = NOISE[noise](np.random.default_rng(seed), n)
        y[n // 2 :] = {"level": y + 10 * y.std(), "up": 10 * y, "down": y / 10}[change][n // 2 :]
        said = Judged((1,)).stream(y, np.zeros((n, 1)))[:, 0]
        inside = (said[:-1, 1] <= y[1:]) & (y[1:] <= said[:-1, 2])
        for half in (inside[: n // 2], inside[n // 2 :]):
            assert 0.88 <= half.mean() <= 0.92, seed


def test_a_spike_passes() -> None:
    rng = np.random.default_rng(1)
    y = rng.normal(size=1000)
    y[500] = 1e30
    said = Judged((1,)).stream(y, np.zeros((1000, 1)))[:, 0]
    widths = said[:, 2] - said[:, 1]
    assert widths[502:560].max() < 10 * widths[450:500].mean()
    assert widths[600:].mean() < 1.3 * widths[400:500].mean()
    errors = np.abs(y[1:] - said[:-1, 0])
    assert errors[650:].mean() < 1.1 * errors[400:500].mean()


@pytest.mark.parametrize(
    ("model", "bar"), [("perfect", 0.05), ("noisy", 0.65), ("constant", 1.03), ("broken half-way", 0.65)]
)
def test_the_guard_keeps_a_good_model_and_drops_a_bad_one(model: str, bar: float) -> None:
    """Mean absolute error over that of repeating the last value, for a random walk, but for 20 events to notice."""
    rng = np.random.default_rng(2)
    y = rng.normal(size=2001).cumsum() + 500.0
    following = y[1:]
    forecast = {
        "perfect": following,
        "noisy": following + 0.5 * rng.normal(size=2000),
        "constant": np.zeros(2000),
        "broken half-way": np.where(np.arange(2000) < 1000, following, 1e6),
    }[model]
    said = Judged((1,)).stream(y, np.append(forecast, 0.0)[:, None])
    error, naive = np.abs(y[1:] - said[:-1, 0, 0]), np.abs(np.diff(y))
    counts = (np.arange(2000) % 1000) >= 20
    assert error[counts].mean() <= bar * naive[counts].mean()


def test_self_scoring_equals_scoring_what_was_emitted() -> None:
    y, models, _ = series("walk")
    horizons = (1, 3, 24)
    judged = Judged(horizons, 7)
    said = judged.stream(y, models)
    for k, (h, lag) in enumerate(zip(horizons, (7, 7, 28), strict=True)):
        yhat, lower, upper = said[:-h, k].T
        actual, error = y[h:], y[h:] - yhat
        known = np.isfinite(lower)
        below, above = (actual < lower)[known].sum(), (actual > upper)[known].sum()
        seasonal = np.where(np.arange(h, len(y)) >= lag, np.roll(y, lag)[h:], y[:-h])
        expected = np.zeros(at.TOTALS)
        expected[[at.SCORED, at.ABSOLUTE, at.SQUARED]] = len(error), np.abs(error).sum(), (error**2).sum()
        expected[at.NAIVE_ABSOLUTE] = np.abs(actual - y[:-h]).sum()
        expected[at.SEASONAL_ABSOLUTE] = np.abs(actual - seasonal).sum()
        expected[[at.COVERED, at.MISSED_BELOW, at.MISSED_ABOVE]] = known.sum() - below - above, below, above
        expected[at.WIDTHS] = (upper - lower)[known].sum()
        np.testing.assert_allclose(judged.totals[k], expected, rtol=1e-6)  # the ring holds float32
        np.testing.assert_allclose(judged.totals[k, : at.NAIVE_ABSOLUTE], expected[: at.NAIVE_ABSOLUTE], rtol=1e-12)


def test_the_layout_counts_every_word() -> None:
    layout = at.JudgeLayout((1, 2, 24, 25), 24)
    assert layout.seasonal_lags == (24, 24, 24, 48)
    assert layout.longest_lag == 48
    assert layout.pending_bytes == 16 * 52
    assert layout.judged_bytes == 4 * (1 + 4 * 7)
    assert at.JudgeLayout((1, 5)).longest_lag == 5
    plan = layout.plan(ring_at=8, anchor_at=16, pending_at=24, yhat_at=1, ring=99, target=1)
    fixed = [8, 16, 24, 24 + layout.pending_bytes, 1, 99, 4, 1, 1, 24, 24 + layout.anomaly_bytes_from, 0]
    assert plan[: at.PLAN_WORDS].tolist() == fixed
    assert plan[at.PLAN_WORDS :].reshape(4, -1).tolist() == [[1, 24, 0], [2, 24, 1], [24, 24, 3], [25, 48, 27]]


def test_steps_cancel_when_misses_come_as_promised() -> None:
    for level in (0.5, 0.9, 0.99):
        for row in at.rates((1, 6, 24), level):
            steps = row[at.LOG_STEP : at.FACTOR].reshape(3, 2)
            shares = np.array([level, (1 - level) / 2, (1 - level) / 2])
            np.testing.assert_allclose(shares @ steps, 0.0, atol=1e-15)
            np.testing.assert_allclose(row[at.FACTOR : at.RATES].reshape(3, 2), np.exp(steps), rtol=1e-5)


def test_the_score_is_that_of_the_forecast_before_and_the_season() -> None:
    y, models, status = series("walk", 600)
    y[400] += 100.0
    judged = Judged((1, 3), 7)
    said = judged.stream(y, models[:, :2])
    before = np.append(np.nan, said[:-1, 0, 0])
    season = np.append(np.full(7, np.nan), y[0] + f32s(y[:-7] - y[0]))
    expected, words = np.zeros(600), np.zeros(anomaly.WORDS)
    anomaly.score_series(y, before, season, anomaly.BOTH, 0.0, 0.0, words, expected)
    np.testing.assert_array_equal(judged.scores[0], expected)
    assert np.isnan(expected[:100]).all()
    assert expected[400] > 1.0
    filled = status.copy()
    filled[500:520] = Status.FILLED
    again = Judged((1, 3), 7)
    again.stream(y, models[:, :2], filled)
    assert np.isnan(again.scores[0][500:520]).all()


def test_without_a_guard_the_model_is_emitted() -> None:
    y, models, status = series("walk")
    found = Judged((1, 3, 24), 7, guards=False).stream(y, models, status)
    np.testing.assert_array_equal(found[:, :, 0], y[0] + f32s(models - y[0]))
