"""Forecasts to bytes: whole Kafka record batches, or JSON lines for files, by one and the same printer."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import orjson
from numpy.typing import NDArray

from streamlstm.errors import ConfigError, InvariantError
from streamlstm.events.batch import EventBatch, Source
from streamlstm.events.compression import Codec, codec_of, compressor
from streamlstm.events.forecast import ForecastBatch, Status
from streamlstm.kernels import forecast_text, record_encode
from streamlstm.kernels.forecast_text import ForecastText
from streamlstm.kernels.record_encode import HEADER_BYTES

DEFAULT_MAX_BATCH_BYTES = 900_000
"""Under the broker's default `message.max.bytes` of 1,048,588."""

_HEADER = struct.Struct(">qiibIhiqqqhii")
_MAGIC = 2
_BEFORE_LENGTH_COUNTS = 12  # base offset and the length itself


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """One record batch, format v2, base offset 0.

    Producer id, epoch and sequence are -1, the CRC is 0 and the transactional bit unset: those are the writer's.
    """

    buffer: bytearray
    count: int
    max_timestamp: int


class BatchSealer:
    """Puts the header before a section of records, and compresses the section where that makes it smaller."""

    def __init__(self, compression: str = "none") -> None:
        self._codec = codec_of(compression)
        self._compress = compressor(self._codec)

    def seal(self, buffer: bytearray, count: int, base_timestamp: int, max_timestamp: int) -> EncodedBatch:
        """`buffer` holds the records from byte 61 on and nothing after them; it may become the batch."""
        codec = Codec.NONE
        if self._codec is not Codec.NONE:
            with memoryview(buffer) as whole:
                section = self._compress(whole[HEADER_BYTES:])
            if HEADER_BYTES + len(section) < len(buffer):
                codec = self._codec
                buffer = bytearray(HEADER_BYTES) + section
        _HEADER.pack_into(
            buffer, 0, 0, len(buffer) - _BEFORE_LENGTH_COUNTS, -1, _MAGIC, 0, codec, count - 1,
            base_timestamp, max_timestamp, -1, -1, -1, count,
        )  # fmt: skip
        return EncodedBatch(buffer, count, max_timestamp)


class ForecastEncoder:
    """Prints forecasts. Not thread-safe."""

    def __init__(
        self,
        model_id: str,
        horizons: Sequence[int],
        max_batch_bytes: int = DEFAULT_MAX_BATCH_BYTES,
        compression: str = "none",
        level: float = 0.0,
    ) -> None:
        """`max_batch_bytes` counts a batch before compression, header included. `level` is the coverage of the
        forecasts' intervals, 0 when they have none. Raises ConfigError.
        """
        if not HEADER_BYTES < max_batch_bytes < 1 << 31:
            raise ConfigError([f"max_batch_bytes: expected {HEADER_BYTES + 1} to 2147483647; found {max_batch_bytes}"])
        if not 0.0 <= level < 1.0:
            raise ConfigError([f"level: expected 0 or more, and less than 1; found {level}"])
        self._model_id = model_id
        self._level = level
        self._horizons = np.asarray(horizons, np.int64)
        self._max_batch_bytes = max_batch_bytes
        self._sealer = BatchSealer(compression)
        self._texts: dict[tuple[str, int, int, bool], ForecastText] = {}
        self._columns = np.zeros(forecast_text.OUTPUTS + 1, np.int64)
        self._columns_address: int = self._columns.ctypes.data
        self._result = np.zeros(6, np.int64)
        self._room = np.empty(0, np.uint8)

    def encode(
        self, batch: EventBatch, forecasts: ForecastBatch, source: Source, rows: NDArray[np.int64]
    ) -> list[EncodedBatch]:
        """The forecasts of `rows` (int64, all of one source) that have no reason, in that order, as record batches of
        at most `max_batch_bytes`.

        A forecast whose record alone is larger is left out, and `batch.reason` of its row becomes too_large: so dead
        letters are collected after this. Raises InvariantError when a number isn't finite.
        """
        columns = self._describe(batch, forecasts)
        text = self._text(source, batch.inputs, forecasts.single)
        total, largest = record_encode.records_bound(columns, text, rows)
        sealed = []
        at = 0
        while at < len(rows):
            out = self._room_for(HEADER_BYTES + min(total, self._max_batch_bytes + largest) + forecast_text.SLACK)
            record_encode.encode_forecasts(columns, text, rows, at, self._max_batch_bytes, out, self._result)
            at, used, count, base_timestamp, max_timestamp, not_finite = self._result.tolist()
            _check_finite(not_finite, source)
            total -= used - HEADER_BYTES
            if count:
                sealed.append(self._sealer.seal(bytearray(out.data[:used]), count, base_timestamp, max_timestamp))
        return sealed

    def _room_for(self, size: int) -> NDArray[np.uint8]:
        """Where records are printed: always the same memory, which stays in the cache; batches are copies."""
        if size > len(self._room):
            self._room = np.empty(max(size, 2 * len(self._room)), np.uint8)
        return self._room

    def values(self, batch: EventBatch, forecasts: ForecastBatch, rows: NDArray[np.int64]) -> list[bytes]:
        """The JSON texts of `rows` (int64, ascending, of any of the batch's runs, none with a reason)."""
        columns = self._describe(batch, forecasts)
        texts: list[bytes] = []
        for run in batch.runs:
            first, after = np.searchsorted(rows, (run.start, run.stop)).tolist()
            source = (run.topic, run.partition)
            text = self._text(source, batch.inputs, forecasts.single)
            texts += self._values(columns, text, source, rows[first:after])
        return texts

    def _values(self, columns: int, text: int, source: Source, rows: NDArray[np.int64]) -> list[bytes]:
        out = np.empty(forecast_text.values_bound(columns, text, rows), np.uint8)
        ends = np.empty(len(rows), np.int64)
        _check_finite(forecast_text.print_values(columns, text, rows, out, ends), source)
        printed = out[: ends[-1] if len(rows) else 0].tobytes()
        return [printed[start:stop] for start, stop in pairwise([0, *ends.tolist()])]

    def _describe(self, batch: EventBatch, forecasts: ForecastBatch) -> int:
        """The address of a descriptor of the columns, good until the next call."""
        if len(forecasts.yhat) < batch.n or forecasts.yhat.shape[1] != len(self._horizons):
            raise InvariantError(
                f"forecasts: expected at least {batch.n} rows of {len(self._horizons)}; found {forecasts.yhat.shape}"
            )
        forecast_text.describe_columns(
            batch.payload, batch.offset, batch.timestamp, batch.event_time, batch.key_at, batch.key_len,
            batch.headers_at, batch.headers_len, batch.stream_at, batch.stream_len, batch.x, forecasts.yhat,
            forecasts.status, forecasts.n_seen, forecasts.gap_ms, batch.reason, self._columns,
        )  # fmt: skip
        lower, upper, anomaly_score = forecasts.lower, forecasts.upper, forecasts.anomaly_score
        if (lower is None) != (self._level == 0.0):
            found = "none" if lower is None else "some"
            raise InvariantError(f"forecasts: expected intervals of level {self._level} (0: none); found {found}")
        if lower is not None and upper is not None and anomaly_score is not None:
            forecast_text.describe_intervals(lower, upper, anomaly_score, self._columns)
        return self._columns_address

    def _text(self, source: Source, inputs: int, single: bool) -> int:
        """The address of the literals of a source's forecasts."""
        known = (*source, inputs, single)
        text = self._texts.get(known)
        if text is None:
            literals = _literals(self._model_id, self._horizons.tolist(), self._level, source, inputs > 1)
            text = self._texts[known] = ForecastText(literals, self._horizons, single)
        return text.address


def _literals(model_id: str, horizons: list[int], level: float, source: Source, several_inputs: bool) -> list[bytes]:
    """What stands between the values, in the order of the constants of kernels/forecast_text.py."""
    coverage = b',"level":' + orjson.dumps(level) if level > 0.0 else b""
    where = orjson.dumps({"topic": source[0], "partition": source[1]}).removesuffix(b"}")
    return [
        b'{"stream":"',
        b'","ts":',
        b',"y":[' if several_inputs else b',"y":',
        b'],"yhat":[' if several_inputs else b',"yhat":[',
        b'],"lower":[',
        b'],"upper":[',
        b"]" + coverage + b',"horizon":' + orjson.dumps(horizons) + b',"target_ts":',
        b',"anomaly_score":',
        b',"is_anomaly":',
        b',"model":' + orjson.dumps(model_id) + b',"src":' + where + b',"offset":',
        b"}}",
        *(b',"status":' + orjson.dumps(status.label) + b',"n_seen":' for status in Status),
    ]


def _check_finite(not_finite: int, source: Source) -> None:
    if not_finite:
        raise InvariantError(
            f"{source[0]}-{source[1]}: {not_finite} forecasts without a reason hold a number that isn't finite"
        )
