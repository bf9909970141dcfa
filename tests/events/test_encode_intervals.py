"""Forecasts with intervals and anomaly scores: as text against orjson, in record batches against kafka-python's reader.

What they share with forecasts that have none is in test_encode.py.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlstm.errors import ConfigError, InvariantError
from streamlstm.events.batch import Reason
from streamlstm.events.encode import ForecastEncoder
from streamlstm.events.forecast import ForecastBatch, Status
from streamlstm.kernels.record_encode import HEADER_BYTES
from tests.events.forecast_rows import EVENTS, FINITE, MODEL_ID, Columns, Event, orjson_text
from tests.events.record_reader import read_records

LEVEL = 0.9
NAN = float("nan")
TWO_HORIZONS = ForecastEncoder(MODEL_ID, (1, 7), level=LEVEL)


@pytest.fixture(scope="module")
def encoder() -> ForecastEncoder:
    return ForecastEncoder(MODEL_ID, (1,), level=LEVEL)


def judged(*events: Event, single: bool = False) -> Columns:
    return Columns(events, single, intervals=True)


def test_the_text_of_a_forecast_with_an_interval(encoder: ForecastEncoder) -> None:
    (text,) = judged(Event(score=0.1234)).values(encoder)
    assert text == (
        b'{"stream":"pump-1","ts":1730000000000,"y":1.5,"yhat":[2.25],"lower":[2.0],"upper":[3.5],"level":0.9,'
        b'"horizon":[1],"target_ts":[1730000060000],"anomaly_score":0.1234,"is_anomaly":false,'
        b'"status":"ok","n_seen":10,"model":"0123456789ab",'
        b'"src":{"topic":"plant.sensors","partition":3,"offset":42}}'
    )


def test_each_horizon_has_its_interval() -> None:
    encoder = ForecastEncoder(MODEL_ID, (1, 6, 24), level=0.8)
    event = Event(
        x=(1.0, -2.5), yhat=(0.1, 1e300, -3.0), lower=(-0.0, -1e300, -1e-9), upper=(0.2, 1e16, 5e-324), score=17.0,
        gap_ms=-1, status=Status.WARMUP,
    )  # fmt: skip
    (text,) = judged(event).values(encoder)
    assert text == (
        b'{"stream":"pump-1","ts":1730000000000,"y":[1.0,-2.5],"yhat":[0.1,1e+300,-3.0],"lower":[-0.0,-1e+300,-1e-9],'
        b'"upper":[0.2,1e+16,5e-324],"level":0.8,"horizon":[1,6,24],"target_ts":null,'
        b'"anomaly_score":17.0,"is_anomaly":true,"status":"warmup","n_seen":10,'
        b'"model":"0123456789ab","src":{"topic":"plant.sensors","partition":3,"offset":42}}'
    )


@pytest.mark.parametrize(
    ("score", "text"),
    [
        (NAN, b"null,"),
        (-NAN, b"null,"),
        (0.0, b"0.0,"),
        (1.0, b"1.0,"),
        (np.nextafter(1.0, 2.0), b"1.0000000000000002,"),
        (1e300, b"1e+300,"),
    ],
)
def test_a_score_above_one_is_an_anomaly(encoder: ForecastEncoder, score: float, text: bytes) -> None:
    (found,) = judged(Event(score=score)).values(encoder)
    verdict = b'"is_anomaly":true,"status":' if score > 1.0 else b'"is_anomaly":false,"status":'
    assert b'],"anomaly_score":' + text + verdict in found
    assert orjson.loads(found)["is_anomaly"] is bool(score > 1.0)


def test_bounds_keep_all_their_digits_where_the_forecast_is_a_float32(encoder: ForecastEncoder) -> None:
    tenth = float(np.float32(0.1))
    (text,) = judged(Event(yhat=(tenth,), lower=(tenth,), upper=(0.3,)), single=True).values(encoder)
    assert b'"yhat":[0.1],"lower":[0.10000000149011612],"upper":[0.3],"level":' in text


@settings(max_examples=200)
@given(events=st.lists(EVENTS, min_size=1, max_size=20))
def test_any_batch_reads_back(events: list[Event]) -> None:
    columns = judged(*events)
    run = columns.batch.runs[0]
    expected = [event for event in events if event.reason is Reason.OK]
    records = [record for part in columns.encode(TWO_HORIZONS) for record in read_records(part)]
    assert [record.key for record in records] == [event.key for event in expected]
    texts = [orjson_text(event.expected(run, (1, 7), LEVEL)) for event in expected]
    assert [record.value for record in records] == texts
    assert columns.values(TWO_HORIZONS) == texts


@settings(max_examples=50)
@given(level=st.floats(0.0, 1.0, exclude_min=True, exclude_max=True), bounds=st.tuples(FINITE, FINITE))
def test_any_level_is_written_as_orjson_does(level: float, bounds: tuple[float, float]) -> None:
    columns = judged(Event(lower=bounds[:1], upper=bounds[1:]))
    (text,) = columns.values(ForecastEncoder(MODEL_ID, (1,), level=level))
    assert text == orjson_text(columns.events[0].expected(columns.batch.runs[0], (1,), level))


@pytest.mark.parametrize("max_batch_bytes", [500, 1000, 5000])
def test_batches_are_as_full_as_the_limit_allows(encoder: ForecastEncoder, max_batch_bytes: int) -> None:
    rng = np.random.default_rng(5)
    columns = judged(
        *(
            Event(lower=(float(low),), upper=(float(high),), score=NAN if k < 8 else float(score), offset=k)
            for k, (low, high, score) in enumerate(rng.random((200, 3)) * 2)
        )
    )
    batches = columns.encode(ForecastEncoder(MODEL_ID, (1,), max_batch_bytes, level=LEVEL))
    values = [record.value for batch in batches for record in read_records(batch)]
    assert values == columns.values(encoder)
    assert all(len(batch.buffer) <= max_batch_bytes for batch in batches)
    for batch, following in pairwise(batches):
        next_record = (len(following.buffer) - HEADER_BYTES) // following.count  # they differ by some digits only
        assert len(batch.buffer) + next_record + 60 > max_batch_bytes


@pytest.mark.parametrize("where", ["lower", "upper"])
@pytest.mark.parametrize("bound", [np.inf, -np.inf])
def test_bounds_that_are_not_known_yet_are_null(encoder: ForecastEncoder, where: str, bound: float) -> None:
    (value,) = judged(Event(**{where: (bound,)})).values(encoder)  # type: ignore[arg-type]
    assert orjson.loads(value)[where] == [None]


@pytest.mark.parametrize(("where", "bad"), [("lower", NAN), ("upper", NAN), ("score", np.inf), ("score", -np.inf)])
def test_a_number_that_is_not_finite_is_a_broken_invariant(encoder: ForecastEncoder, where: str, bad: float) -> None:
    content = bad if where == "score" else (bad,)
    columns = judged(Event(), Event(**{where: content}), Event())  # type: ignore[arg-type]
    with pytest.raises(InvariantError, match=r"plant\.sensors-3: 1 forecasts"):
        columns.encode(encoder)
    with pytest.raises(InvariantError, match=r"plant\.sensors-3: 1 forecasts"):
        columns.values(encoder)


def test_refused_rows_may_hold_anything(encoder: ForecastEncoder) -> None:
    refused = Event(reason=Reason.NOT_FINITE, yhat=(NAN,), lower=(NAN,), upper=(np.inf,), score=-np.inf)
    (encoded,) = judged(refused, Event(), refused).encode(encoder)
    assert encoded.count == 1


def test_intervals_and_level_come_together(encoder: ForecastEncoder) -> None:
    with pytest.raises(InvariantError, match=r"expected intervals of level 0\.9 \(0: none\); found none"):
        Columns([Event()]).values(encoder)
    with pytest.raises(InvariantError, match=r"expected intervals of level 0\.0 \(0: none\); found some"):
        judged(Event()).encode(ForecastEncoder(MODEL_ID, (1,)))
    for level in (-0.1, 1.0, NAN):
        with pytest.raises(ConfigError, match=f"level: expected 0 or more, and less than 1; found {level}"):
            ForecastEncoder(MODEL_ID, (1,), level=level)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda good: replace(good, upper=None), "expected all of them or none; found lower, anomaly_score"),
        (lambda good: replace(good, lower=None, upper=None), "all of them or none; found anomaly_score"),
        (lambda good: replace(good, anomaly_score=None), "all of them or none; found lower, upper"),
        (lambda good: replace(good, lower=np.zeros((2, 1), np.float32)), "lower: .* found float32"),
        (lambda good: replace(good, upper=np.zeros((4, 1))[::2]), r"upper: expected a contiguous float64 column"),
        (lambda good: replace(good, upper=np.zeros((2, 2))), r"upper: .* shape \(2, 1\); found .* \(2, 2\)"),
        (lambda good: replace(good, anomaly_score=np.zeros(1)), r"anomaly_score: .* shape \(2,\); found .* \(1,\)"),
    ],
)
def test_columns_of_another_layout_are_refused(spoil: Callable[[ForecastBatch], ForecastBatch], message: str) -> None:
    good = judged(Event(), Event()).forecasts
    with pytest.raises(InvariantError, match=message):
        spoil(good)
