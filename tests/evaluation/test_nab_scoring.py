"""The benchmark's rules on a made file, by hand."""

from math import exp

import numpy as np
import pytest

from benchmarks.nab_scoring import LabelledFile, Profile, Scoring, place, sigmoid

STANDARD = Profile(found=1.0, missed=1.0, false_alarm=0.11)
ROWS = 200


def made() -> LabelledFile:
    """Windows at rows 100..109 and 150..159; the first 30 rows are the probation."""
    times = np.datetime64("2024-01-01T00:00:00") + np.arange(ROWS) * np.timedelta64(60, "s")
    window, worth = place(times, [(times[100], times[109]), (times[150], times[159])])
    return LabelledFile("made", np.zeros(ROWS), 60.0, 2, window, worth, np.arange(ROWS) >= 30)


def outcome(*rows: int) -> float:
    scores = np.zeros(ROWS)
    scores[list(rows)] = 2.0
    return Scoring([made()]).fixed([scores], STANDARD, 1.0).score


def s(position: float) -> float:
    return 2 / (1 + exp(5 * position)) - 1


def test_the_sigmoid() -> None:
    assert sigmoid(np.array([-1.0, 0.0, 2.9, 3.0])) == pytest.approx([0.98661, 0.0, s(2.9), -1.0], abs=1e-5)


def test_null_and_perfect() -> None:
    assert outcome() == 0.0
    assert outcome(100, 150) == pytest.approx(100.0)
    assert outcome(5, 29) == 0.0  # in the probation


def test_a_window_counts_once_by_its_earliest_detection() -> None:
    # found 1 of 2: from -2 to worth - 1, of the 4 between null and perfect
    assert outcome(100) == pytest.approx(50.0)
    assert outcome(104, 105, 109) == pytest.approx(100 * (s(-0.6) / s(-1.0) + 1) / 4)


def test_false_alarms_weigh_by_their_distance() -> None:
    assert outcome(60) == pytest.approx(-100 * 0.11 / 4)  # no window before it
    assert outcome(112) == pytest.approx(100 * 0.11 * s(3 / 9) / 4)  # just behind one
    assert outcome(145) == pytest.approx(-100 * 0.11 / 4)  # three widths behind


def test_the_sweep_takes_the_best_threshold() -> None:
    scores = np.zeros(ROWS)
    scores[[100, 150]], scores[[60, 61]], scores[120:140] = 5.0, 7.0, 3.0
    found = Scoring([made()]).best([scores], STANDARD)
    assert (found.threshold, found.windows_found, found.false_alarms) == (5.0, 2, 2)
    assert found.score == pytest.approx(100 * (4 - 2 * 0.11) / 4)
    scores[100:110] = scores[150:160] = np.nan
    assert Scoring([made()]).best([scores], STANDARD).score == 0.0
