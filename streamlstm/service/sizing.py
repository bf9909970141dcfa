"""How much memory the daemon takes, known before it starts: what `streamlstm size` prints.

The state is reserved whole at the start and becomes resident as streams come; the figures are those of a full house.
"""

from dataclasses import dataclass

from streamlstm.config import Config
from streamlstm.engine.backend import memory_of
from streamlstm.engine.prediction import row_layout
from streamlstm.kernels.layout import Layout
from streamlstm.model.model_file import Model
from streamlstm.service.wiring import thread_count
from streamlstm.state.leaves import AT_ONCE
from streamlstm.state.slots import SlotTable

# An idle daemon with its kernels loaded from the cache, less all that is listed below (tests/service/test_sizing.py
# measures it anew): the interpreter, NumPy, Numba with LLVM, and the clients of Kafka and Prometheus.
PROCESS_BYTES = 217_000_000

# Partitions that write chunks in the same transaction: each has its turns at other times. Where streams come in numbers
# all do, but then the chunks are part of what `commit.max_bytes` bounds.
WRITING_PARTITIONS = 2

# A record of about 60 bytes of JSON with its key, as it is fetched, and what its forecast takes as a record.
RECORD_BYTES = 80
FORECAST_BYTES = 240

# Of what is fetched: the answer in pieces and joined, the next one likewise, a partition's part.
FETCH_COPIES = 5

# Of records that one round of the daemon takes: half as much costs 5 % more CPU per event, in turns of the loop; the
# columns of more, some 300 bytes an event, leave the caches.
_ROUND_BYTES = 2 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """One use of memory; `per_stream` is 0 for what doesn't grow with the streams."""

    name: str
    per_stream: float
    total: int


@dataclass(frozen=True, slots=True)
class Sizing:
    """The parts, in bytes, for `streams` streams; `device` those in the memory of the GPU."""

    streams: int
    parts: tuple[Part, ...]
    device: tuple[Part, ...] = ()

    @property
    def bytes_per_stream(self) -> float:
        return sum(part.per_stream for part in self.parts)

    @property
    def resident_bytes(self) -> int:
        return sum(part.total for part in self.parts)

    def __str__(self) -> str:
        rows = [f"{'':<34}{'bytes per stream':>18}{'MB in all':>12}"]
        for part in self.parts:
            rows.append(f"{part.name:<34}{_amount(part.per_stream):>18}{part.total / 1e6:>12,.1f}")
        total = f"resident with {self.streams:,} streams"
        rows.append(f"{total:<34}{_amount(self.bytes_per_stream):>18}{self.resident_bytes / 1e6:>12,.1f}")
        for part in self.device:
            rows.append(f"{part.name:<34}{_amount(part.per_stream):>18}{part.total / 1e6:>12,.1f}")
        return "\n".join(rows)


def _amount(per_stream: float) -> str:
    return f"{per_stream:,.0f}" if per_stream else "-"


def predict(config: Config, model: Model) -> Sizing:
    """Resident memory of `streamlstm run` with `config.state.max_streams` streams, by part."""
    streams, key_bytes = config.state.max_streams, config.state.max_key_bytes
    layout = row_layout(model, config.engine.state_dtype)
    keys = SlotTable.memory_bytes(streams, key_bytes)
    threads = thread_count(config.engine.threads)
    engine = memory_of(config.engine.backend, layout, streams, threads, max_events=0)
    state = "state (h, c, header) or window"
    device = (
        Part("on the GPU: state (h, c) or window", engine.device_row, streams * engine.device_row),
        Part("on the GPU: weights and buffers", 0, engine.device_other),
    )
    return Sizing(
        streams,
        (
            Part("header, history" if engine.device_row else state, engine.row, streams * engine.row),
            Part(f"keys of up to {key_bytes} bytes", keys / streams, keys),
            Part("order of events", engine.order, streams * engine.order),
            Part("weights and scratch", 0, engine.other),
            Part("batches in flight", 0, batch_bytes(config, model, threads)),
            Part("snapshots in flight", 0, snapshot_bytes(config, layout)),
            Part("interpreter and libraries", 0, PROCESS_BYTES),
        ),
        device if engine.device_row else (),
    )


def snapshot_bytes(config: Config, layout: Layout) -> int:
    """Chunks on their way out, as records and once more as requests; on their way back in they are fewer. A partition
    that has reached its bound writes all of its chunks in one transaction.
    """
    if not config.snapshot.enabled:
        return 0
    stored = layout.row_bytes + config.state.max_key_bytes
    chunks = min(WRITING_PARTITIONS * AT_ONCE * config.snapshot.max_chunk_bytes, config.state.max_streams * stored)
    return 2 * max(chunks, (config.state.max_streams_per_partition or 0) * stored)


def round_bytes(config: Config) -> int:
    """Decompressed records that one round of the daemon takes at most, but for a record batch that is larger alone."""
    return min(_ROUND_BYTES, config.fetch.max_bytes)


def batch_bytes(config: Config, model: Model, threads: int) -> int:
    """Buffers under full load, when every fetch, round and commit is as large as it may be.

    Fetched bytes: the client holds an answer in pieces, joined, and cut up by partition while the next one comes in;
    then come a round's records in the payload. Columns: those of EventBatch and of the forecaster, and the scratch of
    the step, one entry an event. Output: what is pending, what is being committed, and that once more as requests.
    """
    taken = round_bytes(config)
    events = taken // RECORD_BYTES
    inputs, outputs = model.parameters.inputs, model.parameters.outputs
    event_batch = 11 * 8 + 8 * len(model.inputs) + 1
    layout = row_layout(model, config.engine.state_dtype)
    lines, intervals = (8 * outputs if layout.received else 0), (16 * outputs if layout.judge else 0)
    forecaster = 6 * 8 + 4 * inputs + 12 * outputs + lines + intervals + 1
    few, many = (memory_of(config.engine.backend, layout, 0, threads, most).other for most in (0, events))
    output = 3 * config.commit.max_bytes + events * FORECAST_BYTES
    return FETCH_COPIES * config.fetch.max_bytes + taken + events * (event_batch + forecaster) + many - few + output
