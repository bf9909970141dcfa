"""The printing kernels write where they are told and nowhere else, however long the texts."""

import numpy as np
import pytest
from numpy.typing import NDArray

from streamlstm.kernels import forecast_text, record_encode
from streamlstm.kernels.forecast_text import SLACK, ForecastText, describe_columns, describe_intervals

GUARD, FILL = 256, 0xAA
LONGEST_FLOAT = -2.2250738585072014e-308
INT64_MIN = -(1 << 63)
LITERALS = [
    b'{"stream":"', b'","ts":', b',"y":[', b'],"yhat":[', b'],"lower":[', b'],"upper":[', b'],"target_ts":',
    b',"anomaly_score":', b',"is_anomaly":', b',"src":', b"}}",
]  # fmt: skip
STATUSES = [b',"status":"ok","n_seen":', b',"status":"a very long name indeed for a status","n_seen":']


class Worst:
    """N rows in which every number and every stream id takes the most bytes it can."""

    def __init__(
        self, n: int, stream_len: int, inputs: int, outputs: int, key_len: int = 0, intervals: bool = False
    ) -> None:
        self.payload = np.full(stream_len + key_len + 64, 0x1F, np.uint8)  # each byte is printed as six
        at, long = np.zeros(n, np.int64), np.full(n, INT64_MIN)
        self.key_at, self.key_len = at + stream_len, np.full(n, key_len)
        self.stream_len = np.full(n, stream_len)
        self.x, self.yhat = np.full((n, inputs), LONGEST_FLOAT), np.full((n, outputs), LONGEST_FLOAT)
        self.offset, self.times, self.n_seen, self.gap_ms = long, long.copy(), long.copy(), at.copy()
        self.status, self.reason = np.ones(n, np.uint8), np.zeros(n, np.uint8)
        self.at = at
        self.text = ForecastText([*LITERALS, *STATUSES], np.ones(outputs, np.int64), False)
        self.descriptor = np.zeros(forecast_text.OUTPUTS + 1, np.int64)
        describe_columns(
            self.payload, self.offset, at, self.times, self.key_at, self.key_len, at, at, at, self.stream_len, self.x,
            self.yhat, self.status, self.n_seen, self.gap_ms, self.reason, self.descriptor,
        )  # fmt: skip
        self.score = np.full(n, LONGEST_FLOAT)
        if intervals:
            describe_intervals(self.yhat, self.yhat, self.score, self.descriptor)
        self.columns = self.descriptor.ctypes.data


def guarded(size: int) -> NDArray[np.uint8]:
    return np.full(size + GUARD, FILL, np.uint8)


def assert_guard_whole(out: NDArray[np.uint8]) -> None:
    assert (out[-GUARD:] == FILL).all()


SHAPES = [(1, 0, 1, 1), (1, 1, 1, 1), (3, 7, 1, 1), (2, 8, 3, 24), (5, 200, 2, 1), (1, 5000, 8, 2)]


@pytest.mark.parametrize("intervals", [False, True])
@pytest.mark.parametrize(("n", "stream_len", "inputs", "outputs"), SHAPES)
def test_the_longest_texts_stay_within_their_bound(
    n: int, stream_len: int, inputs: int, outputs: int, intervals: bool
) -> None:
    rows = Worst(n, stream_len, inputs, outputs, intervals=intervals)
    bound = forecast_text.values_bound(rows.columns, rows.text.address, np.arange(n))
    out, ends = guarded(bound), np.zeros(n, np.int64)
    assert forecast_text.print_values(rows.columns, rows.text.address, np.arange(n), out, ends) == 0
    assert_guard_whole(out)
    assert ends[-1] <= bound - SLACK
    assert ends[-1] >= bound - SLACK - n * 100  # what is reserved is needed
    first = out[: ends[0]].tobytes()
    assert first.count(b"\\u001f") == stream_len
    assert first.count(b"-2.2250738585072014e-308") == inputs + outputs + (2 * outputs + 1 if intervals else 0)
    assert first.count(b"-9223372036854775808") == 3 + outputs


@pytest.mark.parametrize("intervals", [False, True])
@pytest.mark.parametrize("key_len", [0, 1, 40, 9000])
@pytest.mark.parametrize("max_bytes", [600, 3000, 1_000_000])
@pytest.mark.parametrize(("n", "stream_len", "inputs", "outputs"), SHAPES)
def test_the_longest_records_stay_within_their_bound(
    n: int, stream_len: int, inputs: int, outputs: int, max_bytes: int, key_len: int, intervals: bool
) -> None:
    rows = Worst(n, stream_len, inputs, outputs, key_len, intervals)
    order = np.arange(n)
    total, largest = record_encode.records_bound(rows.columns, rows.text.address, order)
    size = record_encode.HEADER_BYTES + min(total, max_bytes + largest) + SLACK
    result = np.zeros(6, np.int64)
    at = count = 0
    while at < n:
        out = guarded(size)
        record_encode.encode_forecasts(rows.columns, rows.text.address, order, at, max_bytes, out, result)
        assert_guard_whole(out)
        assert result[record_encode.SIZE] <= max_bytes
        assert result[record_encode.NEXT] > at
        at = int(result[record_encode.NEXT])
        count += int(result[record_encode.COUNT])
    assert count + np.count_nonzero(rows.reason) == n


@pytest.mark.parametrize("length", range(70))
def test_escaping_copies_any_length(length: int) -> None:
    source = np.frombuffer(bytes(range(48, 48 + length)).replace(b"\\", b"_") + b'"' * 64, np.uint8)
    out = guarded(length + 8)
    end = forecast_text.print_escaped(out.ctypes.data, source.ctypes.data, length)
    assert end - out.ctypes.data == length
    assert out[:length].tobytes() == source[:length].tobytes()
    assert_guard_whole(out)
