"""The daemon's path without a broker, from a partition's log to forecasts and dead letters, and the account of it.

    stored batches -> PartitionBytes -> append_batch -> decoder -> forecaster -> encoders -> the tests' own reader

A log is read as the daemon reads it: fetch at the position, take apart, answer, go on at the new position.
"""

import ctypes
import mmap
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamlstm.config.sources import load
from streamlstm.engine.forecaster import Forecaster
from streamlstm.events.batch import PADDING, Reason
from streamlstm.events.dead_letter import STAGES
from streamlstm.model.golden import make_golden
from streamlstm.model.model_file import Model, default_inputs, no_scaling
from streamlstm.service.counters import Counters
from streamlstm.service.pending import Pending
from streamlstm.service.pipeline import Pipeline
from streamlstm.service.wiring import field_paths, forecaster_settings
from streamlstm.transport.fetched import AbortedTransaction, FetchedBatch, FetchedRun, PartitionBytes, PoisonBatch
from streamlstm.transport.source import Fetched
from tests.daemon_process import random_parameters
from tests.events.json_model import expected_event
from tests.events.record_encoding import MalformedError, Record, read_section
from tests.fuzz.batch_parts import HEADER, Written, batch, event, placed, section
from tests.fuzz.cases import LIMIT, Case

SOURCE = ("events", 3)
PREFIX = b"__streamlstm.errors."
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class WrongError(AssertionError):
    """The account doesn't balance; the message says where."""


def hold(true: object, what: str) -> None:
    if not true:
        raise WrongError(what)


@dataclass(frozen=True)
class Stored:
    """A batch of a partition's log, which takes up the offsets `base` to `last`."""

    base: int
    last: int
    data: bytes
    lying: bool = False


@dataclass(frozen=True)
class Answer:
    """What a reader of the output topics sees: the answer to the offsets `first` to `last`. No reason: a forecast."""

    first: int
    last: int
    reason: str
    record: Record


@dataclass
class Account:
    """`items`: what the log was taken apart into, in order; answers per topic, in order."""

    items: list[FetchedBatch | PoisonBatch] = field(default_factory=list)
    forecasts: list[Answer] = field(default_factory=list)
    letters: list[Answer] = field(default_factory=list)


def log_of(cases: Sequence[Case], start: int = 0) -> list[Stored]:
    """Every case between two sound batches, which have streams of their own."""
    log, base = [_neighbour(0, start)], start + 2
    for i, case in enumerate(cases, 1):
        log.append(Stored(base, base + case.count - 1, placed(case.data, base), case.lying))
        log.append(_neighbour(i, base + case.count))
        base += case.count + 2
    return log


def _neighbour(i: int, base: int) -> Stored:
    records = [Written(k, b"neighbour-%d" % (i % 3), event(i + k / 4, i)) for k in range(2)]
    return Stored(base, base + 1, placed(batch(section(records), 2), base))


def neighbours(log: Sequence[Stored]) -> list[Stored]:
    return list(log[::2])


class FuzzPath:
    """Made once, used for many logs. Payloads end before a page that may not be read, where their size is known."""

    def __init__(self) -> None:
        parameters = random_parameters(hidden=8)
        model = Model(
            parameters=parameters, window=0, inputs=default_inputs(1), target=0, predicts="value", horizons=(1,),
            scaling=no_scaling(1), interval_ms=None, origin={}, golden=make_golden(parameters),
        )  # fmt: skip
        config = load(None, {}, [f"input.topic={SOURCE[0]}", "output.topic=out", "dead_letter.topic=dead"])
        forecaster = Forecaster(model, forecaster_settings(config, 1), ThreadPoolExecutor(1))
        self.fields = field_paths(config, model.inputs)
        self.pipeline = Pipeline(config, forecaster, None, Counters())

    def read(self, log: Sequence[Stored], aborted: Sequence[AbortedTransaction] = ()) -> Account:
        """Answer the whole log. Raises WrongError when it does not go on."""
        account = Account()
        position, end = log[0].base, log[-1].last + 1
        while position < end:
            rest = b"".join(stored.data for stored in log if stored.last >= position)
            parts = PartitionBytes(*SOURCE, position, rest, aborted, LIMIT)
            items = list(parts.runs())
            hold(parts.position > position, f"hangs at offset {position}")
            position = parts.position
            self._answer(items, position, account)
        self.pipeline.forecaster.release(*SOURCE)
        return account

    def _answer(self, items: list[FetchedRun | FetchedBatch | PoisonBatch], position: int, account: Account) -> None:
        sizes = [len(item.records) for item in items if not isinstance(item, PoisonBatch)]
        self.pipeline.batch.payload = guarded(sum(sizes) + PADDING)
        pending = Pending()
        self.pipeline.add(Fetched(list(items), {SOURCE: position}), pending, 0.0)
        self.pipeline.encode(pending)
        hold(pending.offsets == {SOURCE: position}, f"commits {pending.offsets} at position {position}")
        for item in items:
            account.items += item.batches() if isinstance(item, FetchedRun) else [item]
        for produce in pending.produce:
            hold(produce.partition == SOURCE[1], f"writes to partition {produce.partition}")
            into = account.forecasts if produce.topic == "out" else account.letters
            into += map(_answer, _records(bytes(produce.buffer), produce.count))


def _records(written: bytes, count: int) -> list[Record]:
    """The records of a batch that is ready to be sent, its header held against them."""
    _, length, _, magic, _, attributes, last, _, _, producer, _, _, found = HEADER.unpack_from(written)
    header = (length + 12, magic, attributes, last + 1, producer, found)
    hold(header == (len(written), 2, 0, count, -1, count), f"header of a written batch: {header}")
    try:
        return [record for record, _ in read_section(written[HEADER.size :], count)]
    except MalformedError:
        raise WrongError("a written batch is malformed") from None


def _answer(record: Record) -> Answer:
    headers = dict(record.headers)
    if PREFIX + b"offset" not in headers:
        assert record.value is not None
        offset = int(record.value[record.value.rindex(b'"offset":') + 9 :].rstrip(b"}"))
        return Answer(offset, offset, "", record)
    first = int(headers[PREFIX + b"offset"] or b"")
    last = int(headers.get(PREFIX + b"last_offset") or first)
    return Answer(first, last, (headers[PREFIX + b"reason"] or b"").decode(), record)


def guarded(size: int) -> NDArray[np.uint8]:
    """`size` bytes, behind which nothing may be read."""
    pages = -(-size // mmap.PAGESIZE)
    whole = np.frombuffer(mmap.mmap(-1, (pages + 1) * mmap.PAGESIZE), np.uint8)
    end = pages * mmap.PAGESIZE
    assert _libc.mprotect(whole.ctypes.data + end, mmap.PAGESIZE, 0) == 0, ctypes.get_errno()
    return whole[end - size : end]


def check(path: FuzzPath, log: Sequence[Stored]) -> Account:
    """Read the log and hold every account. Raises WrongError."""
    account = path.read(log)
    wanted = [one for item in account.items for one in _wanted(item, path)]
    _hold_answers(account, wanted)
    _hold_offsets(account, log)
    clean = path.read(neighbours(log)) if not any(stored.lying for stored in log) else None
    if clean is not None:
        ours = [answer for answer in account.forecasts if (answer.record.key or b"").startswith(b"neighbour-")]
        hold([a.record.value for a in ours] == [a.record.value for a in clean.forecasts], "a neighbour is harmed")
    return account


@dataclass(frozen=True)
class _Wanted:
    """The answer that is due: `reason` of a dead letter, "" for a forecast or a refusal by the engine."""

    first: int
    last: int
    reason: str
    key: bytes | None = None
    value: bytes | None = None


def _wanted(item: FetchedBatch | PoisonBatch, path: FuzzPath) -> list[_Wanted]:
    """What is owed for an item, by the slow models of the tests."""
    if isinstance(item, PoisonBatch):
        return [_Wanted(item.base_offset, item.last_offset, item.reason)]
    try:
        records = read_section(bytes(item.records), item.count)
    except MalformedError:
        records = [(Record(2**31, 0, None, None), b"")]
    if records and item.base_offset + records[-1][0].offset_delta > item.last_offset:
        return [_Wanted(max(item.base_offset, item.min_offset), item.last_offset, "corrupt_batch")]
    due = []
    for record, _ in records:
        offset = item.base_offset + record.offset_delta
        if offset < item.min_offset:
            continue
        time = item.append_time if item.append_time >= 0 else _wrapped(item.base_timestamp + record.timestamp_delta)
        reason = expected_event(record.value, record.key, time, path.fields).reason
        due.append(_Wanted(offset, offset, "" if reason is Reason.OK else reason.label, record.key, record.value))
    return due


def _wrapped(number: int) -> int:
    """As 64 bits hold it."""
    return (number + 2**63) % 2**64 - 2**63


def _hold_answers(account: Account, wanted: list[_Wanted]) -> None:
    """Each answer that is due is there once, and nothing else; forecasts and dead letters of records are in order."""
    found = {(answer.first, answer.last): answer for answer in (*account.forecasts, *account.letters)}
    hold(len(found) == len(account.forecasts) + len(account.letters), "an offset is answered twice")
    due = {(one.first, one.last): one for one in wanted}
    hold(len(due) == len(wanted), "offsets stand twice in what was read")
    hold(not due.keys() - found.keys(), f"no answer to {sorted(due.keys() - found.keys())[:5]}")
    hold(not found.keys() - due.keys(), f"answers to nothing: {sorted(found.keys() - due.keys())[:5]}")
    for place, answer in found.items():
        _hold_one(due[place], answer)
    for answers in (account.forecasts, [letter for letter in account.letters if _of_a_record(letter)]):
        firsts = [answer.first for answer in answers]
        hold(firsts == sorted(firsts), "answers out of order")


def _of_a_record(letter: Answer) -> bool:
    return PREFIX + b"last_offset" not in dict(letter.record.headers)


def _hold_one(due: _Wanted, answer: Answer) -> None:
    if due.reason:
        hold(answer.reason == due.reason, f"offset {due.first}: {answer.reason or 'forecast'}, expected {due.reason}")
    elif answer.reason:
        stage = STAGES.get(Reason[answer.reason.upper()], "decode")
        hold(stage in ("step", "encode"), f"offset {due.first}: {answer.reason}, expected a forecast")
    headers = dict(answer.record.headers)
    if PREFIX + b"original_size" not in headers:
        hold(answer.record.key == due.key, f"offset {due.first}: another key")
        hold(not answer.reason or answer.record.value == due.value, f"offset {due.first}: another value")


def _hold_offsets(account: Account, log: Sequence[Stored]) -> None:
    """Every offset of the log belongs to one item. Holes are what a lying header leaves, and there only."""
    covered: list[tuple[int, int]] = []
    for item in account.items:
        first = max(item.base_offset, item.min_offset) if isinstance(item, FetchedBatch) else item.base_offset
        hold(first <= item.last_offset, f"an item from {first} to {item.last_offset}")
        hold(not covered or first > covered[-1][1], f"offset {first} is read again behind {covered[-1:]}")
        covered.append((first, item.last_offset))
    if any(stored.lying for stored in log):
        return
    expected = log[0].base
    for first, last in covered:
        hold(first == expected, f"a hole from {expected} to {first - 1}")
        expected = last + 1
    hold(expected == log[-1].last + 1, f"read to {expected}, the log ends at {log[-1].last + 1}")


def write_found(folder: Path, name: str, cases: Sequence[Case]) -> Path:
    """Keep a failing input: one line per case, to be read back with `read_found`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.txt"
    path.write_text("".join(f"{case.count} {int(case.lying)} {case.data.hex()} {case.name}\n" for case in cases))
    return path


def read_found(path: Path) -> list[Case]:
    lines = (line.split(" ", 3) for line in path.read_text().splitlines())
    return [Case(name, bytes.fromhex(data), int(count), lying == "1") for count, lying, data, name in lines]
