"""`streamlstm backtest`: what the daemon would have forecast of a history, and how good that would have been."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamlstm.config import Config
from streamlstm.errors import BadDataError, UsageError
from streamlstm.evaluation.pairs import Evidence
from streamlstm.evaluation.panel import Panel, compare
from streamlstm.evaluation.summary import Summary, summarise
from streamlstm.events.fields import FieldPaths
from streamlstm.events.times import parse_usual_time
from streamlstm.history.history import History
from streamlstm.model.model_file import Model
from streamlstm.service.replay import Replay, Replayed
from streamlstm.service.whole_file import open_whole
from streamlstm.service.wiring import field_paths, forecaster_settings, thread_count

Told = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Since:
    """What is scored: the events behind the first `share` of each stream, or those from `time_ms` on."""

    share: float = 0.8
    time_ms: int | None = None

    def __str__(self) -> str:
        return (
            f"the last {100 * (1 - self.share):.6g} % of each stream" if self.time_ms is None else "from that time on"
        )


@dataclass(frozen=True, slots=True)
class BacktestOptions:
    """`period` None: the model's, or none. `output`: a file for the JSON lines of all forecasts; None: not written.
    `batch_size` and `threads` change no byte.
    """

    since: Since = Since()
    period: int | None = None
    output: Path | None = None
    batch_size: int = 20_000
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Backtest:
    """A model and what came of it. `path` names its file for people."""

    path: str
    model: Model
    replayed: Replayed
    summary: Summary

    @property
    def evidence(self) -> Evidence:
        return self.replayed.evidence


def read_since(text: str) -> Since:
    """A share as 0.8 or 80%, or a time: RFC 3339 or epoch milliseconds. Raises UsageError."""
    number = text.strip().removesuffix("%").strip()
    try:
        share = float(number) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        share = np.nan
    if 0 <= share < 1:
        return Since(share=share)
    time = parse_usual_time(text.strip())
    if time is None:
        raise UsageError(
            f"--from {text}: expected a share of each stream below 1 (0.2 or 20%), or a time "
            "(2026-01-31T12:00:00Z or 1769860800000, milliseconds)"
        )
    return Since(time_ms=time)


def fields_of(model: Model, config: Config) -> FieldPaths:
    """Where the model's inputs stand in the events of a history."""
    return field_paths(config, model.inputs)


def backtest(
    path: str, model: Model, history: History, config: Config, options: BacktestOptions, tell: Told
) -> Backtest:
    """Forecast every event of `history`, which keeps the order of arrival; score those that `options.since` says.

    `tell` hears of the events done since the last time. Raises BadDataError when no event can be scored,
    InputMissingError when the output can't be written.
    """
    if history.inputs != model.inputs:
        raise UsageError(f"{path}: expected a model of {', '.join(history.inputs)}; found {', '.join(model.inputs)}")
    tail = tail_of(history, options.since)
    _require_pairs(history, tail, model, options.since)
    threads = thread_count(options.threads)
    with ExitStack() as stack:
        executor = stack.enter_context(ThreadPoolExecutor(threads, "step"))
        output = None if options.output is None else stack.enter_context(open_whole(str(options.output)))
        replay = Replay(
            history, model, forecaster_settings(config, threads), executor,
            tail=tail, topic=config.input.topic, batch_size=options.batch_size,
        )  # fmt: skip
        replayed = replay.run(output, tell)
    summary = summarise(replayed.evidence, period_of(model, options))
    if not summary.overall.pairs:
        refused = ", ".join(f"{reason} {count:,}" for reason, count in sorted(replayed.refused.items()))
        raise BadDataError(
            "history: expected a forecast with its actual value; found none: "
            + (f"the engine refused events ({refused})" if refused else "the values are missing")
        )
    return Backtest(path, model, replayed, summary)


def compare_two(first: Backtest, second: Backtest, tell: Told) -> list[Panel]:
    """One comparison for each horizon that both models have, the smallest first.

    `tell` hears of each stream that is done. Raises UsageError, BadDataError where there is nothing to compare.
    """
    try:
        import scipy.special  # noqa: F401, PLC0415
    except ImportError as error:
        raise UsageError(
            f"--compare: expected scipy, which has Student's t: pip install 'streamlstm[train]'; found {error}"
        ) from error
    require_comparable(first.model, second.model)
    if first.replayed.events != second.replayed.events or not (
        np.array_equal(first.evidence.start, second.evidence.start)
        and np.array_equal(first.evidence.time, second.evidence.time)
    ):
        raise BadDataError("--compare: expected the same events, found some that one model alone takes: out of range?")
    both = sorted(set(first.model.horizons) & set(second.model.horizons))
    return [compare(first.evidence, second.evidence, horizon, first.summary.scales, tell) for horizon in both]


def require_comparable(first: Model, second: Model) -> None:
    """Before anything is forecast. Raises UsageError."""
    for what, one, other in (
        ("inputs", first.inputs, second.inputs),
        ("target", first.inputs[first.target], second.inputs[second.target]),
    ):
        if one != other:
            raise UsageError(f"--compare: expected models of the same {what}; found {one} and {other}")
    if not set(first.horizons) & set(second.horizons):
        raise UsageError(
            f"--compare: expected a horizon that both models have; found {first.horizons} and {second.horizons}"
        )


def period_of(model: Model, options: BacktestOptions) -> int:
    """Events of a season; 1: none is known."""
    return options.period or (model.features.period if model.features is not None else 0) or 1


def tail_of(history: History, since: Since) -> NDArray[np.int64]:
    """The row of each stream from which on its events are scored, int64 [S]."""
    if since.time_ms is None:
        return history.tail_after(since.share)
    behind = np.flatnonzero(history.time >= since.time_ms)
    stream, place = np.unique(np.searchsorted(history.start, behind, side="right") - 1, return_index=True)
    tail = history.start[1:].copy()
    tail[stream] = behind[place]
    return tail


def _require_pairs(history: History, tail: NDArray[np.int64], model: Model, since: Since) -> None:
    lengths, horizon = np.diff(history.start), model.horizons[0]
    if (lengths[history.start[1:] > tail] > horizon).any():
        return
    behind = int((history.start[1:] > tail).sum())
    raise BadDataError(
        f"history: expected a stream of more than {horizon} events, some of them {since}, for a forecast and its "
        f"actual value; the longest of {len(lengths):,} streams has {int(lengths.max())}, and {behind:,} have some"
    )
