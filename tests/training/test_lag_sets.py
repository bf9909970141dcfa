"""Which sets of lags are tried."""

import pytest

from streamlstm.training.lag_sets import lag_sets
from streamlstm.training.periods import Periods


def names(periods: Periods, longest: int = 100_000) -> list[str]:
    return [each.name for each in lag_sets(periods, 24, longest)]


def test_from_small_to_large() -> None:
    assert names(Periods()) == ["short", "newest 24", "newest 48"]
    assert names(Periods(7, 0.5)) == ["season", "short", "two of each", "newest 24", "newest 48"]
    assert names(Periods(24, 0.5, 168, 0.5)) == ["short", "season", "season and long season", "two of each"]
    for periods in (Periods(), Periods(7, 0.5), Periods(12, 0.5), Periods(24, 0.5, 168, 0.5), Periods(288, 0.5)):
        sets = lag_sets(periods, 24, 100_000)
        assert [len(each.lags) for each in sets] == sorted(len(each.lags) for each in sets)
        assert all(list(each.lags) == sorted(set(each.lags)) and each.lags[0] >= 1 for each in sets)
        assert all(each.fed and each.fed[-1] < len(each.lags) for each in sets)


@pytest.mark.parametrize(
    ("longest", "expected"), [(143, ["short", "newest 24"]), (71, ["short"]), (35, ["short"]), (0, ["short"])]
)
def test_a_stream_must_hold_the_longest_lag_three_times(longest: int, expected: list[str]) -> None:
    assert names(Periods(), longest) == expected
