"""Forecasts as the tests of encoding want them: rows, the columns that hold them, and the text that orjson gives."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import orjson
from hypothesis import strategies as st

from streamlstm.events.batch import PADDING, EventBatch, Reason, Run
from streamlstm.events.encode import EncodedBatch, ForecastEncoder
from streamlstm.events.forecast import ForecastBatch, Status

MODEL_ID = "0123456789ab"
NO_HEADERS = b"\0"
ONE_HEADER = b"\x02\x06abc\x04xy"
HEADER_OF_NULL = b"\x02\x02n\x01"


@dataclass
class Event:
    """One row as a test wants it, input and forecast."""

    stream: bytes = b"pump-1"
    key: bytes | None = b"pump-1"
    headers: bytes = NO_HEADERS
    time: int = 1_730_000_000_000
    timestamp: int = 1 << 50
    x: tuple[float, ...] = (1.5,)
    yhat: tuple[float, ...] = (2.25,)
    lower: tuple[float, ...] = (2.0,)
    upper: tuple[float, ...] = (3.5,)
    score: float = 0.125
    status: Status = Status.OK
    n_seen: int = 10
    gap_ms: int = 60_000
    offset: int = 42
    reason: Reason = Reason.OK

    def expected(self, run: Run, horizons: Sequence[int], level: float = 0.0) -> dict[str, object]:
        """`level` 0: without an interval."""
        interval = {"lower": list(self.lower), "upper": list(self.upper), "level": level}
        anomaly = {"anomaly_score": None if np.isnan(self.score) else self.score, "is_anomaly": self.score > 1.0}
        return {
            "stream": self.stream.decode(),
            "ts": self.time,
            "y": self.x[0] if len(self.x) == 1 else list(self.x),
            "yhat": list(self.yhat),
            **(interval if level else {}),
            "horizon": list(horizons),
            "target_ts": None if self.gap_ms < 0 else [self.time + h * self.gap_ms for h in horizons],
            **(anomaly if level else {}),
            "status": self.status.label,
            "n_seen": self.n_seen,
            "model": MODEL_ID,
            "src": {"topic": run.topic, "partition": run.partition, "offset": self.offset},
        }


@dataclass
class Columns:
    """The events in the columns that the encoder reads, every span surrounded by bytes that must not be printed."""

    events: Sequence[Event]
    single: bool = False
    intervals: bool = False
    batch: EventBatch = field(init=False)
    forecasts: ForecastBatch = field(init=False)

    def __post_init__(self) -> None:
        n = len(self.events)
        payload = bytearray(b"#")
        self.batch = EventBatch(len(self.events[0].x), np.zeros(0, np.uint8), n)
        self.batch.n = n
        for row, event in enumerate(self.events):
            for name, content in (("stream", event.stream), ("key", event.key), ("headers", event.headers)):
                getattr(self.batch, f"{name}_at")[row] = -1 if content is None else len(payload)
                getattr(self.batch, f"{name}_len")[row] = len(content or b"")
                payload += (content or b"") + b'"'
            self.batch.event_time[row] = event.time
            self.batch.timestamp[row] = event.timestamp
            self.batch.offset[row] = event.offset
            self.batch.x[row] = event.x
            self.batch.reason[row] = event.reason
        self.batch.payload = np.frombuffer(payload + b"\x01" * PADDING, np.uint8).copy()
        self.forecasts = ForecastBatch(
            yhat=np.array([event.yhat for event in self.events], np.float64),
            single=self.single,
            status=np.array([event.status for event in self.events], np.uint8),
            n_seen=np.array([event.n_seen for event in self.events], np.int64),
            gap_ms=np.array([event.gap_ms for event in self.events], np.int64),
        )
        if self.intervals:
            self.forecasts = replace(
                self.forecasts,
                lower=np.array([event.lower for event in self.events], np.float64),
                upper=np.array([event.upper for event in self.events], np.float64),
                anomaly_score=np.array([event.score for event in self.events], np.float64),
            )
        self.batch.runs = [Run("plant.sensors", 3, 0, n)]

    def encode(self, encoder: ForecastEncoder, run: Run | None = None) -> list[EncodedBatch]:
        run = run or self.batch.runs[0]
        rows = np.arange(run.start, run.stop)
        return encoder.encode(self.batch, self.forecasts, (run.topic, run.partition), rows)

    def values(self, encoder: ForecastEncoder) -> list[bytes]:
        return encoder.values(self.batch, self.forecasts, np.flatnonzero(self.batch.reason == Reason.OK))


def orjson_text(fields: dict[str, object]) -> bytes:
    """orjson before 3.11.7 wrote 1e16 for 1e+16."""
    texts = {name: orjson.dumps(content) for name, content in fields.items()}
    for name in {"y", "yhat", "lower", "upper", "anomaly_score"} & texts.keys():
        texts[name] = re.sub(rb"e(?=\d)", b"e+", texts[name])
    return b"{" + b",".join(b'"%s":%s' % (name.encode(), text) for name, text in texts.items()) + b"}"


FINITE = st.floats(allow_nan=False, allow_infinity=False)
BOUNDS = st.floats(allow_nan=False)  # infinite where it isn't known: null, as orjson has it
STREAMS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40).map(str.encode)
EVENTS = st.builds(
    Event,
    stream=STREAMS,
    key=st.none() | st.binary(max_size=200),
    headers=st.sampled_from([NO_HEADERS, ONE_HEADER, HEADER_OF_NULL]),
    time=st.integers(-2_208_988_800_000, 7_258_118_400_000),
    timestamp=st.integers(-1, 1 << 50),
    x=st.tuples(FINITE, FINITE),
    yhat=st.tuples(FINITE, FINITE),
    status=st.sampled_from(Status),
    n_seen=st.integers(1, 1 << 62),
    gap_ms=st.integers(-1, 10**13),
    lower=st.tuples(BOUNDS, BOUNDS),
    upper=st.tuples(BOUNDS, BOUNDS),
    score=st.just(float("nan")) | st.floats(0, 2) | st.floats(0, allow_infinity=False),
    offset=st.integers(0, (1 << 63) - 1),
    reason=st.sampled_from([Reason.OK, Reason.OK, Reason.OK, Reason.NOT_JSON]),
)
HEADERS_READ = {NO_HEADERS: [], ONE_HEADER: [("abc", b"xy")], HEADER_OF_NULL: [("n", None)]}
