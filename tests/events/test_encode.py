"""Forecasts as text and as record batches: text against orjson, batches against kafka-python's reader."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlstm.errors import ConfigError, InvariantError
from streamlstm.events.batch import Reason, Run
from streamlstm.events.compression import Codec
from streamlstm.events.encode import ForecastEncoder
from streamlstm.events.forecast import Status
from streamlstm.kernels import record_encode
from tests.events.forecast_rows import (
    EVENTS,
    HEADERS_READ,
    MODEL_ID,
    NO_HEADERS,
    ONE_HEADER,
    Columns,
    Event,
    orjson_text,
)
from tests.events.record_reader import codec_number, read_records


@pytest.fixture(scope="module")
def encoder() -> ForecastEncoder:
    return ForecastEncoder(MODEL_ID, (1,))


def test_the_text_of_a_forecast(encoder: ForecastEncoder) -> None:
    (text,) = Columns([Event()]).values(encoder)
    assert text == (
        b'{"stream":"pump-1","ts":1730000000000,"y":1.5,"yhat":[2.25],"horizon":[1],"target_ts":[1730000060000],'
        b'"status":"ok","n_seen":10,"model":"0123456789ab",'
        b'"src":{"topic":"plant.sensors","partition":3,"offset":42}}'
    )


def test_several_inputs_and_outputs() -> None:
    encoder = ForecastEncoder(MODEL_ID, (1, 6, 24))
    (text,) = Columns([Event(x=(1.0, -2.5), yhat=(0.1, 1e300, -3.0), status=Status.WARMUP)]).values(encoder)
    assert text == (
        b'{"stream":"pump-1","ts":1730000000000,"y":[1.0,-2.5],"yhat":[0.1,1e+300,-3.0],"horizon":[1,6,24],'
        b'"target_ts":[1730000060000,1730000360000,1730001440000],"status":"warmup","n_seen":10,'
        b'"model":"0123456789ab","src":{"topic":"plant.sensors","partition":3,"offset":42}}'
    )


def test_an_unknown_time_step_has_no_target_times(encoder: ForecastEncoder) -> None:
    known, unknown = Columns([Event(gap_ms=0), Event(gap_ms=-1)]).values(encoder)
    assert b'"target_ts":[1730000000000],' in known
    assert b'"target_ts":null,"status":' in unknown


@pytest.mark.parametrize("status", Status)
def test_statuses_by_name(encoder: ForecastEncoder, status: Status) -> None:
    (text,) = Columns([Event(status=status)]).values(encoder)
    assert orjson.loads(text)["status"] == status.name.lower()


def test_single_precision_prints_as_few_digits_as_tell_a_float32(encoder: ForecastEncoder) -> None:
    tenth = float(np.float32(0.1))
    event = Event(x=(tenth,), yhat=(tenth,))
    (single,) = Columns([event], single=True).values(encoder)
    (double,) = Columns([event]).values(encoder)
    assert b'"y":0.10000000149011612,"yhat":[0.1],' in single
    assert b'"y":0.10000000149011612,"yhat":[0.10000000149011612],' in double


AWKWARD_STREAMS = [
    "",
    '"',
    "\\",
    "a" * 7 + '"',
    "a" * 8 + "\\",
    "\x00\x01\x1f\x7f\x80",
    "\b\t\n\f\r",
    "ä/🛰/€",
    '"' * 300,
    "\x1b" * 100,
    "x" * 1000,
    " !#[]~",
]


@pytest.mark.parametrize("stream", AWKWARD_STREAMS)
def test_stream_ids_are_escaped_as_orjson_does(encoder: ForecastEncoder, stream: str) -> None:
    (text,) = Columns([Event(stream=stream.encode())]).values(encoder)
    assert text.startswith(b'{"stream":' + orjson.dumps(stream) + b',"ts":')


TWO_HORIZONS = ForecastEncoder(MODEL_ID, (1, 7))


@settings(max_examples=200)
@given(events=st.lists(EVENTS, min_size=1, max_size=20))
def test_any_batch_reads_back(events: list[Event]) -> None:
    columns = Columns(events)
    run = columns.batch.runs[0]
    expected = [event for event in events if event.reason is Reason.OK]
    encoded = columns.encode(TWO_HORIZONS)
    records = [record for part in encoded for record in read_records(part)]
    assert len(records) == len(expected)
    for event, record in zip(expected, records, strict=True):
        assert record.key == event.key
        assert record.headers == HEADERS_READ[event.headers]
        assert record.timestamp == max(min(event.time, event.timestamp), -1)
        assert record.value == orjson_text(event.expected(run, (1, 7)))
    assert columns.values(TWO_HORIZONS) == [record.value for record in records]


def test_no_headers_at_all_are_an_empty_section(encoder: ForecastEncoder) -> None:
    (encoded,) = Columns([Event(headers=b""), Event(headers=ONE_HEADER)]).encode(encoder)
    assert [record.headers for record in read_records(encoded)] == [[], [("abc", b"xy")]]


def test_long_keys_and_headers_widen_the_lengths_before_them(encoder: ForecastEncoder) -> None:
    long_header = b"\x02\x02k" + b"\x80\xfa\x01" + b"v" * 16_000
    events = [
        Event(key=b"k" * size, headers=headers)
        for size in (0, 63, 64, 65, 8000, 8191, 8192, 100_000)
        for headers in (NO_HEADERS, long_header)
    ]
    (encoded,) = Columns(events).encode(encoder)
    for event, record in zip(events, read_records(encoded), strict=True):
        assert record.key == event.key
        assert len(record.headers) == event.headers[0] >> 1


def test_times_before_1970_are_kept_in_the_text_only(encoder: ForecastEncoder) -> None:
    (encoded,) = Columns([Event(time=-5000), Event(time=-1), Event(time=7)]).encode(encoder)
    records = read_records(encoded)
    assert [record.timestamp for record in records] == [-1, -1, 7]
    assert [orjson.loads(record.value or b"")["ts"] for record in records] == [-5000, -1, 7]


def test_a_time_in_the_future_cannot_make_the_broker_refuse_the_batch(encoder: ForecastEncoder) -> None:
    in_2200, taken = 7_258_118_400_000, 1_730_000_000_000
    events = [Event(time=in_2200, timestamp=taken), Event(time=taken - 1, timestamp=taken), Event(timestamp=-1)]
    (encoded,) = Columns(events).encode(encoder)
    records = read_records(encoded)
    assert [record.timestamp for record in records] == [taken, taken - 1, -1]
    assert orjson.loads(records[0].value or b"")["ts"] == in_2200


def test_timestamps_may_go_back(encoder: ForecastEncoder) -> None:
    times = [5_000_000, 1, 7_000_000_000_000, 0]
    (encoded,) = Columns([Event(time=time) for time in times]).encode(encoder)
    assert [record.timestamp for record in read_records(encoded)] == times


def many_events(n: int) -> list[Event]:
    rng = np.random.default_rng(n)
    return [
        Event(
            stream=b"host-%d" % k,
            key=b"host-%d" % k,
            time=1_730_000_000_000 + 1000 * k,
            x=(float(rng.normal()),),
            yhat=(float(rng.normal()),),
            offset=k,
        )
        for k in range(n)
    ]


@pytest.mark.parametrize("max_batch_bytes", [400, 1000, 5000, 100_000])
def test_batches_are_as_full_as_the_limit_allows(max_batch_bytes: int) -> None:
    events = many_events(300)
    columns = Columns(events)
    batches = columns.encode(ForecastEncoder(MODEL_ID, (1,), max_batch_bytes))
    records = [read_records(batch) for batch in batches]
    values = [record.value for part in records for record in part]
    assert values == columns.values(ForecastEncoder(MODEL_ID, (1,)))
    assert all(len(batch.buffer) <= max_batch_bytes for batch in batches)
    for batch, following in pairwise(batches):
        whole = len(following.buffer) - record_encode.HEADER_BYTES
        first = whole // following.count  # records differ by some digits only
        assert len(batch.buffer) + first + 40 > max_batch_bytes


def test_a_record_over_the_limit_gets_a_reason_and_its_neighbours_a_forecast() -> None:
    events = many_events(6)
    for row in (0, 3, 5):
        events[row].key = b"k" * 5000
    columns = Columns(events)
    batches = columns.encode(ForecastEncoder(MODEL_ID, (1,), 2000))
    offsets = [
        orjson.loads(record.value or b"")["src"]["offset"] for batch in batches for record in read_records(batch)
    ]
    assert offsets == [1, 2, 4]
    assert columns.batch.reason.tolist() == [Reason.TOO_LARGE, 0, 0, Reason.TOO_LARGE, 0, Reason.TOO_LARGE]


def test_only_the_rows_of_the_run_are_encoded(encoder: ForecastEncoder) -> None:
    columns = Columns(many_events(10))
    (encoded,) = columns.encode(encoder, Run("other", 9, 4, 7))
    sources = [orjson.loads(record.value or b"")["src"] for record in read_records(encoded)]
    assert sources == [{"topic": "other", "partition": 9, "offset": offset} for offset in (4, 5, 6)]


def test_a_run_of_refused_rows_gives_no_batch(encoder: ForecastEncoder) -> None:
    columns = Columns([Event(reason=Reason.NOT_JSON), Event(reason=Reason.CAPACITY)])
    assert columns.encode(encoder) == []
    assert columns.values(encoder) == []


def test_values_follow_the_rows_through_the_runs(encoder: ForecastEncoder) -> None:
    columns = Columns(many_events(9))
    columns.batch.runs = [Run("a", 0, 0, 4), Run("a", 1, 4, 4), Run("b", 0, 4, 9)]
    texts = encoder.values(columns.batch, columns.forecasts, np.array([1, 3, 4, 8]))
    assert [(orjson.loads(text)["src"]["topic"], orjson.loads(text)["src"]["offset"]) for text in texts] == [
        ("a", 1), ("a", 3), ("b", 4), ("b", 8),
    ]  # fmt: skip


@pytest.mark.parametrize("compression", [codec.name.lower() for codec in Codec])
def test_every_codec_reads_back(compression: str) -> None:
    columns = Columns(many_events(2000))
    plain = columns.encode(ForecastEncoder(MODEL_ID, (1,)))
    encoded = columns.encode(ForecastEncoder(MODEL_ID, (1,), compression=compression))
    assert [read_records(batch) for batch in encoded] == [read_records(batch) for batch in plain]
    assert {codec_number(batch) for batch in encoded} == {Codec[compression.upper()]}
    if compression != "none":
        assert sum(len(batch.buffer) for batch in encoded) < sum(len(batch.buffer) for batch in plain) // 2
    assert encoded == columns.encode(ForecastEncoder(MODEL_ID, (1,), compression=compression))


@pytest.mark.parametrize("compression", ["gzip", "snappy", "lz4", "zstd"])
def test_what_compression_would_enlarge_is_sent_as_it_is(compression: str) -> None:
    noise = np.random.default_rng(1).bytes(20_000)
    (encoded,) = Columns([Event(key=noise)]).encode(ForecastEncoder(MODEL_ID, (1,), compression=compression))
    (record,) = read_records(encoded)
    assert record.key == noise
    assert len(encoded.buffer) < 20_500


def test_a_missing_input_is_null(encoder: ForecastEncoder) -> None:
    columns = Columns([Event(x=(np.nan, 1.5)), Event(x=(0.5, -np.nan))])
    assert [orjson.loads(text)["y"] for text in columns.values(encoder)] == [[None, 1.5], [0.5, None]]


@pytest.mark.parametrize(
    ("where", "bad"), [("x", np.inf), ("x", -np.inf), ("yhat", np.nan), ("yhat", np.inf), ("yhat", -np.inf)]
)
def test_a_number_that_is_not_finite_is_a_broken_invariant(encoder: ForecastEncoder, where: str, bad: float) -> None:
    columns = Columns([Event(), Event(**{where: (bad,)})])
    with pytest.raises(InvariantError, match=r"plant\.sensors-3: 1 forecasts"):
        columns.encode(encoder)
    with pytest.raises(InvariantError, match=r"plant\.sensors-3: 1 forecasts"):
        columns.values(encoder)


def test_columns_of_another_layout_are_refused(encoder: ForecastEncoder) -> None:
    columns = Columns([Event(), Event()])
    good = columns.forecasts
    with pytest.raises(InvariantError, match=r"yhat: expected a contiguous float64 .* found float32"):
        replace(good, yhat=good.yhat.astype(np.float32))
    with pytest.raises(InvariantError, match=r"status: expected a contiguous uint8 column of shape \(2,\)"):
        replace(good, status=np.zeros(4, np.uint8)[::2])
    with pytest.raises(InvariantError, match=r"gap_ms: .* found int64 of shape \(1,\)"):
        replace(good, gap_ms=good.gap_ms[:1])
    columns.forecasts = replace(good, yhat=np.zeros((2, 3)))
    with pytest.raises(InvariantError, match=r"expected at least 2 rows of 1; found \(2, 3\)"):
        columns.encode(encoder)


def test_refused_rows_may_hold_anything(encoder: ForecastEncoder) -> None:
    refused = Event(reason=Reason.NOT_FINITE, x=(np.nan,), yhat=(np.nan,), status=200)  # type: ignore[arg-type]
    columns = Columns([refused, Event(), refused])
    columns.batch.stream_at[::2] = -1
    columns.batch.stream_len[::2] = -999
    (encoded,) = columns.encode(encoder)
    assert encoded.count == 1


def test_what_cannot_be_configured() -> None:
    with pytest.raises(ConfigError, match=r"compression: expected none\|gzip\|snappy\|lz4\|zstd; found 'brotli'"):
        ForecastEncoder(MODEL_ID, (1,), compression="brotli")
    with pytest.raises(ConfigError, match="max_batch_bytes: expected 62 to 2147483647; found 61"):
        ForecastEncoder(MODEL_ID, (1,), max_batch_bytes=61)


def test_the_kernel_knows_the_reason_by_number() -> None:
    assert record_encode._TOO_LARGE == Reason.TOO_LARGE
