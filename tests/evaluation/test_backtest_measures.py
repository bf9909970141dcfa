"""The measures of a backtest against their definitions, computed pair by pair."""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import pytest

from streamlstm.evaluation import pairs as pairs_module
from streamlstm.evaluation.compare import diebold_mariano
from streamlstm.evaluation.fans import fan
from streamlstm.evaluation.metrics import coverage, crps, mae, pinball, rel_mae, rmse, scale
from streamlstm.evaluation.pairs import Evidence, in_sample_scales, pairs
from streamlstm.evaluation.panel import compare
from streamlstm.evaluation.residuals import autocorrelation, errors, timeline
from streamlstm.evaluation.summary import ranked, summarise
from tests.evaluation.made_evidence import HORIZONS, Pair, made_evidence, pairs_one_by_one

PERIOD = 4


@pytest.fixture(params=[1 << 20, 7], ids=["one block", "blocks of 7"])
def evidence(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Evidence:
    monkeypatch.setattr(pairs_module, "BLOCK", request.param)
    return made_evidence()


def column(found: Iterable[Pair], name: str) -> np.ndarray:
    return np.array([getattr(pair, name) for pair in found], np.float64)


def by_stream(found: list[Pair], measure: Callable[[list[Pair]], float], streams: int) -> np.ndarray:
    parts = [[pair for pair in found if pair.stream == s] for s in range(streams)]
    return np.array([measure(part) if part else np.nan for part in parts])


@pytest.mark.parametrize("output", range(len(HORIZONS)))
@pytest.mark.parametrize("period", [1, PERIOD])
def test_pairs(output: int, period: int) -> None:
    evidence = made_evidence()
    found = pairs(evidence, output, period, 0, evidence.scored)
    expected = pairs_one_by_one(evidence, output, period)
    assert expected
    for name in ("event", "stream", "row", "actual", "yhat", "naive", "lower", "upper"):
        np.testing.assert_array_equal(getattr(found, name), column(expected, name))
    if period == 1:
        assert found.seasonal is None
    else:
        assert found.seasonal is not None
        np.testing.assert_array_equal(found.seasonal, column(expected, "seasonal"))


def test_nothing_is_held_to_what_came_after_a_new_beginning() -> None:
    evidence = made_evidence()
    anew = int(evidence.start[0]) + 45
    for output, horizon in enumerate(evidence.horizons):
        rows = pairs(evidence, output, 1, 0, evidence.scored).row
        assert not set(range(anew, anew + horizon)) & set(rows.tolist())


def test_scales(evidence: Evidence) -> None:
    for period in (1, PERIOD):
        expected = [
            scale(evidence.actual[begin:tail], period)
            for begin, tail in zip(evidence.start[:-1], evidence.tail, strict=True)
        ]
        np.testing.assert_allclose(in_sample_scales(evidence, period), expected, rtol=1e-13)


def check(found: object, expected: list[Pair], scales: np.ndarray) -> None:
    """The measures, each from the pairs themselves by evaluation.metrics."""
    actual, yhat = column(expected, "actual"), column(expected, "yhat")
    lower, upper = column(expected, "lower"), column(expected, "upper")
    lower[np.isinf(lower)] = upper[np.isinf(upper)] = np.nan  # not known yet
    streams = len(scales)

    def close(name: str, value: float) -> None:
        np.testing.assert_allclose(getattr(found, name), value, rtol=1e-12, err_msg=name)

    close("pairs", len(expected))
    close("mae", mae(actual, yhat))
    close("rmse", rmse(actual, yhat))
    close("bias", float(np.mean(yhat - actual)))
    close("naive_mae", mae(actual, column(expected, "naive")))
    close("seasonal_mae", mae(actual, column(expected, "seasonal")))
    each = by_stream(expected, lambda part: mae(column(part, "actual"), column(part, "yhat")), streams)
    close("mase", np.nanmean(np.divide(each, scales, out=np.full(streams, np.nan), where=scales > 0)))
    for name, baseline, better in (
        ("rel_mae", "naive", "better"),
        ("rel_mae_seasonal", "seasonal", "better_seasonal"),
    ):

        def model(part: list[Pair], baseline: str = baseline) -> float:
            known = [pair for pair in part if not math.isnan(getattr(pair, baseline))]
            return mae(column(known, "actual"), column(known, "yhat"))

        def other(part: list[Pair], baseline: str = baseline) -> float:
            return mae(column(part, "actual"), column(part, baseline))

        models, others = by_stream(expected, model, streams), by_stream(expected, other, streams)
        close(name, rel_mae(models, others))
        close(better, int((models < others).sum()))
    quantiles, levels = np.stack([lower, np.where(np.isnan(lower), np.nan, yhat), upper], -1), [0.1, 0.5, 0.9]
    close("coverage", coverage(actual, lower, upper))
    close("width", float(np.nanmean(upper - lower)))
    np.testing.assert_allclose(found.pinball, pinball(actual, quantiles, levels), rtol=1e-12)  # type: ignore[attr-defined]
    close("crps", crps(actual, quantiles, levels))
    known = ~np.isnan(lower)
    shares = [float(np.mean((actual <= q)[known])) for q in (lower, yhat, upper)]
    np.testing.assert_allclose(found.reliability, shares, rtol=1e-12)  # type: ignore[attr-defined]
    np.testing.assert_allclose(found.by_stream.mae, each, rtol=1e-12)  # type: ignore[attr-defined]
    over_streams = found.by_stream.quantiles()["mae"]  # type: ignore[attr-defined]
    np.testing.assert_allclose(over_streams, np.nanquantile(each, (0.1, 0.5, 0.9)), rtol=1e-12)


def test_measures_of_each_horizon_and_of_all(evidence: Evidence) -> None:
    summary = summarise(evidence, PERIOD)
    everything = []
    for output, found in enumerate(summary.horizons):
        expected = pairs_one_by_one(evidence, output, PERIOD)
        check(found, expected, summary.scales)
        everything += expected
    check(summary.overall, everything, summary.scales)


def test_anomalies(evidence: Evidence) -> None:
    found = summarise(evidence, 1).anomalies
    assert found is not None
    assert evidence.anomaly is not None
    scores = np.concatenate([
        evidence.anomaly[evidence.tail[s] + evidence.place[s] : evidence.start[s + 1] + evidence.place[s]]
        for s in range(evidence.streams)
    ])  # fmt: skip
    assert (found.known, found.anomalous) == (int((~np.isnan(scores)).sum()), int((scores > 1).sum()))
    assert found.per_1000 == pytest.approx(1000 * found.anomalous / found.known)


def test_without_intervals_and_scores() -> None:
    summary = summarise(made_evidence(intervals=False), 1)
    assert summary.anomalies is None
    assert math.isnan(summary.overall.coverage)
    assert math.isnan(summary.overall.crps)
    assert math.isnan(summary.overall.rel_mae_seasonal)
    assert summary.overall.mae == summarise(made_evidence(), 1).overall.mae


def test_streams_are_ranked_by_their_ratio() -> None:
    found = summarise(made_evidence(), 1).overall
    ratios = found.by_stream.rel_mae[ranked(found)]
    assert len(ratios) > 2
    assert (np.diff(ratios) <= 0).all()


def test_timeline(evidence: Evidence) -> None:
    scales = in_sample_scales(evidence, PERIOD)
    found = timeline(evidence, 0, PERIOD, scales, 5)
    expected = [pair for pair in pairs_one_by_one(evidence, 0, PERIOD) if scales[pair.stream] > 0]
    times = np.array([evidence.time[pair.row] for pair in expected])
    for span in range(5):
        inside = (found.edges[span] <= times) & (times < found.edges[span + 1])
        part = [pair for pair, is_in in zip(expected, inside, strict=True) if is_in]
        assert found.pairs[span] == len(part)
        errors_of = [abs(pair.yhat - pair.actual) / scales[pair.stream] for pair in part]
        np.testing.assert_allclose(found.model[span], np.mean(errors_of) if errors_of else np.nan, rtol=1e-12)
    assert found.pairs.sum() == len(expected)


def test_autocorrelation() -> None:
    evidence = made_evidence(lengths=(400, 300, 9, 1, 40, 200))
    found = autocorrelation(evidence, 0, 6)
    assert found is not None
    error = errors(evidence, 0)
    ends = np.cumsum(evidence.start[1:] - evidence.tail)
    by_hand = []
    for begin, end in zip((0, *ends[:-1]), ends, strict=True):
        e = error[begin:end]
        if (~np.isnan(e)).sum() < 20:
            continue
        e = np.nan_to_num(e - np.nanmean(e))
        by_hand.append([(e[lag:] * e[:-lag]).sum() / (e * e).sum() for lag in range(1, 6)])
    assert found.streams == len(by_hand) > 2
    np.testing.assert_allclose(found.median[:5], np.median(by_hand, axis=0), atol=1e-12)


def test_too_short_for_an_autocorrelation() -> None:
    assert autocorrelation(made_evidence(lengths=(9, 9, 9, 9, 9, 9)), 0, 6) is None


def test_fan() -> None:
    evidence = made_evidence()
    found = fan(evidence, 0, 10)
    stop = int(evidence.start[1])
    np.testing.assert_array_equal(found.actual, evidence.actual[stop - 10 : stop])
    at = np.arange(stop - 11, stop - 1) + evidence.place[0]
    np.testing.assert_array_equal(found.following.yhat, evidence.yhat[at, 0])
    assert found.path is not None
    np.testing.assert_array_equal(found.path.yhat, evidence.yhat[stop - 1 - 7 + evidence.place[0]])
    assert fan(evidence, 3, 10).path is None


class TestPanel:
    def test_each_stream_is_tested_alone(self) -> None:
        first, second = made_evidence(lengths=(200, 90, 9, 1, 80, 2)), made_evidence(2, lengths=(200, 90, 9, 1, 80, 2))
        second = Evidence(**{name: getattr(first, name) for name in first.__slots__} | {"yhat": second.yhat})
        told: list[int] = []
        found = compare(first, second, 3, in_sample_scales(first, 1), told.append)
        assert sum(told) == 6
        ends = np.cumsum(first.start[1:] - first.tail)
        losses, other = np.abs(errors(first, 1)), np.abs(errors(second, 1))
        for s, (begin, end) in enumerate(zip((0, *ends[:-1]), ends, strict=True)):
            expected = diebold_mariano(losses[begin:end], other[begin:end], 3)
            np.testing.assert_equal(found.by_stream[s].statistic, expected.statistic)
        assert found.count(-1) + found.count(0) + found.count(1) == int((~np.isnan(found.mae)).sum())
        assert found.rel_mae == pytest.approx(rel_mae(found.mae, found.other_mae))

    def test_against_itself_nothing_is_decided(self) -> None:
        evidence = made_evidence()
        found = compare(evidence, evidence, 1, in_sample_scales(evidence, 1))
        assert (found.count(-1), found.count(1), found.rel_mae) == (0, 0, 1.0)
        assert math.isnan(found.pooled.p_value)

    @pytest.mark.parametrize("horizon", [1, 12])
    @pytest.mark.parametrize(
        "late", [np.zeros(20), 0.1 * np.arange(20), 59 * np.random.default_rng(2).random(20)],
        ids=["together", "staggered", "anywhere"],
    )  # fmt: skip
    def test_equal_models_are_told_apart_by_chance_alone(self, horizon: int, late: np.ndarray) -> None:
        """Errors that streams share in part, and that go on for as long as the forecasts reach ahead."""
        rng = np.random.default_rng(horizon)
        minutes = np.arange(300)

        def errors_of_a_model() -> np.ndarray:
            shocks = rng.standard_normal((1, 300 + horizon)) + 0.5 * rng.standard_normal((20, 300 + horizon))
            return np.stack([shocks[:, k : k + 300] for k in range(horizon)]).sum(axis=0).reshape(-1, 1)

        def evidence_of(yhat: np.ndarray) -> Evidence:
            start = 300 * np.arange(21)
            jitter = rng.integers(-300, 300, (20, 300))
            time = 1_730_000_000_000 + 60_000 * minutes + (1000 * late[:, np.newaxis]).astype(np.int64) + jitter
            return Evidence(
                horizons=(horizon,), start=start, time=time.ravel(), actual=np.zeros(6000), tail=start[:-1] + horizon,
                first=start[:-1], place=np.zeros(20, np.int64), life=np.zeros(6000, np.int64), yhat=yhat,
                lower=None, upper=None, anomaly=None, level=0.0,
            )  # fmt: skip

        rejected = [
            bool(compare(first, replace(first, yhat=errors_of_a_model()), horizon, np.ones(20)).pooled.verdict())
            for first in (evidence_of(errors_of_a_model()) for _ in range(150))
        ]
        assert np.mean(rejected) < 0.11  # of 150 with 5 % each, that is more than three deviations off

    def test_the_better_model_is_found_over_all_streams(self) -> None:
        lengths = (200,) * 6
        first = made_evidence(lengths=lengths)
        worse = Evidence(**{name: getattr(first, name) for name in first.__slots__} | {"yhat": 3 * first.yhat})
        found = compare(first, worse, 1, in_sample_scales(first, 1))
        assert found.pooled.verdict() == -1
        assert found.count(-1) >= 4
