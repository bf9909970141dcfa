"""The past of all streams as training reads it: as serving remembers it, and the unit of its changes.

Lags and targets are cut out when they are asked for (kernels.crops): memory goes by the rows, not by rows x lags.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamlstm.kernels.crops import cut_crops, cut_rows
from streamlstm.kernels.features import DEFAULT_WINDOW, survey_changes

Float32s = NDArray[np.float32]
Floats = NDArray[np.float64]
Int64s = NDArray[np.int64]
Bools = NDArray[np.bool_]

SCALE_WINDOW = DEFAULT_WINDOW
_ALL = np.inf


@dataclass(frozen=True, eq=False)
class Past:
    """N rows of S streams, [start[s], start[s + 1]) each. x float64 [N]: the target; others float32 [N, E]: the other
    inputs, standardised; held, unit float64 [N]: see kernels.crops.
    """

    x: Floats
    others: Float32s
    start: Int64s
    held: Floats
    unit: Floats

    @property
    def lengths(self) -> Int64s:
        return np.diff(self.start)


def past_of(x: Floats, others: Float32s, start: Int64s) -> Past:
    """x float64 [N], others float32 [N, E], start int64 [S + 1]."""
    x, others = np.ascontiguousarray(x), np.ascontiguousarray(others)
    held, unit = np.empty(len(x)), np.empty(len(x))
    survey_changes(x, start, SCALE_WINDOW, held, unit)
    return Past(x, others, start, held, unit)


@dataclass(frozen=True)
class Lags:
    """A set of lags, in events, increasing; the indices of those that the network sees; and the number of each lag's
    weight in the linear part, from 0 on: lags that share one enter it by their mean. None: each has its own.
    """

    name: str
    lags: tuple[int, ...]
    fed: tuple[int, ...]
    weight: tuple[int, ...] | None = None

    @property
    def columns(self) -> tuple[Int64s, Floats]:
        """Of a regression: that of each lag, int64 [L], and the lag's part in it, float64 [L]."""
        column = np.arange(len(self.lags)) if self.weight is None else np.array(self.weight, np.int64)
        return column, 1.0 / np.bincount(column)[column]

    @property
    def weights(self) -> int:
        return len(self.lags) if self.weight is None else max(self.weight) + 1


@dataclass(frozen=True, eq=False)
class Base:
    """What the network is trained beside: lags, the horizons (increasing), and the skip connection float64 [O, L]."""

    lags: Lags
    horizons: tuple[int, ...]
    skip: Floats


def first_rows(past: Past, stop: Int64s, lags: Lags) -> Int64s:
    """From where on the rows of each stream are learned from, int64 [S]: all lags reach into the stream, unless that
    would cost it more than a third of its rows.
    """
    known = np.maximum(stop - past.start[:-1], 0)
    first: Int64s = past.start[:-1] + np.minimum(lags.lags[-1] + 1, known // 3)
    return first


def rows_of(
    past: Past,
    stop: Int64s,
    lags: Lags,
    horizons: tuple[int, ...],
    most: int,
    limit: float,
    random: np.random.Generator,
) -> tuple[Floats, Int64s]:
    """Rows of a regression, [n, C + O]: u of every lag within `limit`, or the mean of those that share a weight; then
    the targets in units of the stream. And how many of the rows, from the first on, know the target of each horizon
    [O].

    All rows before `stop` [S] with a target that lies before it too, or `most` of them, spread evenly.
    """
    first = first_rows(past, stop, lags)
    counts = np.maximum(stop - horizons[0] - first, 0)
    ends = np.cumsum(counts)
    total = int(ends[-1])
    place = (
        np.arange(total) if total <= most else ((np.arange(most) + random.random(most)) * (total / most)).astype(int)
    )
    stream = np.searchsorted(ends, place, side="right")
    row = first[stream] + place - (ends - counts)[stream]
    # short streams would lose most of their rows if each had to reach the longest horizon
    reach = np.minimum(stop[stream] - 1 - row, horizons[-1])
    order = np.argsort(-reach, kind="stable")
    stream, row, reach = stream[order], row[order], reach[order]
    joined, known = np.empty((len(row), lags.weights + len(horizons))), np.empty(len(row), np.bool_)
    cut_rows(
        past.x, past.held, past.unit, past.start, stop, stream, row, np.array(lags.lags), *lags.columns,
        np.array(horizons), limit, joined, known,
    )  # fmt: skip
    if not known.all():
        joined, reach = joined[known], reach[known]
    return joined, np.searchsorted(-reach, -np.array(horizons), side="right")


@dataclass(frozen=True, eq=False)
class Crops:
    """inputs float32 [B, T, F + E], targets float32 [B, T, O] (what the skip connection leaves over, in units of the
    stream) and counted bool [B, T, O] of some crops.
    """

    inputs: Float32s
    targets: Float32s
    counted: Bools


def crops_of(
    past: Past, stop: Int64s, base: Base, stream: Int64s, first: Int64s, steps: int, limit: float = _ALL
) -> Crops:
    """`steps` rows of stream[b] from first[b] on, for each b; nothing is known from `stop` [S] on."""
    shape = (len(first), steps, len(base.horizons))
    inputs = np.empty((*shape[:2], len(base.lags.fed) + past.others.shape[1]), np.float32)
    targets, counted = np.empty(shape, np.float32), np.empty(shape, np.bool_)
    cut_crops(
        past.x, past.held, past.unit, past.others, past.start, stop, stream, first,
        np.array(base.lags.lags), np.array(base.lags.fed, np.int64), np.array(base.horizons),
        np.ascontiguousarray(base.skip.T), limit, inputs, targets, counted,
    )  # fmt: skip
    return Crops(inputs, targets, counted)
