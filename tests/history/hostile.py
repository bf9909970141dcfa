"""Hostile histories, made up here: the file, and what has to become of it."""

import datetime
import decimal
import gzip
import io
import json
import random
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from streamlstm.errors import BadDataError, StreamlstmError
from streamlstm.history.report import Kind

BEGIN = 1_730_000_000_000
MINUTE = 60_000
TIMES = [BEGIN + MINUTE * i for i in range(40)]
HEADER = "ts,value\n"
GOOD = "".join(f"{time},{i % 7}.5\n" for i, time in enumerate(TIMES))
NEXT = [BEGIN + MINUTE * i for i in range(40, 50)]
NOISE = random.Random(7).randbytes(3000)


@dataclass(frozen=True)
class Kept:
    """So many rows are kept, these things are found, and each of `said` stands in the report."""

    rows: int
    findings: dict[Kind, int] = field(default_factory=dict)
    said: tuple[str, ...] = ()
    streams: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Refused:
    said: str
    error: type[StreamlstmError] = BadDataError


Fate = Kept | Refused


def table(*rows: str, header: str = HEADER) -> bytes:
    return (header + "".join(f"{row}\n" for row in rows)).encode()


def with_good(*rows: str) -> bytes:
    return table(*GOOD.splitlines(), *rows)


def parquet(**columns: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def lines(*events: dict[str, Any] | str) -> bytes:
    return "".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in events).encode()


EVENTS = [{"stream": "a", "ts": time, "value": i % 7} for i, time in enumerate(TIMES)]
NUMBERS = [float(i) for i in range(40)]
LATE, DUPLICATE, CONFLICT, SHORT = Kind.LATE, Kind.DUPLICATE, Kind.CONFLICT, Kind.SHORT
BAD_TIME, WRONG_TYPE, NULL, NOT_FINITE = Kind.BAD_TIME, Kind.WRONG_TYPE, Kind.NULL_VALUE, Kind.NOT_FINITE
CONSTANT = {Kind.CONSTANT: 1}

CSV: dict[str, tuple[bytes, Fate]] = {
    "empty.csv": (b"", Refused("found an empty file")),
    "blank_lines.csv": (b"\n\r\n\n", Refused("expected a header and rows of events below it, found none")),
    "header_only.csv": (table(), Refused("expected a header and rows of events below it, found none")),
    "header_without_newline.csv": (b"ts,value", Refused("expected a header and rows of events below it")),
    "one_row.csv": (table(f"{BEGIN},1"), Refused("expected two rows at least, of different times; found 1")),
    "two_rows.csv": (table(f"{BEGIN},1", f"{BEGIN + 1},2")[:-1], Kept(2, {SHORT: 1}, ("interval: 1 ms",))),
    "one_time.csv": (table(*["0,1"] * 5), Refused("4 rows with the time of another row")),
    "constant.csv": (table(*(f"{time},3" for time in TIMES)), Kept(40, CONSTANT)),
    "nan_run.csv": (with_good(*["5,NaN"] * 10), Kept(40, {NOT_FINITE: 10}, ("nan_run.csv:42: NaN",))),
    "all_nan.csv": (table(*["5,nan"] * 5), Refused("5 rows dropped: the value is NaN or infinite; the first: ")),
    "infinite.csv": (with_good("5,-Infinity", "6,1e999", "7,+inf"), Kept(40, {NOT_FINITE: 3})),
    "1e300.csv": (with_good("5,1e300"), Kept(40, {Kind.OUT_OF_RANGE: 1}, ("1e300.csv:42: 1e+300",))),
    "duplicates.csv": (with_good(*GOOD.splitlines()), Kept(40, {LATE: 39, DUPLICATE: 40}, ("the last was kept",))),
    "conflict.csv": (with_good(f"{BEGIN},99"), Kept(40, {LATE: 1, DUPLICATE: 1, CONFLICT: 1}, ("conflict.csv:42",))),
    "unsorted.csv": (table(*reversed(GOOD.splitlines())), Kept(40, {LATE: 39}, ("unsorted.csv:3, stream unsorted",))),
    "year_gap.csv": (
        with_good(f"{BEGIN + 365 * 86_400_000},1"),
        Kept(41, {Kind.GAP: 1, Kind.OFF_INTERVAL: 1}, ("364.973 d after 2024-10-27T04:12:20Z",)),
    ),
    "mixed_frequencies.csv": (
        with_good(*(f"{BEGIN + 86_400_000 * i},1" for i in range(1, 41))),
        Kept(80, {Kind.GAP: 40, Kind.OFF_INTERVAL: 40}, ("(50.6 %)",)),
    ),
    "binary.csv": (bytes(range(256)) * 20, Refused("found a zero byte in the first line: binary?")),
    "noise.csv": (b"\x80" + NOISE, Refused("expected")),
    "noise.bin": (NOISE, Refused("expected")),
    "cut.csv.gz": (gzip.compress(with_good() * 50)[:-20], Refused("compressed bytes are cut off or damaged")),
    "cut_early.csv.gz": (gzip.compress(with_good())[:30], Refused("compressed bytes are cut off or damaged")),
    "wrong_sum.csv.gz": (gzip.compress(with_good())[:-8] + bytes(8), Refused("CRC check failed")),
    "cut.csv.zst": (zstandard.compress(with_good())[:-20], Refused("the end of a zstd frame is missing")),
    "damaged.csv.zst": (zstandard.compress(NOISE * 9)[:4] + NOISE, Refused("cut off or damaged")),
    "not_packed.csv.gz": (with_good(), Kept(40, streams=("not_packed",))),
    "packed.csv": (gzip.compress(with_good()), Kept(40)),
    "two_frames.csv.zst": (zstandard.compress(with_good()) + zstandard.compress(b"%d,5\n" % NEXT[0]), Kept(41)),
    "semicolons.csv": (with_good().replace(b",", b";"), Kept(40, said=("columns are separated by ';'",))),
    "decimal_commas.csv": (
        with_good().replace(b",", b";").replace(b".", b","),
        Refused("40 rows dropped: no number where one is expected, or no text as a stream id; the first: "),
    ),
    "commas.tsv": (with_good(), Refused("expected a column of times")),
    "ragged.csv": (
        with_good("1,2,3", "4", f"{NEXT[0]},7", "8"),
        Kept(41, {Kind.RAGGED_ROW: 3}, ("ragged.csv:42: 1,2,3",)),
    ),
    "all_ragged.csv": (with_good().replace(b"5\n", b"5,\n"), Refused("more or fewer columns than the header")),
    "quoted.csv": (table(*(f'"{time}","{i}"' for i, time in enumerate(TIMES)), header='"ts","value"\n'), Kept(40)),
    "open_quote.csv": (
        with_good(f'{BEGIN},"5', *GOOD.splitlines()),
        Kept(40, {WRONG_TYPE: 1}, ("open_quote.csv:42: a cell of 722 bytes; is a quote left open?",)),
    ),
    "line_breaks.csv": (
        table(*(f'{time},{i},1,"a\nb"' for i, time in enumerate(TIMES)), "x,1,1,c", header="ts,value,k,comment\n"),
        Kept(40, {BAD_TIME: 1}),
    ),
    "byte_order_mark.csv": (b"\xef\xbb\xbf" + with_good(), Kept(40)),
    "crlf.csv": (with_good().replace(b"\n", b"\r\n"), Kept(40)),
    "cr.csv": (with_good().replace(b"\n", b"\r"), Kept(40)),
    "utf16.csv": (with_good().decode().encode("utf-16"), Refused("expected UTF-8, found UTF-16")),
    "zero_bytes.csv": (with_good("\0\0\0,\0"), Kept(40, {BAD_TIME: 1}, ("zero_bytes.csv:42: \\x00\\x00\\x00",))),
    "huge_cell.csv": (with_good("1" * 3_000_000 + ",1"), Kept(40, {BAD_TIME: 1}, ("a cell of 3,000,000 bytes",))),
    "huge_row.csv": (with_good(f'5,"{"1" * 9_000_000}"'), Refused("expected rows of less than 4,194,304 bytes")),
    "huge_header.csv": (b"x" * 5_000_000, Refused("row 1: expected CSV")),
    "before_1970.csv": (table(*(f"{-1000 * i},{i}" for i in range(40, 0, -1))), Kept(40, said=("before March 1973",))),
    "far_future.csv": (
        with_good("99999999999999999,1", "9" * 99 + ",1"),
        Kept(40, {BAD_TIME: 2}, (": 99999999999999999",)),
    ),
    "seconds.csv": (table(*(f"{time // 1000},1" for time in TIMES)), Kept(40, CONSTANT, ("input.time_unit",))),
    "nanoseconds.csv": (table(*(f"{time}000000,1" for time in TIMES)), Refused("no time, or one that cannot be read")),
    "month_first.csv": (table(*(f"12/{i}/2002 1:00,1" for i in range(1, 30))), Refused("month_first.csv:2: 12/1/2002")),
    "no_offset.csv": (
        table(*(f"2024-01-{i + 1:02} 00:00,{i}" for i in range(31))),
        Kept(31, {SHORT: 1}, ("interval: 1 d", "taken for UTC")),
    ),
    "yesterday.csv": (table("yesterday,1", "today,2"), Refused("yesterday.csv:2: yesterday")),
    "one_name_twice.csv": (
        table(*(f"{time},1,2" for time in TIMES), header="ts,value,value\n"),
        Refused("one column 'value', found more"),
    ),
    "no_numbers.csv": (table(*["x,y"] * 40, header="a,b\n"), Refused("expected a column of times (ts, ")),
    "no_times.csv": (table(*["1"] * 40, header="value\n"), Refused("expected a column of times")),
    "no_values.csv": (table(*(f"{time},x" for time in TIMES), header="ts,b\n"), Refused("no other column of numbers")),
    "which_values.csv": (
        table(*(f"a,{time},1,2" for time in TIMES), header="id,ts,p,q\n"),
        Refused("several columns of numbers"),
    ),
    "odd_names.csv": (
        table(*(f"2024-01-01 00:{i:02},s{i % 2},{i}" for i in range(40)), header="when,what,how\n"),
        Kept(40, {SHORT: 2}, ("column what was taken for the stream",), ("s0", "s1")),
    ),
    "wide.csv": (
        table(*(f"2024-01-01T00:{i:02}:00Z,{i},{'' if i % 4 else i}" for i in range(60)), header="date,load,temp\n"),
        Kept(75, {SHORT: 1}, ("each of 2 columns of numbers was taken for a stream",), ("load", "temp")),
    ),
    "no_header.csv": (GOOD.encode(), Kept(40, said=("the first row is no header", "column 1 was taken for the time"))),
    "thousands.csv": (table(*(f'{time},"1,000.5"' for time in TIMES)), Refused("thousands.csv:2: 1,000.5")),
    "latin1.csv": (
        table(*(f"ö,{time},1" for time in TIMES), header="stream,ts,value\n").decode().encode("latin-1"),
        Refused("expected UTF-8, found byte 0xf6 at 16"),
    ),
    "late_latin1.csv": (
        table(*(f"o,{BEGIN + i},1" for i in range(40_000)), "ö,5,1", header="stream,ts,value\n")
        .decode()
        .encode("latin-1"),
        Refused("row 40002: expected UTF-8"),
    ),
    "empty_cells.csv": (
        with_good(f"{BEGIN},", ",5", ",", "", f"{BEGIN},NA", f"{BEGIN},null"),
        Kept(40, {NULL: 3, BAD_TIME: 1}, ("empty_cells.csv:42", "empty_cells.csv:43")),
    ),
    "long_stream.csv": (
        table(f"{'k' * 65},1,1", *(f"a,{time},{i}" for i, time in enumerate(TIMES)), header="stream,ts,value\n"),
        Kept(40, {Kind.KEY_TOO_LONG: 1}),
    ),
    "no_stream.csv": (
        table(*(f",{time},1" for time in TIMES), header="stream,ts,value\n"),
        Refused("40 rows dropped: no stream id"),
    ),
    "web_page.csv": (b"<!DOCTYPE html>\n<html><body>Not found</body></html>\n", Refused("found <!DOCTYPE html>")),
    "python_numbers.csv": (with_good("5,1_000", "5,0x10", "5,\u0661", "5,1.5.5"), Kept(40, {WRONG_TYPE: 4})),
    "other_numbers.csv": (
        with_good(*(f"{time},{cell}" for time, cell in zip(NEXT, ("+1.5", ".5", "007", "8.", " 6 "), strict=False))),
        Kept(45),
    ),
}

JSON: dict[str, tuple[bytes, Fate]] = {
    "empty.jsonl": (b"", Refused("found an empty file")),
    "array.json": (json.dumps(EVENTS).encode(), Refused("expected one JSON object per line, found an array")),
    "pretty.json": (json.dumps(EVENTS[0], indent=2).encode(), Refused("5 rows dropped: not JSON")),
    "noise.jsonl": (NOISE, Refused("dropped: not JSON")),
    "cut.jsonl.gz": (gzip.compress(lines(*EVENTS * 20))[:-10], Refused("cut off or damaged")),
    "cut_line.jsonl": (lines(*EVENTS)[:-5], Kept(39, {Kind.NOT_JSON: 1})),
    "mixed_types.jsonl": (
        lines(
            *EVENTS, {"stream": "a", "ts": 1, "value": "3"}, {"stream": "a", "ts": 1, "value": None},
            {"stream": "a", "ts": 1, "value": True}, "[1]", "5", "null", '"x"', {"stream": "a", "ts": 1},
            {"stream": "a", "ts": "x", "value": 1}, {"stream": "a", "value": 1}, {"stream": [], "ts": 1, "value": 1},
            {"stream": "", "ts": 1, "value": 1}, '{"ts": 1, "value": NaN}', '{"ts": 1, "value": 1e999}', "{broken", "",
            {"stream": "a", "ts": 1, "value": {"x": 1}},
        ),
        Kept(
            40,
            {
                Kind.NOT_JSON: 1, Kind.NOT_OBJECT: 4, Kind.MISSING_FIELD: 1, WRONG_TYPE: 4, NULL: 1, NOT_FINITE: 2,
                BAD_TIME: 2, Kind.NO_KEY: 1,
            },
            ('mixed_types.jsonl:41: {"stream": "a", "ts": 1, "value": "3"}', "mixed_types.jsonl:55: {broken"),
        ),
    ),
    "deep.jsonl": (lines('{"ts":1,"value":' + "[" * 100_000 + "]" * 100_000 + "}"), Refused("dropped: not JSON")),
    "no_stream.jsonl": (
        lines(*({"ts": time, "value": i} for i, time in enumerate(TIMES))),
        Kept(40, said=("40 rows name no stream; they were taken for stream no_stream",), streams=("no_stream",)),
    ),
    "surrogate.jsonl": (lines('{"stream":"\\ud800","ts":1,"value":1}') * 2, Refused("dropped: not JSON")),
    "latin1.jsonl": (
        lines(*EVENTS) + '{"stream":"ö","ts":1,"value":1}\n'.encode("latin-1"), Kept(40, {Kind.NOT_JSON: 1})
    ),
    "byte_order_mark.jsonl": (b"\xef\xbb\xbf" + lines(*EVENTS), Kept(40)),
    "crlf.jsonl": (lines(*EVENTS).replace(b"\n", b"\r\n"), Kept(40)),
    "two_inputs.jsonl": (
        lines(*({"ts": time, "values": [1, 2]} for time in TIMES)), Refused("another number of inputs than expected")
    ),
    "1e300.jsonl": (lines(*EVENTS, {"stream": "b", "ts": 1, "value": -1e300}), Kept(40, {Kind.OUT_OF_RANGE: 1})),
}  # fmt: skip

PARQUET: dict[str, tuple[bytes, Fate]] = {
    "good.parquet": (parquet(ts=TIMES, value=NUMBERS), Kept(40)),
    "noise.parquet": (NOISE, Refused("expected Parquet")),
    "empty.parquet": (b"", Refused("expected Parquet")),
    "cut.parquet": (parquet(ts=TIMES, value=NUMBERS)[:-30], Refused("expected Parquet")),
    "named.csv": (parquet(ts=TIMES, value=NUMBERS), Kept(40)),
    "no_rows.parquet": (parquet(ts=pa.array([], pa.int64()), value=pa.array([], pa.float64())), Refused("found none")),
    "no_columns.parquet": (parquet(a=["x"] * 3), Refused("expected a column of times")),
    "text.parquet": (parquet(ts=[str(time) for time in TIMES], value=[f"{i}.5" for i in range(40)]), Kept(40)),
    "thousands.parquet": (parquet(ts=TIMES, value=[f"1,{i:03}" for i in range(40)]), Refused("parquet:1: 1,000")),
    "bool.parquet": (parquet(ts=TIMES, value=[True] * 40), Refused("'value': expected numbers; found bool")),
    "nested.parquet": (parquet(ts=TIMES, value=[{"a": 1}] * 40), Refused("found struct")),
    "list.parquet": (parquet(ts=TIMES, value=[[1.0]] * 40), Refused("found list")),
    "binary.parquet": (parquet(ts=TIMES, value=[b"\xff"] * 40), Refused("found binary")),
    "duration.parquet": (parquet(ts=TIMES, value=pa.array([1] * 40, pa.duration("s"))), Refused("found duration")),
    "nulls.parquet": (
        parquet(ts=[*TIMES[:39], None], value=[None, float("nan"), float("inf"), *NUMBERS[3:]]),
        Kept(36, {NULL: 1, NOT_FINITE: 2, BAD_TIME: 1}, ("nulls.parquet:2", "nulls.parquet:40")),
    ),
    "all_null.parquet": (parquet(ts=TIMES, value=pa.nulls(40, pa.float64())), Refused("dropped: no value")),
    "null_type.parquet": (parquet(ts=TIMES, value=pa.nulls(40)), Refused("dropped: no value")),
    "decimals.parquet": (parquet(ts=TIMES, value=[decimal.Decimal(i) / 4 for i in range(40)]), Kept(40)),
    "dictionary.parquet": (
        parquet(stream=pa.array(["a", "b"] * 20).dictionary_encode(), ts=TIMES, value=NUMBERS),
        Kept(40, {SHORT: 2}, streams=("a", "b")),
    ),
    "null_stream.parquet": (
        parquet(stream=["a", None] * 20, ts=TIMES, value=NUMBERS), Kept(20, {Kind.NO_KEY: 20, SHORT: 1})
    ),
    "whole_streams.parquet": (
        parquet(stream=[1, 2] * 20, ts=TIMES, value=NUMBERS), Kept(40, {SHORT: 2}, streams=("1", "2"))
    ),
    "real_streams.parquet": (parquet(stream=[1.5] * 40, ts=TIMES, value=NUMBERS), Refused("found double")),
    "zoned.parquet": (
        parquet(ts=pa.array([1000 * t for t in TIMES], pa.timestamp("us", "Europe/Berlin")), value=NUMBERS),
        Kept(40, said=("2024-10-27T03:33:20Z",)),
    ),
    "unzoned.parquet": (
        parquet(ts=pa.array(TIMES, pa.timestamp("ms")), value=NUMBERS), Kept(40, said=("taken for UTC",))
    ),
    "dates.parquet": (
        parquet(date=[datetime.date(2024, 1, 1) + datetime.timedelta(i) for i in range(40)], value=NUMBERS),
        Kept(40, said=("interval: 1 d in",)),
    ),
    "time_of_day.parquet": (
        parquet(ts=pa.array([1] * 40, pa.time32("s")), value=NUMBERS), Refused("'ts': expected times")
    ),
    "real_times.parquet": (
        parquet(ts=[*map(float, TIMES[:38]), float("nan"), 1e300], value=NUMBERS), Kept(38, {BAD_TIME: 2})
    ),
    "largest_times.parquet": (
        parquet(ts=pa.array([2**64 - 1, 2**63, *TIMES[2:]], pa.uint64()), value=NUMBERS), Kept(38, {BAD_TIME: 2})
    ),
    "least_times.parquet": (parquet(ts=[-(2**63), *TIMES[1:]], value=NUMBERS), Kept(39, {BAD_TIME: 1})),
    "halves.parquet": (
        parquet(ts=TIMES, value=pa.array(NUMBERS, pa.float32()).cast(pa.float16())), Kept(40)
    ),
    "wide.parquet": (
        parquet(ts=TIMES, load=NUMBERS, temp=[None] * 20 + NUMBERS[20:]),
        Kept(60, {SHORT: 1}, ("each of 2 columns",), ("load", "temp")),
    ),
    "largest.parquet": (parquet(ts=TIMES, value=[2**63 - 1] * 40), Kept(40, CONSTANT)),
}  # fmt: skip

CORPUS = CSV | JSON | PARQUET
