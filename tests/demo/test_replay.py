"""What the demo feeds: the shipped series, in order, side by side, with the broken events among them."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import orjson
import pytest
from demo.made_answers import made_series

from deploy.demo.feeder import bursts
from deploy.demo.series import DATA, load_series, replay_order, write_history
from deploy.demo.wire import BROKEN, BROKEN_STREAM, DeadLetter, Forecast, InputRecord, input_records


def test_a_dozen_shipped_series_with_their_licence() -> None:
    series = load_series()
    assert len(series) == 12
    assert "Copyright 2014-2024 Numenta Inc." in (DATA / "LICENSE").read_text()
    assert sum(path.stat().st_size for path in DATA.iterdir()) < 1.3e6
    for one in series:
        assert len(one.ts) == len(one.y) > 1000
        assert np.isfinite(one.y).all()
        assert (np.diff(one.ts) > 0).all()


def test_a_file_is_read_whole() -> None:
    taxi = next(one for one in load_series() if one.stream == "nyc_taxi")
    assert (len(taxi.y), taxi.n_trained) == (10_320, 6_192)
    assert (taxi.ts[0], taxi.y[0]) == (1_404_172_800_000, 10_844.0)
    assert (taxi.ts[-1], taxi.y[-1]) == (1_422_747_000_000, 26_288.0)


def test_replay_keeps_each_series_in_order_and_all_side_by_side() -> None:
    order = list(replay_order(made_series(20)))
    assert [position for which, position in order if which == 0] == list(range(20))
    assert [position for which, position in order if which == 1] == list(range(10))
    assert {which for which, _ in order[:4]} == {which for which, _ in order[-4:]} == {0, 1}


def test_every_event_is_fed_once_and_every_broken_one_too() -> None:
    series = made_series(20)
    records = list(input_records(series))
    good = [record for record in records if record.key != BROKEN_STREAM]
    for one in series:
        values = [orjson.loads(record.value) for record in good if record.key == one.stream.encode()]
        assert [value["value"] for value in values] == one.y.tolist()
        assert [value["ts"] for value in values] == one.ts.tolist()
    assert [record.value for record in records if record.key == BROKEN_STREAM] == list(BROKEN)
    assert len(good) + len(BROKEN) == len(records)


@pytest.mark.parametrize("count", [1, 7, 100, 1000])
def test_bursts_are_even_and_lose_nothing(count: int) -> None:
    records = [InputRecord(b"k", str(n).encode(), n) for n in range(100)]
    cut = list(bursts(records, count))
    assert [record for burst in cut for record in burst] == records
    assert max(Counter(map(len, cut))) - min(Counter(map(len, cut))) <= 1


def forecast_record(interval: bytes, anomaly: bytes) -> bytes:
    return (
        b'{"stream":"a","ts":5,"y":1.5,"yhat":[2.25],%b,"level":0.9,"horizon":[1],"target_ts":[6],%b,"status":"ok",'
        b'"n_seen":3,"model":"eee6780ac3b9","src":{"topic":"events","partition":2,"offset":9}}'
    ) % (interval, anomaly)


def test_a_forecast_record_is_read() -> None:
    value = forecast_record(b'"lower":[2.0],"upper":[2.75]', b'"anomaly_score":1.25,"is_anomaly":true')
    found = Forecast.parse(value)
    assert found == Forecast("a", 5, 1.5, 2.25, 2.0, 2.75, 1.25, True, 3, "events", 2, 9)
    assert found.has_interval


def test_what_is_not_known_yet_of_a_forecast() -> None:
    value = forecast_record(b'"lower":[null],"upper":[null]', b'"anomaly_score":null,"is_anomaly":false')
    found = Forecast.parse(value)
    assert found == Forecast("a", 5, 1.5, 2.25, -np.inf, np.inf, 0.0, False, 3, "events", 2, 9)
    assert not found.has_interval


def test_what_may_be_learned_from_is_the_first_part_of_each_series(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    write_history(made_series(20), path)
    lines = path.read_text().splitlines()
    assert lines[0] == "stream,time,value"
    assert lines[1:4] == [f"up,1970-01-01T00:0{k}:00.000Z,{1.5 * k!r}" for k in range(3)]
    assert [line.split(",")[0] for line in lines[1:]] == ["up"] * 12 + ["wave"] * 6
    assert [float(line.split(",")[2]) for line in lines[13:]] == np.sin(np.arange(6)).tolist()


def test_a_dead_letter_is_read_by_its_headers() -> None:
    prefix = "__streamlstm.errors."
    said = {"topic": b"events", "partition": b"3", "offset": b"12", "reason": b"not_json", "message": b"..."}
    headers = [("trace", b"\xff"), *((prefix + name, text) for name, text in said.items())]
    assert DeadLetter.parse(b"{", headers) == DeadLetter(b"{", "events", 3, 12, "not_json")


def test_times_rise_within_a_partition_of_the_replay() -> None:
    """Each stream's events keep the order of time, so none is late."""
    last: dict[bytes, int] = {}
    for record in input_records(load_series()):
        if record.key != BROKEN_STREAM:
            assert record.timestamp_ms > last.get(record.key, 0)
            last[record.key] = record.timestamp_ms
    assert len(last) == 12
    assert all(a <= b for a, b in pairwise(sorted(last.values())))
