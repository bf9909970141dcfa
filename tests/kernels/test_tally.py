"""Accounts of rows and their ages, against NumPy."""

import numpy as np
import pytest

from streamlstm.events.batch import Reason
from streamlstm.events.forecast import Status
from streamlstm.kernels import tally


@pytest.mark.parametrize("has_scores", [True, False])
def test_tally(has_scores: bool) -> None:
    rng = np.random.default_rng(0)
    n = 1000
    reason = np.where(rng.random(n) < 0.2, rng.integers(1, len(Reason), n), 0).astype(np.uint8)
    status = rng.integers(0, len(Status), n).astype(np.uint8)
    key_len, value_len = rng.integers(0, 50, (2, n))
    score = np.where(rng.random(n) < 0.1, np.nan, 2 * rng.random(n)) if has_scores else np.empty(0)
    rows = np.sort(rng.choice(n, 700, replace=False))
    by_status, by_reason = np.ones(len(Status), np.int64), np.ones(len(Reason), np.int64)
    sums = np.full(tally.SUMS, 5)
    tally.tally(rows, reason, status, key_len, value_len, score, by_status, by_reason, sums)
    refused = reason[rows] != 0
    assert (by_status == 1 + np.bincount(status[rows][~refused], minlength=len(Status))).all()
    assert (by_reason == 1 + np.bincount(reason[rows][refused], minlength=len(Reason))).all()
    anomalous = np.count_nonzero(score[rows[~refused]] > 1.0) if has_scores else 0
    assert sums.tolist() == [5 + (key_len + value_len)[rows].sum(), 5 + refused.sum(), 5 + anomalous]


def test_ages() -> None:
    rng = np.random.default_rng(1)
    now, bounds = 1_700_000_000_000, np.array([10, 50, 250, 1000])
    timestamps = np.concatenate([now - rng.integers(-100, 2000, 1000), now - bounds, now - bounds - 1, [-1, -5]])
    rng.shuffle(timestamps)
    counts = np.ones(5, np.int64)
    total, newest = tally.ages(timestamps, now, bounds, counts)
    age = np.maximum(now - timestamps[timestamps >= 0], 0)
    assert (counts == 1 + np.bincount(np.searchsorted(bounds, age), minlength=5)).all()
    assert (total, newest) == (age.sum(), timestamps.max())
    assert tally.ages(np.array([-1]), now, bounds, counts) == (0, 0)
