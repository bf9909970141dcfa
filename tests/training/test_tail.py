"""How sure a difference of two scores is, and what is chosen by it."""

from dataclasses import replace

import numpy as np
import pytest

from streamlstm.training.auto import Tried, _choice
from streamlstm.training.linear import SLIGHT
from streamlstm.training.past import Base, Lags, past_of
from streamlstm.training.tail import STRETCHES, Scores, score, standard_error, tail_of

FEW, MANY = Lags("few", (1, 2), (0,)), Lags("many", tuple(range(1, 101)), (0,))
MEANS = Lags("means", (1, 2, 3, 4), (0,), (0, 1, 2, 2))


def scores_of(ratio: float, parts: np.ndarray) -> Scores:
    """Of one horizon, from errors [V, K]; `ratio` to the naive one's."""
    return Scores(np.array([ratio]), np.array([np.nan]), np.array([100]), len(parts), parts[:, :, None])


def test_it_is_the_spread_of_the_difference() -> None:
    """Against many draws of the same: log ratios of two forecasts of five streams, whose errors go together."""
    random = np.random.default_rng(0)
    found, told = [], []
    for _ in range(400):
        common = random.gamma(4.0, 1.0, (5, STRETCHES))
        one, other = (common * random.gamma(100.0, 0.01, common.shape) for _ in range(2))
        found.append(np.log(one.sum(axis=1) / other.sum(axis=1)).mean())
        told.append(standard_error(scores_of(1.0, one), scores_of(1.0, other)))
    assert np.mean(told) == pytest.approx(np.std(found), rel=0.1)


def test_streams_that_stand_still_have_no_say() -> None:
    random = np.random.default_rng(1)
    one, other = random.random((3, STRETCHES)), random.random((3, STRETCHES))
    one[1] = other[1] = 0.0
    least = standard_error(scores_of(1.0, one[::2]), scores_of(1.0, other[::2]))
    assert standard_error(scores_of(1.0, one), scores_of(1.0, other)) == pytest.approx(least)
    assert standard_error(scores_of(1.0, one), scores_of(1.0, one)) == 0.0


def test_errors_by_stretch_are_those_of_the_whole() -> None:
    random = np.random.default_rng(2)
    past = past_of(random.normal(size=300).cumsum(), np.empty((300, 0), np.float32), np.array([0, 120, 300]))
    tail = tail_of(past, np.array([100, 201]))
    base = Base(FEW, (1, 3), np.array([[0.3, 0.1], [0.2, -0.1]]))
    whole, parts = (score(past, tail, base, None, 0, stretches) for stretches in (1, STRETCHES))
    assert parts.missed.shape == (2, STRETCHES, 2)
    assert np.allclose(parts.missed.sum(axis=1), whole.missed[:, 0])
    assert np.allclose(parts.model, whole.model)
    assert (parts.missed[:, :-1] > 0).all()


@pytest.mark.parametrize(
    ("lags", "gain", "noise", "expected"),
    [
        (MANY, 0.02, 0.2, "many"), (MANY, 0.004, 0.0, "few"), (MEANS, 0.02, 0.2, "few"), (MEANS, 0.02, 0.005, "means"),
        (MEANS, 0.2, 0.2, "means"), (MEANS, 0.004, 0.0, "few"),
    ],
)  # fmt: skip
def test_means_have_to_be_better_than_luck(lags: Lags, gain: float, noise: float, expected: str) -> None:
    parts = np.ones((1, STRETCHES))
    wavy = parts * (1 + noise * np.resize([1, -1], STRETCHES))
    before = Tried(FEW, SLIGHT, (1,), scores_of(0.9, parts))
    after = Tried(lags, SLIGHT, (1,), scores_of(0.9 * np.exp(-gain), wavy))
    assert _choice([before, after]).lags.name == expected
    assert _choice([after, replace(before, scores=scores_of(0.91, parts))]) is after
