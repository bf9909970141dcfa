"""The seasons of a history: where the changes of its streams repeat.

The autocorrelation of each stream's differences (in units of their median size, clipped, so that no outlier decides),
by FFT, averaged over streams. Differences have no trend; a season shows as a peak at its length and its multiples.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamlstm.training.past import Past

Floats = NDArray[np.float64]
Int64s = NDArray[np.int64]

MOST_STREAMS = 256
MOST_ROWS = 50_000  # of a stream, its newest
LONGEST = 3_000  # events: two days and two hours of minutes
WEEK = 7  # seasons of the short period
MULTIPLES = 3  # of a season, itself included, that are looked at, as far as they are known
_CYCLES = 3  # of a season that a stream must hold to be asked about it
_CLIP = 5.0
_WEAKEST = 0.2
_NEAR_BEST = 0.7
_DAY_IN_A_WEEK = 0.3
_LONG = 0.8


@dataclass(frozen=True)
class Periods:
    """In events; 0: none. `strength`: the autocorrelation of the changes there, 1 being an exact repetition."""

    short: int = 0
    strength: float = 0.0
    long: int = 0
    long_strength: float = 0.0


def find_periods(past: Past, stop: Int64s) -> Periods:
    """Of the rows before `stop` [S]. The short period is the smallest whose peaks are nearly the highest; the long one
    is seven of it (days and the week), if that is a peak as well.
    """
    correlation, count = _autocorrelation(past, stop)
    peaks = _peaks(correlation)
    if not len(peaks):
        return Periods()
    contrast = np.array([_contrast(correlation, int(peak)) for peak in peaks])
    strongest = float(contrast.max())
    # a sum of unrelated noise reaches three standard deviations at some of a thousand lags
    if strongest < max(_WEAKEST, 4.0 / np.sqrt(max(count, 1))):
        return Periods()
    smallest = int(peaks[contrast >= _NEAR_BEST * strongest][0])
    # noise makes several peaks of a broad one: the multiples tell which lag it is
    around = range(max(2, smallest - smallest // 8), min(len(correlation), smallest + smallest // 8 + 1))
    short = max(around, key=lambda lag: _contrast(correlation, lag))
    days = peaks == short // WEEK
    if short % WEEK == 0 and days.any() and float(contrast[days][0]) >= _DAY_IN_A_WEEK * strongest:
        short //= WEEK
    strength, long = float(correlation[short]), WEEK * short
    if long < len(correlation) - 1 and correlation[long] >= _LONG * strength:
        return Periods(short, strength, long, float(correlation[long]))
    return Periods(short, strength)


def _contrast(correlation: Floats, period: int) -> float:
    """How far the correlation at the period and its multiples stands out from all lags on the way there: noise on top
    of a slow wave, and chance, make peaks that don't.
    """
    whole = correlation[: MULTIPLES * period + 1]
    return float(whole[period::period].mean() - whole[1 : len(whole) // period * period + 1].mean())


def _autocorrelation(past: Past, stop: Int64s) -> tuple[Floats, int]:
    """(mean over the streams at each lag from 0 on, number of differences that it comes from)."""
    lengths = np.minimum(stop - past.start[:-1], MOST_ROWS)
    usable = np.flatnonzero(lengths >= 2 * _CYCLES + 2)
    chosen = usable[np.linspace(0, len(usable) - 1, min(len(usable), MOST_STREAMS)).astype(int)] if len(usable) else []
    longest = int(min(LONGEST, lengths.max(initial=0) // _CYCLES))
    total, streams, count = np.zeros(longest + 1), np.zeros(longest + 1), 0
    for s in chosen:
        own = _own_autocorrelation(past.x[stop[s] - lengths[s] : stop[s]], longest)
        if own is not None:
            total[: len(own)] += own
            streams[: len(own)] += 1.0
            count += int(lengths[s])
    # lags that only a few of the streams are long enough for say nothing about the rest; where some are too short they
    # count as streams that don't repeat, or a lag would gain by losing those
    most = streams.max(initial=1.0)
    return np.where(streams >= 0.5 * most, total / most, 0.0), count


def _own_autocorrelation(x: Floats, longest: int) -> Floats | None:
    """Of the differences of one stream, up to a `_CYCLES`-th of its length; None where it doesn't move."""
    d = np.diff(x)
    moves = np.abs(d[d != 0.0])
    if not len(moves):
        return None
    size = np.median(moves)
    d = np.clip(d / size, -_CLIP, _CLIP)
    d -= d.mean()
    n, lags = len(d), min(longest, len(x) // _CYCLES)
    spectrum = np.fft.rfft(d, 1 << (n + lags).bit_length())
    products = np.fft.irfft(spectrum * np.conj(spectrum))[: lags + 1]
    if not products[0] > 0.0:
        return None
    return np.asarray(products / products[0] * (n / (n - np.arange(lags + 1))))


def _peaks(correlation: Floats) -> Int64s:
    """Local maxima behind the first dip: the changes of a smooth stream resemble their neighbours."""
    if len(correlation) < 4:
        return np.empty(0, np.int64)
    rising = np.flatnonzero(np.diff(correlation) > 0)
    first = int(rising[0]) if len(rising) else len(correlation)
    inner = correlation[1:-1]
    peaks = np.flatnonzero((inner >= correlation[:-2]) & (inner > correlation[2:])) + 1
    return peaks[(peaks > first) & (peaks >= 2) & (correlation[peaks] > 0)]
