"""Stream keys to slots and forecasts to record batches: nanoseconds of one core per event, over a million streams.

    python benchmarks/keys_and_printing.py [--json FILE]

Medians of CPU time.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from figures import Figure, write

from streamlstm.events.batch import PADDING, EventBatch, Reason, Run
from streamlstm.events.dead_letter import DeadLetterEncoder
from streamlstm.events.encode import ForecastEncoder
from streamlstm.events.forecast import ForecastBatch
from streamlstm.kernels.compile import warm_up
from streamlstm.kernels.decimal import FLOAT_BYTES, print_lines
from streamlstm.state.slots import SlotTable

STREAMS, EVENTS, ROUNDS = 1_000_000, 32_768, 15
SOURCE = ("metrics", 0)


def cpu_ns(call: Callable[[], object], events: int, rounds: int = ROUNDS) -> float:
    """Median over rounds, per event, after one call that isn't counted."""
    call()
    spent = []
    for _ in range(rounds):
        before = time.process_time_ns()
        call()
        spent.append(time.process_time_ns() - before)
    return statistics.median(spent) / events


def stream_ids(streams: int) -> list[bytes]:
    kinds = (b"cpu", b"mem", b"disk", b"net", b"gpu", b"load", b"io", b"fs")
    return [b"host-%d/%s" % (k // len(kinds), kinds[k % len(kinds)]) for k in range(streams)]


def events_of(ids: list[bytes], seed: int = 1) -> EventBatch:
    """One event for each id, keyed by it, with a value of two decimals."""
    n = len(ids)
    rng = np.random.default_rng(seed)
    records = [b"%s%s\0" % (name, b'{"ts":1730000000000,"value":1.25}') for name in ids]
    batch = EventBatch(1, np.frombuffer(bytearray(b"".join(records) + bytes(PADDING)), np.uint8), n)
    ends = np.cumsum([len(record) for record in records])
    lengths = np.array([len(name) for name in ids])
    starts = ends - np.array([len(record) for record in records])
    batch.key_at[:] = batch.stream_at[:] = starts
    batch.key_len[:] = batch.stream_len[:] = lengths
    batch.value_at[:] = starts + lengths
    batch.value_len[:] = ends - 1 - batch.value_at
    batch.headers_at[:] = ends - 1
    batch.headers_len[:] = 1
    batch.offset[:] = 1_234_567 + np.arange(n)
    batch.timestamp[:] = batch.event_time[:] = 1_730_000_000_000 + 1000 * np.arange(n)
    batch.x[:, 0] = np.round(100 * rng.normal(size=n), 2)
    batch.n = n
    batch.runs = [Run(*SOURCE, 0, n)]
    return batch


def forecasts_of(batch: EventBatch, single: bool) -> ForecastBatch:
    yhat = batch.x + np.random.default_rng(2).normal(size=batch.x.shape)
    return ForecastBatch(
        yhat=yhat.astype(np.float32).astype(np.float64) if single else yhat,
        single=single,
        status=np.zeros(batch.n, np.uint8),
        n_seen=np.arange(5, batch.n + 5),
        gap_ms=np.full(batch.n, 60_000),
    )


def with_intervals(forecasts: ForecastBatch) -> ForecastBatch:
    widths = np.random.default_rng(4).random((2, *forecasts.yhat.shape), np.float32)
    return replace(
        forecasts,
        lower=forecasts.yhat - widths[0],
        upper=forecasts.yhat + widths[1],
        anomaly_score=widths.sum(axis=(0, 2), dtype=np.float64),
    )


def slots() -> Iterator[tuple[str, float]]:
    ids = stream_ids(STREAMS)
    everyone = events_of(ids)
    slot = np.zeros(STREAMS, np.int64)

    def assign(table: SlotTable, batch: EventBatch) -> int:
        return table.assign(batch.payload, 0, 0, batch.n, batch.stream_at, batch.stream_len, batch.reason, slot)

    yield "slot of a new stream", cpu_ns(lambda: assign(SlotTable(STREAMS), everyone), STREAMS, 3)
    table = SlotTable(STREAMS)
    assign(table, everyone)
    some = events_of([ids[k] for k in np.random.default_rng(0).integers(0, STREAMS, EVENTS)])
    yield "slot of a known stream, at random", cpu_ns(lambda: assign(table, some), EVENTS)


def printing() -> Iterator[tuple[str, float]]:
    batch = events_of(stream_ids(EVENTS))
    rows = np.arange(EVENTS)
    encoder = ForecastEncoder("0123456789ab", (1,))
    values = np.random.default_rng(3).normal(size=EVENTS)
    out = np.zeros(EVENTS * (FLOAT_BYTES + 1) + 16, np.uint8)
    yield "float64, all digits", cpu_ns(lambda: print_lines(values, False, out), EVENTS)
    yield "float32", cpu_ns(lambda: print_lines(values, True, out), EVENTS)
    for single in (True, False):
        forecasts = forecasts_of(batch, single)
        size = len(encoder.values(batch, forecasts, np.arange(1))[0])
        name = f"forecast of {size} bytes, framed, {'float32' if single else 'float64'}"
        yield name, cpu_ns(lambda forecasts=forecasts: encoder.encode(batch, forecasts, SOURCE, rows), EVENTS)  # type: ignore[misc]
    judged = with_intervals(forecasts_of(batch, False))
    encoder = ForecastEncoder("0123456789ab", (1,), level=0.9)
    size = len(encoder.values(batch, judged, np.arange(1))[0])
    name = f"forecast of {size} bytes with its interval and score, framed, float64"
    yield name, cpu_ns(lambda: encoder.encode(batch, judged, SOURCE, rows), EVENTS)


def dead_letters() -> Iterator[tuple[str, float]]:
    batch = events_of(stream_ids(EVENTS))
    batch.reason[:] = Reason.WRONG_TYPE
    encoder = DeadLetterEncoder("0.1.0")
    yield "dead letter", cpu_ns(lambda: encoder.encode(batch, np.arange(EVENTS), SOURCE), EVENTS, 5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    given, found = parser.parse_args(), []
    warm_up()
    print("| step | ns per event |\n|---|---|")
    for part in (slots, printing, dead_letters):
        for name, nanoseconds in part():
            print(f"| {name} | {nanoseconds:.0f} |", flush=True)
            found.append(Figure(name, nanoseconds, "ns"))
    write(given.json, found)


if __name__ == "__main__":
    main()
