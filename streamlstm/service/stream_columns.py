"""Rows of the arena taken apart: what a stream remembers, under names that mean something to people."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamlstm.engine.forecaster import is_single
from streamlstm.engine.prediction import row_layout
from streamlstm.kernels.features import ANCHOR, ANCHORED, FORMER_ANCHOR, MEAN_CHANGE
from streamlstm.kernels.half import as_float32
from streamlstm.kernels.judge_layout import ABOVE, BELOW, SCALE, TRACKED, TRACKED_AT, JudgeLayout
from streamlstm.kernels.layout import FLOAT, HISTORY_WORDS, LAST_TIME, N_SEEN, WORD, Layout, StateDtype, padded
from streamlstm.model.model_file import Model
from streamlstm.state.snapshot import Chunk

Columns = dict[str, NDArray[Any]]
"""Arrays of as many rows each; see `columns_of`."""


def columns_of(model: Model, rows: NDArray[np.uint8], state_dtype: StateDtype) -> Columns:
    """Columns of rows uint8 [n, row_bytes], laid out as kernels/layout.py says:

    n_seen, last_ts (epoch ms) int64 [n]; yhat [n, O] and x [n, I] the last forecast and input, float64, or float32 for
    the yhat of a model whose forecasts are float32; mean and variance float64 [n, I] where each stream is scaled by its
    own; h_k, c_k float32 [n, H of layer k], stored as `state_dtype`, or, for a model with a window, count int64 [n] and
    window float32 [n, T, I]: the inputs as the model takes them, the newest last, zeros for those that have not been.
    Where the model reads or judges by the stream's history, mean_change float64 [n] and history float64 [n, R], the
    target's values, the newest last, NaN for those that have not been; where forecasts are judged, for each horizon:
    their mean absolute error and, with intervals, how many of those each side is wide.
    """
    layout = row_layout(model, state_dtype)
    received = layout.received or layout.inputs
    rows = np.ascontiguousarray(rows)
    integers, reals, singles = rows.view(np.int64), rows.view(np.float64), rows.view(np.float32)
    found: Columns = {
        "n_seen": integers[:, layout.header_at + N_SEEN],
        "last_ts": integers[:, layout.header_at + LAST_TIME],
        "yhat": reals[:, layout.yhat_at : layout.yhat_at + layout.outputs],
        "x": reals[:, layout.x_at : layout.x_at + received],
    }
    if is_single(model):
        found["yhat"] = found["yhat"].astype(np.float32)
    if layout.moments:
        moments = reals[:, layout.moments_at : layout.moments_at + layout.moments]
        found["mean"], found["variance"] = moments[:, : layout.inputs], moments[:, layout.inputs :]
    if layout.history:
        found |= _history(layout, integers, reals, singles)
    if layout.judge:
        found |= _judgements(model, layout, singles)
    if layout.window:
        return found | _window(layout, integers[:, 0], singles)
    state, at = as_float32(rows[:, : layout.state_bytes], state_dtype), 0
    for k, hidden in enumerate(layout.hidden):
        for name in ("h", "c"):
            found[f"{name}_{k}"] = state[:, at : at + hidden]
            at += padded(hidden)
    return found


def _window(layout: Layout, count: NDArray[np.int64], singles: NDArray[np.float32]) -> Columns:
    """The ring in the order of time: input number n lies at n mod T."""
    steps = layout.window
    first = WORD // FLOAT
    ring = singles[:, first : first + steps * layout.inputs].reshape(len(singles), steps, layout.inputs)
    order = (np.arange(steps) + count[:, None]) % steps
    return {"count": count, "window": np.take_along_axis(ring, order[:, :, None], axis=1)}


def _history(layout: Layout, integers: NDArray[np.int64], reals: NDArray[Any], singles: NDArray[Any]) -> Columns:
    """The ring in the order of time: event number n, from 1, lies at n mod R."""
    n_seen = integers[:, layout.header_at + N_SEEN]
    length, first = layout.history, (WORD * (layout.history_at + HISTORY_WORDS)) // FLOAT
    anchor, former, mean_change = (
        reals[:, layout.history_at + place // WORD, None] for place in (ANCHOR, FORMER_ANCHOR, MEAN_CHANGE)
    )
    anchored = integers[:, layout.history_at + ANCHORED // WORD, None]
    back = np.arange(length)[::-1]  # events before the newest
    ring = np.take_along_axis(singles[:, first : first + length], (n_seen[:, None] - back) % length, axis=1)
    held_by = np.where(n_seen[:, None] - back >= anchored, anchor, former)
    values = np.where(back < n_seen[:, None], held_by + ring, np.nan)
    return {"mean_change": mean_change[:, 0], "history": np.ascontiguousarray(values)}


def _judgements(model: Model, layout: Layout, singles: NDArray[Any]) -> Columns:
    horizons = len(model.horizons)
    first = (WORD * layout.judge_at + JudgeLayout(model.horizons).pending_bytes) // FLOAT + TRACKED_AT
    tracked = singles[:, first : first + TRACKED * horizons].reshape(len(singles), horizons, TRACKED)
    found = {"mean_error": tracked[:, :, SCALE]}
    return found | ({"below": tracked[:, :, BELOW], "above": tracked[:, :, ABOVE]} if model.level else {})


def keys_of(chunk: Chunk) -> list[str]:
    """The streams' ids, row by row."""
    text, ends = chunk.keys.tobytes(), np.cumsum(chunk.key_len, dtype=np.int64).tolist()
    return [text[start:end].decode(errors="backslashreplace") for start, end in pairwise([0, *ends])]


def json_rows(columns: Columns) -> Iterator[dict[str, Any]]:
    """Row by row as orjson takes it: the layers' h and c together, and of a window what has been."""
    plain = {name: column for name, column in columns.items() if name[:2] not in ("h_", "c_") and name != "window"}
    layers = sum(name.startswith("h_") for name in columns)
    for row in range(len(columns["n_seen"])):
        found = {name: _value(column[row]) for name, column in plain.items()}
        if "window" in columns:
            steps = columns["window"].shape[1]
            found["window"] = columns["window"][row, steps - min(int(columns["count"][row]), steps) :]
        else:
            found["layers"] = [{name: columns[f"{name}_{k}"][row] for name in ("h", "c")} for k in range(layers)]
        yield found


def _value(of_row: Any) -> Any:
    """As orjson takes it."""
    return np.ascontiguousarray(of_row) if of_row.ndim else of_row.item()
