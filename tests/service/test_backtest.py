"""Backtest is production: the bytes of `streamlstm forecast`, and measures that anybody gets from those bytes."""

import json
import random
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamlstm.cli.main import outcome
from streamlstm.config import Config, load
from streamlstm.engine.forecaster import ForecasterSettings
from streamlstm.errors import BadDataError, UsageError
from streamlstm.evaluation.sums import Sum, sum_by_stream
from streamlstm.history.collector import Rules
from streamlstm.history.columns import Wanted
from streamlstm.history.files import read_files
from streamlstm.history.history import History
from streamlstm.kernels import judge_layout as at
from streamlstm.model.golden import make_golden
from streamlstm.model.model_file import Model, Scaling, ScalingKind, no_scaling, save
from streamlstm.service import replay as replay_module
from streamlstm.service.backtest import Backtest, BacktestOptions, Since, backtest, compare_two, read_since, tail_of
from streamlstm.service.replay import Replay, feed_order
from streamlstm.service.wiring import field_paths
from tests.model.random_models import random_parameters

BEGIN = 1_700_000_000_000
HORIZONS = (1, 3)
TINY = Scaling(ScalingKind.STANDARD, (0.0,), (1e-200,))
"""By which all but 0 is out of range."""
RUNNING = Scaling(ScalingKind.RUNNING, (0.0,), (1.0,), 50)


def made_model(scaling: Scaling = RUNNING, horizons: tuple[int, ...] = HORIZONS, window: int = 0) -> Model:
    parameters = random_parameters(1, (6,), len(horizons))
    return Model(
        parameters=parameters, window=window, inputs=("value",), target=0, predicts="change", horizons=horizons,
        scaling=scaling, interval_ms=None, origin={}, golden=make_golden(parameters, window),
    )  # fmt: skip


def guarded(model: Model) -> Model:
    """The same network behind the judge: with a guard, intervals and anomaly scores."""
    return replace(model, level=0.8, guard=True, model_hash="")


def made_lines(events: int = 900, streams: int = 7, *, seed: int = 3) -> list[str]:
    """Events of all streams in the order of time; some streams late or twice at a time, some lines broken."""
    rng = random.Random(seed)
    found = []
    for i in range(events):
        stream = rng.randrange(streams)
        late = stream < 3 and rng.random() < 0.1
        time = BEGIN + 1000 * i - (700 if late else 0)
        value = round(rng.gauss(10.0**stream, 2), rng.randrange(6))
        found.append(json.dumps({"stream": f"s{stream}", "ts": time, "value": value}))
        if rng.random() < 0.04:
            found.append(rng.choice(["{", '{"stream":"s1","ts":1,"value":null}', '{"stream":"s1","value":1}', "[1]"]))
    return found


def history_of(path: Path, **rules: Any) -> History:
    wanted = Wanted(field_paths(Config(), ("value",)))
    return read_files([str(path)], wanted, Rules(**({"order": "arrival"} | rules)))


def run(path: Path, model: Model, **options: Any) -> Backtest:
    config = options.pop("config", Config())
    return backtest("m", model, history_of(path), config, BacktestOptions(**options), lambda done: None)


def forecast_bytes(tmp_path: Path, model: Model, source: Path, *more: str) -> bytes:
    save(model, tmp_path / "model.safetensors")
    output = tmp_path / "forecast.jsonl"
    command = ["forecast", "--model", tmp_path / "model.safetensors", "--input", source, "--output", output, *more]
    assert outcome([str(part) for part in command]) == 0
    return output.read_bytes()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join(line for line in made_lines() if line != '{"stream":"s1","value":1}'))
    return path


CASES = {
    "carry": made_model(),
    "window": made_model(no_scaling(1), (2,), 5),
    "judged": guarded(made_model()),
}


class TestBytes:
    @pytest.mark.parametrize("model", CASES.values(), ids=CASES)
    def test_those_of_forecast(self, tmp_path: Path, model: Model) -> None:
        """Late and duplicate events, and lines that are refused, among them. Late ones stay within their second, as
        all streams are fed in the order of time.
        """
        source = tmp_path / "in.jsonl"
        lines = made_lines()
        timeless = '{"stream":"s1","value":1}'  # `forecast` takes the time of a record for it; a history has none
        source.write_text("\n".join(line for line in lines if line != timeless))
        run(source, model, output=tmp_path / "out.jsonl")
        expected = forecast_bytes(tmp_path, model, source).splitlines()
        found = (tmp_path / "out.jsonl").read_bytes().splitlines()
        assert sorted(map(without_source, found)) == sorted(map(without_source, expected))
        for stream in range(7):
            assert of_stream(found, stream) == of_stream(expected, stream)

    def test_to_the_letter_where_the_file_is_in_the_order_of_time(self, tmp_path: Path) -> None:
        source = tmp_path / "in.jsonl"
        rows = [json.loads(line) for line in made_lines() if line.startswith('{"stream"') and '"value":' in line]
        good = sorted((row for row in rows if row["value"] is not None and "ts" in row), key=lambda row: row["ts"])
        lines = [json.dumps(row) for row in good]
        for place in range(10, len(lines), 97):
            lines.insert(place, '{"stream":"s1","ts":1,"value":null}')  # refused, but counted by `src`
        source.write_text("\n".join(lines))
        run(source, made_model(), output=tmp_path / "out.jsonl")
        assert (tmp_path / "out.jsonl").read_bytes() == forecast_bytes(tmp_path, made_model(), source)

    @pytest.mark.parametrize("wide", [False, True])
    def test_of_csv(self, tmp_path: Path, wide: bool) -> None:
        rng = random.Random(5)
        source = tmp_path / "in.csv"
        if wide:
            rows = [f"{BEGIN + 60_000 * i},{rng.random()},{rng.gauss(5, 1):.3f}" for i in range(200)]
            source.write_text("ts,a,b\n" + "\n".join(rows))
        else:
            rows = [f"s{rng.randrange(3)},{BEGIN + 60_000 * i},{rng.random()}" for i in range(300)]
            source.write_text("stream,ts,value\n" + "\n".join(rows))
        run(source, made_model(), output=tmp_path / "out.jsonl")
        assert (tmp_path / "out.jsonl").read_bytes() == forecast_bytes(tmp_path, made_model(), source)

    def test_batches_and_threads_change_nothing(self, tmp_path: Path, source: Path) -> None:
        found = []
        for batch_size, threads in ((1, 1), (7, 2), (100_000, 1)):
            output = tmp_path / f"{batch_size}.jsonl"
            test = run(source, guarded(made_model()), output=output, batch_size=batch_size, threads=threads)
            found.append((output.read_bytes(), test.summary.overall.mae, test.evidence.yhat.tobytes()))
        assert found[0] == found[1] == found[2]

    def test_missing_values_are_filled_as_the_daemon_fills_them(self, tmp_path: Path) -> None:
        source = tmp_path / "in.jsonl"
        events = [{"stream": "a", "ts": BEGIN + 1000 * i, "value": None if i % 9 == 5 else i % 7} for i in range(200)]
        source.write_text("\n".join(map(json.dumps, events)))
        config = load(None, {}, ("events.missing=hold",))
        history = history_of(source, keep_missing=True)
        options = BacktestOptions(output=tmp_path / "out.jsonl")
        test = backtest("m", made_model(), history, config, options, lambda done: None)
        expected = forecast_bytes(tmp_path, made_model(), source, "--set", "events.missing=hold")
        assert (tmp_path / "out.jsonl").read_bytes() == expected
        scored = [event["value"] for event in events[160:]]
        assert test.summary.horizons[0].pairs == sum(value is not None for value in scored)


def without_source(line: bytes) -> bytes:
    return line[: line.rindex(b',"src":')]


def of_stream(lines: list[bytes], stream: int) -> list[bytes]:
    return [without_source(line) for line in lines if line.startswith(f'{{"stream":"s{stream}"'.encode())]


class TestMeasures:
    """From the JSON lines, with nothing of ours but the words of the definitions."""

    def pairs(self, text: bytes, share: float, horizon: int) -> dict[str, list[tuple[float, float, float]]]:
        """By stream: (forecast, actual, last value) of the events behind the share."""
        events: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for line in text.splitlines():
            event = json.loads(line)
            events[event["stream"]].append(event)
        found = {}
        for stream, listed in events.items():
            tail = int(np.floor(len(listed) * share))
            found[stream] = [
                (
                    listed[at - horizon]["yhat"][listed[at - horizon]["horizon"].index(horizon)],
                    listed[at]["y"], listed[at - horizon]["y"],
                )
                for at in range(max(tail, horizon), len(listed))
            ]  # fmt: skip
        return found

    @pytest.mark.parametrize("share", [0.8, 0.0, 0.5])
    def test_of_the_written_lines(self, tmp_path: Path, source: Path, share: float) -> None:
        model = made_model()
        test = run(source, model, output=tmp_path / "out.jsonl", since=Since(share))
        text = (tmp_path / "out.jsonl").read_bytes()
        for horizon, found in zip(HORIZONS, test.summary.horizons, strict=True):
            by_stream = self.pairs(text, share, horizon)
            values = np.array([pair for listed in by_stream.values() for pair in listed])
            error, naive = values[:, 0] - values[:, 1], values[:, 2] - values[:, 1]
            ratios = [np.abs(v[:, 0] - v[:, 1]).mean() / np.abs(v[:, 2] - v[:, 1]).mean()
                      for v in map(np.array, by_stream.values())]  # fmt: skip
            assert found.pairs == len(values)
            assert found.mae == pytest.approx(np.abs(error).mean(), rel=1e-12)
            assert found.rmse == pytest.approx(np.sqrt(np.square(error).mean()), rel=1e-12)
            assert found.naive_mae == pytest.approx(np.abs(naive).mean(), rel=1e-12)
            assert found.rel_mae == pytest.approx(np.exp(np.log(ratios).mean()), rel=1e-12)

    def test_intervals_and_scores_of_the_written_lines(self, tmp_path: Path, source: Path) -> None:
        test = run(source, guarded(made_model()), output=tmp_path / "out.jsonl", since=Since(0.3))
        events = defaultdict(list)
        for line in (tmp_path / "out.jsonl").read_bytes().splitlines():
            event = json.loads(line)
            events[event["stream"]].append(event)
        known, scores = [], []
        for listed in events.values():
            tail = int(np.floor(0.3 * len(listed)))
            scores += [event["anomaly_score"] for event in listed[tail:]]
            for origin, event in zip(listed[tail - 1 :], listed[tail:], strict=False):
                if origin["lower"][0] is not None:
                    known.append((origin["lower"][0], origin["upper"][0], event["y"]))
        low, high, actual = np.array(known).T
        found, anomalies = test.summary.horizons[0], test.summary.anomalies
        assert len(known) > 500
        assert found.coverage == pytest.approx(np.mean((low <= actual) & (actual <= high)), rel=1e-12)
        assert found.width == pytest.approx(np.mean(high - low), rel=1e-12)
        assert found.pinball[0] == pytest.approx(
            np.mean(np.maximum(0.1 * (actual - low), -0.9 * (actual - low))), rel=1e-12
        )
        given = [score for score in scores if score is not None]
        assert anomalies is not None
        assert (anomalies.known, anomalies.anomalous) == (len(given), sum(score > 1 for score in given))

    def test_from_a_time_on(self, tmp_path: Path) -> None:
        source = tmp_path / "in.jsonl"
        events = [{"stream": f"s{i % 2}", "ts": BEGIN + 1000 * i, "value": i % 5} for i in range(100)]
        source.write_text("\n".join(map(json.dumps, events)))
        test = run(source, made_model(), since=Since(time_ms=BEGIN + 90_000))
        assert test.evidence.scored == 10
        assert test.summary.horizons[0].pairs == 10
        history = history_of(source)
        np.testing.assert_array_equal(tail_of(history, Since(time_ms=BEGIN + 1_000_000)), history.start[1:])
        np.testing.assert_array_equal(tail_of(history, Since(time_ms=0)), history.start[:-1])

    def test_events_that_the_engine_refuses_are_none(self, tmp_path: Path) -> None:
        source = tmp_path / "in.jsonl"
        events = [{"stream": "a", "ts": BEGIN + 1000 * (i - i % 10 // 9), "value": i % 7} for i in range(200)]
        source.write_text("\n".join(map(json.dumps, events)))
        config = load(None, {}, ("events.duplicate=dead_letter",))
        test = run(source, made_model(), config=config, output=tmp_path / "out.jsonl")
        assert test.replayed.refused == Counter(duplicate=20)
        assert len((tmp_path / "out.jsonl").read_bytes().splitlines()) == 180
        by_stream = self.pairs((tmp_path / "out.jsonl").read_bytes(), 0.8, 1)
        values = np.array(by_stream["a"])
        assert test.summary.horizons[0].pairs == len(values) == 36
        assert test.summary.horizons[0].mae == pytest.approx(np.abs(values[:, 0] - values[:, 1]).mean(), rel=1e-12)

    def test_columns_in_a_file_are_the_same(self, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        expected = run(source, made_model()).summary.overall
        monkeypatch.setattr(replay_module, "IN_MEMORY_BYTES", 0)
        found = run(source, made_model())
        assert isinstance(found.evidence.yhat, np.memmap)
        assert found.summary.overall.mae == expected.mae


def test_events_are_fed_by_time_but_no_stream_is_reordered(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    times = {"a": [5, 3, 4, 9], "b": [1, 6, 6, 7], "c": [4, 8]}
    lines = [{"stream": s, "ts": 1000 * t, "value": k} for s, listed in times.items() for k, t in enumerate(listed)]
    source.write_text("\n".join(map(json.dumps, lines)))
    history = history_of(source)
    order, _ = feed_order(history)
    stream = np.searchsorted(history.start, order, side="right") - 1
    fed = [(history.name(s), int(history.x[row, 0])) for s, row in zip(stream.tolist(), order.tolist(), strict=True)]
    assert fed == [
        ("b", 0), ("c", 0), ("a", 0), ("a", 1), ("a", 2), ("b", 1), ("b", 2), ("b", 3), ("c", 1), ("a", 3)
    ]  # fmt: skip


def test_rows_are_numbered_among_all_that_were_read(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(["{", *(f'{{"stream":"s{k % 2}","ts":{k + 1},"value":1}}' for k in range(3)), "{", "[]",
                                 '{"stream":"s0","ts":9,"value":1}']))  # fmt: skip
    assert history_of(source).arrival.tolist() == [1, 3, 6, 2]
    assert history_of(source, order="time").arrival.tolist() == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.8", Since(0.8)), ("80%", Since(0.8)), ("0", Since(0.0)), ("2024-01-01", Since(time_ms=1_704_067_200_000)),
        ("1704067200000", Since(time_ms=1_704_067_200_000)), ("2024-01-01T00:00:00Z", Since(time_ms=1_704_067_200_000)),
    ],
)  # fmt: skip
def test_where_scoring_begins(text: str, expected: Since) -> None:
    found = read_since(text)
    assert (found.share, found.time_ms) == (pytest.approx(expected.share), expected.time_ms)


@pytest.mark.parametrize(
    "text", ["", "x", "100%", "-1%", "nan", "120 %", "yesterday", "1", "20", "80", "-0.5", "20.5", "1704067200"]
)
def test_where_scoring_cannot_begin(text: str) -> None:
    with pytest.raises(UsageError, match=r"--from .*: expected a share"):
        read_since(text)


class TestRefusals:
    def test_too_short(self, tmp_path: Path) -> None:
        source = tmp_path / "in.jsonl"
        source.write_text("\n".join(f'{{"stream":"a","ts":{k},"value":1}}' for k in range(5)))
        with pytest.raises(BadDataError, match=r"a stream of more than 9 events.*the longest of 1 streams has 5"):
            run(source, made_model(horizons=(9, 10)))

    def test_nothing_behind_the_time(self, source: Path) -> None:
        with pytest.raises(BadDataError, match=r"from that time on.* and 0 have some"):
            run(source, made_model(), since=Since(time_ms=BEGIN * 2))

    def test_all_refused(self, tmp_path: Path) -> None:
        source = tmp_path / "in.jsonl"
        source.write_text("\n".join(f'{{"stream":"a","ts":{k},"value":5}}' for k in range(50)))
        with pytest.raises(BadDataError, match=r"the engine refused events \(out_of_range 50\)"):
            run(source, made_model(TINY))

    def test_models_of_other_inputs(self, source: Path) -> None:
        other = made_model()
        object.__setattr__(other, "inputs", ("load",))
        with pytest.raises(UsageError, match="expected a model of value; found load"):
            run(source, other)


class TestCompare:
    def test_horizons_that_both_have(self, source: Path) -> None:
        first, second = run(source, made_model()), run(source, made_model(no_scaling(1), (3, 4)))
        told: list[int] = []
        panels = compare_two(first, second, told.append)
        assert [panel.horizon for panel in panels] == [3]
        assert sum(told) == 7
        by_hand = np.nanmean(np.abs(second.summary.horizons[0].by_stream.mae))
        assert np.nanmean(panels[0].other_mae) == pytest.approx(by_hand)

    def test_no_horizon_in_common(self, source: Path) -> None:
        with pytest.raises(UsageError, match="expected a horizon that both models have"):
            compare_two(run(source, made_model()), run(source, made_model(horizons=(2,))), lambda done: None)

    def test_other_events(self, tmp_path: Path) -> None:
        source = tmp_path / "in.jsonl"
        source.write_text("\n".join(f'{{"stream":"a","ts":{k},"value":{k == 3:d}}}' for k in range(50)))
        first, second = run(source, made_model()), run(source, made_model(TINY))
        with pytest.raises(BadDataError, match="expected the same events"):
            compare_two(first, second, lambda done: None)


@pytest.mark.parametrize("inputs", [1, 2])
def test_the_daemon_scores_itself_alike(tmp_path: Path, inputs: int) -> None:
    """The engine's own totals (kernels.judge_layout), of gaps and missing values too, beside the backtest's sums. Of
    two inputs the second is forecast, and the first is missing now and then.
    """
    source, rng = tmp_path / "in.jsonl", random.Random(9)
    times = np.cumsum([1000 * (1 if rng.random() < 0.98 else 600) for _ in range(900)])
    events = [
        {
            "stream": f"s{k % 4}",
            "ts": int(BEGIN + time),
            "values": [None if k % 7 == 3 else 1.0, None if k % 41 == 40 else rng.gauss(10.0 ** (k % 4), 1)][-inputs:],
        }
        for k, time in enumerate(times)
    ]
    source.write_text("\n".join(map(json.dumps, events)))
    if inputs == 1:
        source.write_text(source.read_text().replace('"values": [', '"value": ').replace("]}", "}"))
    names = ("other", "value")[2 - inputs :]
    parameters = random_parameters(inputs, (6,), len(HORIZONS))
    scaling = replace(RUNNING, offset=(0.0,) * inputs, scale=(1.0,) * inputs)
    model = replace(
        guarded(made_model()), parameters=parameters, inputs=names, target=inputs - 1, scaling=scaling,
        golden=make_golden(parameters, 0),
    )  # fmt: skip
    wanted = Wanted(field_paths(Config(), names))
    history = read_files([str(source)], wanted, Rules(order="arrival", keep_missing=True))
    settings = ForecasterSettings(max_streams=9, gap_ms=60_000, missing="hold")
    with ThreadPoolExecutor(1) as executor:
        replay = Replay(history, model, settings, executor, tail=history.start[:-1], topic="t", batch_size=100)
        evidence = replay.run(None, lambda done: None).evidence
    totals = replay.forecaster.prediction.totals
    for output in range(len(HORIZONS)):
        sums = sum_by_stream(evidence, output, 1).sum(axis=1)
        for ours, theirs in (
            (Sum.PAIRS, at.SCORED), (Sum.ABS, at.ABSOLUTE), (Sum.SQUARE, at.SQUARED), (Sum.COVERED, at.COVERED),
            (Sum.WIDTH, at.WIDTHS),
        ):  # fmt: skip
            assert sums[ours] == pytest.approx(totals[output][theirs], rel=1e-9), ours.name
        assert sums[Sum.PAIRS] > 700
        assert sums[Sum.INTERVALS] > 600
