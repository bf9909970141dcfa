"""A small replay without a broker: two made series, and the answers that a faultless daemon would give."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import orjson

from deploy.demo.series import Series
from deploy.demo.wire import BROKEN, BROKEN_STREAM, INPUT, Answer, DeadLetter, Forecast, input_records


def made_series(n: int = 20) -> list[Series]:
    ts = np.arange(n, dtype=np.int64) * 60_000
    return [Series("up", ts, np.arange(n) * 1.5), Series("wave", ts[: n // 2], np.sin(np.arange(n // 2)))]


@dataclass(frozen=True)
class MadeReplay:
    series: list[Series]
    answers: list[Answer]
    ends: dict[int, int]


def made_replay() -> MadeReplay:
    """Two partitions; every forecast is the last value, as naive as can be, within an interval 2 wide; every tenth
    event is anomalous.
    """
    series = made_series()
    answers: list[Answer] = []
    ends, seen = {0: 0, 1: 0}, Counter[str]()
    for record in input_records(series):
        stream = record.key.decode()
        partition = len(stream) % 2
        offset = ends[partition]
        ends[partition] += 1
        if record.key == BROKEN_STREAM:
            answers.append(DeadLetter(record.value, INPUT, partition, offset, BROKEN[record.value]))
            continue
        event = orjson.loads(record.value)
        seen[stream] += 1
        value, n = event["value"], seen[stream]
        answers.append(made_forecast(stream, event["ts"], value, value, n, partition, offset, is_anomaly=n % 10 == 0))
    return MadeReplay(series, answers, ends)


def made_forecast(
    stream: str, ts: int, y: float, yhat: float, n: int, partition: int, offset: int, is_anomaly: bool = False
) -> Forecast:
    lower, upper, score = yhat - 1.0, yhat + 1.0, 1.5 if is_anomaly else 0.5
    return Forecast(stream, ts, y, yhat, lower, upper, score, is_anomaly, n, INPUT, partition, offset)
