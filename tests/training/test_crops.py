"""What is cut out of a history, against the equations of model.features in plain Python."""

import numpy as np
import pytest

from streamlstm.training.past import Base, Lags, Past, crops_of, first_rows, past_of, rows_of
from streamlstm.training.recipes import draw_torch
from streamlstm.training.steps import Trainer
from streamlstm.training.tail import score, tail_of
from streamlstm.training.weights import Sizes
from tests.engine.expected import Anchor

LAGS = Lags("made", (1, 2, 5), (0, 2))
HORIZONS = (1, 3)
SKIP = np.array([[0.5, -0.25, 0.125], [1.0, 0.0, -1.0]])
BASE = Base(LAGS, HORIZONS, SKIP)


def made() -> Past:
    """Three streams; the middle one stands still at first."""
    random = np.random.default_rng(2)
    streams = [np.cumsum(random.normal(size=40)) + 1e4, np.r_[np.full(8, 3.0), random.normal(size=12)], [1.0, 2.0]]
    streams[0][0] = -1e9  # far from all that follows
    start = np.cumsum([0, *map(len, streams)])
    return past_of(np.concatenate(streams), random.normal(size=(start[-1], 1)).astype(np.float32), start)


def units(past: Past, s: int) -> list[float]:
    """s_t, or 0, of a stream: the running mean of its changes, as remembered in single precision."""
    x, held = past.x[past.start[s] : past.start[s + 1]].tolist(), held_by(past, s)
    mean, out = 0.0, [0.0]
    for n in range(1, len(x)):
        mean += (abs(x[n] - held[n - 1]) - mean) / min(n, 1000)
        out.append(mean if mean > 1e-12 * abs(x[n]) else 0.0)
    return out


def held_by(past: Past, s: int) -> list[float]:
    anchor = Anchor()
    for value in past.x[past.start[s] : past.start[s + 1]].tolist():
        anchor.of(value)
    return anchor.held


def difference(past: Past, s: int, t: int, lag: int) -> float:
    begin = past.start[s]
    return float(held_by(past, s)[t - lag - begin] - past.x[t]) if t - lag >= begin else 0.0


@pytest.mark.parametrize("s", [0, 1, 2])
def test_units(s: int) -> None:
    past = made()
    assert past.unit[past.start[s] : past.start[s + 1]].tolist() == units(past, s)


def test_crops_follow_the_equations() -> None:
    past = made()
    stop = past.start[1:] - np.array([4, 0, 0])
    stream, first = np.array([0, 1, 2, 0]), np.array([30, 42, 60, 0])
    crops = crops_of(past, stop, BASE, stream, first, 10)
    for b, s in enumerate(stream):
        for step in range(10):
            t = first[b] + step
            for k, h in enumerate(HORIZONS):
                known = t + h < stop[s] and t < stop[s] and units(past, s)[t - past.start[s]] > 0
                assert crops.counted[b, step, k] == known
            if t >= stop[s]:
                assert not crops.inputs[b, step].any()
                continue
            unit = units(past, s)[t - past.start[s]]
            d = [difference(past, s, t, lag) for lag in LAGS.lags]
            u = [np.float32(min(max(d[j] / unit, -8.0), 8.0)) if unit else np.float32(0) for j in LAGS.fed]
            assert crops.inputs[b, step].tolist() == [*u, past.others[t, 0]]
            for k, h in enumerate(HORIZONS):
                if crops.counted[b, step, k]:
                    base = sum((SKIP[k, j] * d[j] for j in range(3)), 0.0)
                    assert crops.targets[b, step, k] == np.float32(((past.x[t + h] - past.x[t]) - base) / unit)


def test_targets_are_kept_within_a_limit() -> None:
    past = made()
    crops = crops_of(past, past.start[1:], BASE, np.array([0]), np.array([0]), 30, 0.5)
    assert np.abs(crops.targets).max() == 0.5


def test_rows_of_a_regression() -> None:
    """Those that know the targets of all horizons come first; at the ends of streams the last ones are missing."""
    past = made()
    stop = past.start[1:]
    joined, known = rows_of(past, stop, LAGS, HORIZONS, 10_000, 50.0, np.random.default_rng(0))
    whole, ends = [], []
    for s in range(3):
        for t in range(first_rows(past, stop, LAGS)[s], stop[s] - 1):
            unit = units(past, s)[t - past.start[s]]
            if unit:
                u = [difference(past, s, t, lag) / unit for lag in LAGS.lags]
                targets = [(past.x[t + h] - past.x[t]) / unit if t + h < stop[s] else 0.0 for h in HORIZONS]
                (whole if t + 3 < stop[s] else ends).append([*np.clip(u, -50, 50), *targets])
    assert known.tolist() == [len(whole) + len(ends), len(whole)]
    assert len(ends) == 4
    assert np.array_equal(joined[: len(whole)], np.array(whole))
    assert {row.tobytes() for row in joined[len(whole) :]} == {np.array(row).tobytes() for row in ends}


def test_lags_of_one_weight_are_averaged() -> None:
    past, shared = made(), Lags("shared", LAGS.lags, LAGS.fed, (0, 1, 0))
    joined, _ = rows_of(past, past.start[1:], LAGS, HORIZONS, 10_000, 50.0, np.random.default_rng(0))
    means, _ = rows_of(past, past.start[1:], shared, HORIZONS, 10_000, 50.0, np.random.default_rng(0))
    expected = np.stack([(joined[:, 0] + joined[:, 2]) / 2, joined[:, 1], joined[:, 3], joined[:, 4]], axis=1)
    assert np.array_equal(means, expected)


def test_few_rows_are_spread_over_all() -> None:
    past = made()
    all_of_it, _ = rows_of(past, past.start[1:], LAGS, HORIZONS, 10_000, 50.0, np.random.default_rng(0))
    some, _ = rows_of(past, past.start[1:], LAGS, HORIZONS, 12, 50.0, np.random.default_rng(0))
    assert 10 <= len(some) <= 12  # less those of streams that stand still
    assert len({row.tobytes() for row in some}) == len(some)
    assert {row.tobytes() for row in some} <= {row.tobytes() for row in all_of_it}


def test_scores_are_those_of_a_run_over_the_whole_stream() -> None:
    """Stretches, chunks and padding change nothing; naive and seasonal naive by their definitions."""
    past = made()
    weights = draw_torch(Sizes(3, (5,), 2), np.random.default_rng(1))
    begin = past.start[1:] - np.array([15, 6, 1])
    found = score(past, tail_of(past, begin), BASE, Trainer(weights), period=4)
    ratios = []
    for s in (0, 1):
        a, e = past.start[s], past.start[s + 1]
        crops = crops_of(past, past.start[1:], BASE, np.array([s]), np.array([a]), int(e - a))
        y_hat, _ = Trainer(weights).forward(crops.inputs)
        rows = np.arange(begin[s], e)
        per = []
        for k, h in enumerate(HORIZONS):
            t = rows[rows + h < e]
            model = np.abs(crops.targets[0, t - a, k].astype(float) - y_hat[0, t - a, k].astype(float)) * past.unit[t]
            naive, seasonal = np.abs(past.x[t + h] - past.x[t]), np.abs(past.x[t + h] - past.x[t + h - 4])
            per.append([model.mean() / naive.mean(), seasonal.mean() / naive.mean()])
        ratios.append(per)
    expected = np.exp(np.log(np.array(ratios)).mean(axis=0))
    assert (found.streams, found.events) == (2, 14 + 5)
    assert np.allclose(found.model, expected[:, 0], rtol=1e-6)
    assert np.allclose(found.seasonal, expected[:, 1], rtol=1e-6)


def test_horizons_beyond_the_tails_have_no_score_and_no_say() -> None:
    past = made()
    base = Base(LAGS, (1, 3, 30), np.vstack([SKIP, SKIP[:1]]))
    found = score(past, tail_of(past, past.start[1:] - np.array([15, 6, 1])), base, None, period=4)
    assert found.counts.tolist() == [14 + 5, 12 + 3, 0]
    assert np.isnan(found.model[2])
    assert np.isnan(found.seasonal[2])
    assert found.mean == pytest.approx((19 * np.log(found.model[0]) + 15 * np.log(found.model[1])) / 34)


def test_too_many_streams_are_thinned_out_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.tile(np.arange(60.0), 100)
    past = past_of(x, np.empty((6000, 0), np.float32), np.arange(0, 6001, 60))
    monkeypatch.setattr("streamlstm.training.tail.MOST_ROWS", 500)
    tail = tail_of(past, past.start[:-1] + 5)
    assert tail.rows == 500
    assert sorted(tail.stream)[0] == 0
    assert sorted(tail.stream)[-1] == 99
