"""Which sets of lags are tried."""

import pytest

from streamlstm.model.features import MAX_LAGS
from streamlstm.training.lag_sets import lag_sets
from streamlstm.training.past import Lags
from streamlstm.training.periods import Periods

ALL = (Periods(), Periods(7, 0.5), Periods(12, 0.5), Periods(24, 0.5, 168, 0.5), Periods(48, 0.5), Periods(288, 0.5))


def sets_of(periods: Periods, longest: int = 100_000, rows: int = 100_000) -> list[Lags]:
    return lag_sets(periods, 24, longest, rows)


def names(periods: Periods, longest: int = 100_000, rows: int = 100_000) -> list[str]:
    return [each.name for each in sets_of(periods, longest, rows)]


def groups(lags: Lags) -> list[list[int]]:
    """The lags of each weight that several share."""
    weight = lags.weight or ()
    found = [[lag for lag, own in zip(lags.lags, weight, strict=True) if own == k] for k in range(lags.weights)]
    return [group for group in found if len(group) > 1]


def test_from_few_weights_to_many() -> None:
    assert names(Periods()) == ["short", "means to 192", "means to 384", "newest 24", "newest 48", "newest 96"]
    assert names(Periods(7, 0.5)) == [
        "season", "short", "two of each", "newest 24", "mean of 4 seasons", "mean of 16 seasons", "newest 48",
        "newest 96",
    ]  # fmt: skip
    assert names(Periods(24, 0.5)) == ["short", "season", "two of each", "mean of 4 seasons", "mean of 16 seasons"]
    assert names(Periods(24, 0.5, 168, 0.5)) == [
        "short", "season", "season and long season", "two of each", "mean of 4 seasons", "mean of 16 seasons",
    ]  # fmt: skip
    for periods in ALL:
        sets = sets_of(periods)
        weights = [(periods.long > 0 and each.weight is not None, each.weights) for each in sets]
        assert weights == sorted(weights)
        assert all(list(each.lags) == sorted(set(each.lags)) and each.lags[0] >= 1 for each in sets)
        assert all(each.fed and each.fed[-1] < len(each.lags) <= MAX_LAGS for each in sets)


@pytest.mark.parametrize("periods", ALL)
def test_each_weight_is_of_some_lag(periods: Periods) -> None:
    for each in sets_of(periods):
        column, part = each.columns
        assert set(column.tolist()) == set(range(each.weights))
        assert part.sum() == pytest.approx(each.weights)


def test_means_of_longer_and_longer_stretches() -> None:
    (means,) = [each for each in sets_of(Periods()) if each.name == "means to 192"]
    assert means.lags == tuple(range(1, 193))
    found = groups(means)
    assert [group[0] for group in found] == [13, 19, 28, 41, 61, 91, 136]
    assert all(group == list(range(group[0], group[-1] + 1)) for group in found)


def test_means_of_each_point_of_the_season() -> None:
    for m in (4, 7, 12, 24):
        (means,) = [each for each in sets_of(Periods(m, 0.5)) if each.name == "mean of 16 seasons"]
        assert means.lags == tuple(range(1, max(24, 16 * m) + 1))
        found = groups(means)
        assert len(found) == m
        assert all({lag % m for lag in group} == {group[0] % m} for group in found)
        assert len({group[0] % m for group in found}) == m


def test_means_stand_beside_the_path_of_a_long_season() -> None:
    (path,) = [each for each in sets_of(Periods(24, 0.5, 168, 0.5)) if each.name == "season and long season"]
    (means,) = [each for each in sets_of(Periods(24, 0.5, 168, 0.5)) if each.name == "mean of 16 seasons"]
    assert set(path.lags) <= set(means.lags)
    shared = {lag for group in groups(means) for lag in group}
    assert not shared & set(path.lags)
    assert max(shared) == 16 * 24


@pytest.mark.parametrize(
    ("longest", "expected"),
    [
        (319, ["short", "newest 24", "newest 48", "newest 96"]), (143, ["short", "newest 24"]), (71, ["short"]),
        (35, ["short"]), (0, ["short"]),
    ],
)  # fmt: skip
def test_a_stream_must_hold_the_longest_lag_three_times_or_the_means(longest: int, expected: list[str]) -> None:
    assert names(Periods(), longest) == expected


def test_a_mean_may_reach_further_if_there_are_rows_for_its_weights() -> None:
    assert "mean of 4 seasons" in names(Periods(7, 0.5), 48, 400)
    assert "mean of 4 seasons" not in names(Periods(7, 0.5), 46, 400)
    assert "mean of 4 seasons" not in names(Periods(7, 0.5), 48, 111)
